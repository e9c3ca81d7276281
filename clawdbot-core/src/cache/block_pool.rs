//! A pool of pages of one size. Pages are allocated one by one against the budget, and reused.

use clawdbot_kernels::memory::{AlignedBuf, bytes_of, bytes_of_mut};

use crate::error::Result;
use crate::options::KvType;
use crate::runtime::{Budget, Reservation};

/// Free pages that a pool keeps, so that a page that is released and taken again is not allocated again: as many as fit
/// into these bytes, at least one and at most `RESERVE_PAGES`.
const RESERVE_BYTES: u64 = 16 << 20;
const RESERVE_PAGES: u64 = 4;

/// Index of a page in its pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PageId(u32);

/// Elements of a page in the pool's type.
#[derive(Debug)]
pub(crate) enum PageData {
    Int8 { codes: AlignedBuf<i8>, scales: AlignedBuf<f32> },
    Bf16(AlignedBuf<u16>),
    F32(AlignedBuf<f32>),
}

impl PageData {
    /// Its bytes, in this machine's order.
    pub(super) fn bytes(&self) -> [&[u8]; 2] {
        match self {
            PageData::Int8 { codes, scales } => [bytes_of(codes), bytes_of(scales)],
            PageData::Bf16(data) => [bytes_of(data), &[]],
            PageData::F32(data) => [bytes_of(data), &[]],
        }
    }

    /// As [`PageData::bytes`], for writing.
    pub(super) fn bytes_mut(&mut self) -> [&mut [u8]; 2] {
        match self {
            PageData::Int8 { codes, scales } => [bytes_of_mut(codes), bytes_of_mut(scales)],
            PageData::Bf16(data) => [bytes_of_mut(data), &mut []],
            PageData::F32(data) => [bytes_of_mut(data), &mut []],
        }
    }

    /// Whether all its numbers are finite.
    pub(super) fn is_finite(&self) -> bool {
        match self {
            PageData::Int8 { scales, .. } => scales.iter().all(|scale| scale.is_finite()),
            // All bits of the exponent.
            PageData::Bf16(data) => data.iter().all(|bits| bits & 0x7f80 != 0x7f80),
            PageData::F32(data) => data.iter().all(|value| value.is_finite()),
        }
    }

    /// Takes over the contents of a page of the same pool.
    pub(super) fn copy_from(&mut self, other: &PageData) {
        match (self, other) {
            (PageData::Int8 { codes, scales }, PageData::Int8 { codes: other, scales: other_scales }) => {
                codes.copy_from_slice(other);
                scales.copy_from_slice(other_scales);
            }
            (PageData::Bf16(own), PageData::Bf16(other)) => own.copy_from_slice(other),
            (PageData::F32(own), PageData::F32(other)) => own.copy_from_slice(other),
            _ => debug_assert!(false, "pages of two types in a pool"),
        }
    }
}

/// A page and its memory.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) data: PageData,
    /// How many tables it is in; 0 while it is in reserve.
    users: u32,
    _reservation: Reservation,
}

/// The contents of a page.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageLen {
    pub(crate) elements: usize,
    pub(crate) scales: usize,
}

/// A pool of equal pages.
#[derive(Debug)]
pub(crate) struct BlockPool {
    len: PageLen,
    page_bytes: u64,
    kv_type: KvType,
    budget: Budget,
    /// `None`: the slot's memory was trimmed.
    pages: Vec<Option<Page>>,
    free: Vec<PageId>,
    empty_slots: Vec<PageId>,
}

impl BlockPool {
    pub(crate) fn new(len: PageLen, page_bytes: u64, kv_type: KvType, budget: &Budget) -> Self {
        let budget = budget.clone();
        BlockPool {
            len,
            page_bytes,
            kv_type,
            budget,
            pages: Vec::new(),
            free: Vec::new(),
            empty_slots: Vec::new(),
        }
    }

    pub(crate) fn page_bytes(&self) -> u64 {
        self.page_bytes
    }

    /// Bytes of all its pages, in use or not.
    pub(crate) fn allocated_bytes(&self) -> u64 {
        (self.pages.len() - self.empty_slots.len()) as u64 * self.page_bytes
    }

    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        self.allocated() - self.free.len()
    }

    #[cfg(test)]
    pub(crate) fn allocated(&self) -> usize {
        self.pages.len() - self.empty_slots.len()
    }

    /// A page for exclusive use. Its contents are finite, but otherwise unspecified.
    pub(crate) fn take(&mut self) -> Result<PageId> {
        if let Some(id) = self.free.pop() {
            self.pages[id.0 as usize].iter_mut().for_each(|page| page.users = 1);
            return Ok(id);
        }
        let reservation = self.budget.reserve_growing(self.page_bytes, "a page of the KV cache")?;
        let data = match self.kv_type {
            KvType::F32 => PageData::F32(AlignedBuf::zeroed(self.len.elements)?),
            KvType::Bf16 | KvType::Auto => PageData::Bf16(AlignedBuf::zeroed(self.len.elements)?),
            KvType::Int8 => PageData::Int8 {
                codes: AlignedBuf::zeroed(self.len.elements)?,
                scales: AlignedBuf::zeroed(self.len.scales)?,
            },
        };
        Ok(self.put(Page { data, users: 1, _reservation: reservation }))
    }

    /// Makes a page the pool's, which has the pool's size and type.
    pub(super) fn put(&mut self, page: Page) -> PageId {
        match self.empty_slots.pop() {
            Some(id) => {
                self.pages[id.0 as usize] = Some(page);
                id
            }
            None => {
                self.pages.push(Some(page));
                PageId(self.pages.len() as u32 - 1)
            }
        }
    }

    /// Takes a page that has one user out of the pool, with its memory, until it is [put](BlockPool::put) back.
    pub(super) fn lift(&mut self, id: PageId) -> Option<Page> {
        let page = self.pages.get_mut(id.0 as usize)?.take();
        self.forget_slot(id);
        page
    }

    /// Adds a user of a page in use, who may read it. It gives the page back too.
    pub(crate) fn share(&mut self, id: PageId) -> PageId {
        if let Some(Some(page)) = self.pages.get_mut(id.0 as usize) {
            page.users += 1;
        }
        id
    }

    /// Whether a page has several users: nobody may write to it.
    pub(crate) fn is_shared(&self, id: PageId) -> bool {
        self.pages.get(id.0 as usize).is_some_and(|page| page.as_ref().is_some_and(|page| page.users > 1))
    }

    /// Makes `to` hold what `from` does; two pages in use.
    pub(crate) fn copy(&mut self, from: PageId, to: PageId) {
        let pages = self.pages.get_disjoint_mut([from.0 as usize, to.0 as usize]);
        if let Ok([Some(from), Some(to)]) = pages {
            to.data.copy_from(&from.data);
        }
    }

    /// Releases a page. After its last user's, its memory returns to the budget, unless the pool keeps it in reserve.
    pub(crate) fn give_back(&mut self, id: PageId) {
        debug_assert!(!self.free.contains(&id), "page given back twice");
        let Some(Some(page)) = self.pages.get_mut(id.0 as usize) else { return };
        page.users = page.users.saturating_sub(1);
        if page.users > 0 {
            return;
        }
        let reserve = (RESERVE_BYTES / self.page_bytes.max(1)).clamp(1, RESERVE_PAGES);
        if (self.free.len() as u64) < reserve {
            self.free.push(id);
        } else {
            self.drop_page(id);
        }
    }

    /// Frees the reserve. Returns whether there was any.
    pub(crate) fn trim(&mut self) -> bool {
        let any = !self.free.is_empty();
        while let Some(id) = self.free.pop() {
            self.drop_page(id);
        }
        any
    }

    fn drop_page(&mut self, id: PageId) {
        self.pages[id.0 as usize] = None;
        self.forget_slot(id);
    }

    /// The slot of a page that is gone.
    fn forget_slot(&mut self, id: PageId) {
        self.empty_slots.push(id);
        if self.empty_slots.len() == self.pages.len() {
            self.pages = Vec::new();
            self.empty_slots = Vec::new();
        }
    }

    /// The data of a page in use.
    pub(crate) fn page(&self, id: PageId) -> Option<&PageData> {
        self.pages.get(id.0 as usize)?.as_ref().map(|page| &page.data)
    }

    /// The data of several distinct pages, for writing; `ids` sorted ascending.
    pub(crate) fn pages_mut(&mut self, ids: &[PageId]) -> Vec<&mut PageData> {
        debug_assert!(ids.is_sorted());
        // Linear in the number of ids, not in the size of the pool.
        let mut rest = self.pages.as_mut_slice();
        let mut passed = 0;
        let mut found = Vec::with_capacity(ids.len());
        for id in ids {
            let tail = (id.0 as usize).checked_sub(passed).and_then(|skip| rest.get_mut(skip..));
            let Some((page, after)) = tail.and_then(<[_]>::split_first_mut) else { break };
            found.extend(page.as_mut().map(|page| &mut page.data));
            (rest, passed) = (after, id.0 as usize + 1);
        }
        found
    }
}
