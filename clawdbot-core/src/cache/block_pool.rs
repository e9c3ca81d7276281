//! Pages of one size: allocated one by one against the budget, handed out, taken back, reused.

use crate::error::Result;
use crate::memory::AlignedBuf;
use crate::options::KvType;
use crate::runtime::{Budget, Reservation};

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

#[derive(Debug)]
struct Page {
    data: PageData,
    _reservation: Reservation,
}

/// A pool of equal pages.
#[derive(Debug)]
pub(crate) struct BlockPool {
    /// Elements and scales of a page.
    len: (usize, usize),
    page_bytes: u64,
    kv_type: KvType,
    budget: Budget,
    /// `None`: the slot's memory was trimmed.
    pages: Vec<Option<Page>>,
    free: Vec<PageId>,
    empty_slots: Vec<PageId>,
}

impl BlockPool {
    pub(crate) fn new(len: (usize, usize), page_bytes: u64, kv_type: KvType, budget: &Budget) -> Self {
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
            return Ok(id);
        }
        let reservation = self.budget.reserve(self.page_bytes, "a page of the KV cache")?;
        let data = match self.kv_type {
            KvType::F32 => PageData::F32(AlignedBuf::zeroed(self.len.0)?),
            KvType::Bf16 | KvType::Auto => PageData::Bf16(AlignedBuf::zeroed(self.len.0)?),
            KvType::Int8 => PageData::Int8 {
                codes: AlignedBuf::zeroed(self.len.0)?,
                scales: AlignedBuf::zeroed(self.len.1)?,
            },
        };
        let page = Some(Page { data, _reservation: reservation });
        Ok(match self.empty_slots.pop() {
            Some(id) => {
                self.pages[id.0 as usize] = page;
                id
            }
            None => {
                self.pages.push(page);
                PageId(self.pages.len() as u32 - 1)
            }
        })
    }

    pub(crate) fn give_back(&mut self, id: PageId) {
        debug_assert!(!self.free.contains(&id), "page given back twice");
        self.free.push(id);
    }

    pub(crate) fn trim(&mut self) {
        for id in self.free.drain(..) {
            self.pages[id.0 as usize] = None;
            self.empty_slots.push(id);
        }
    }

    /// The data of a page in use.
    pub(crate) fn page(&self, id: PageId) -> Option<&PageData> {
        self.pages.get(id.0 as usize)?.as_ref().map(|page| &page.data)
    }

    /// The data of several distinct pages, for writing; `ids` sorted ascending.
    pub(crate) fn pages_mut(&mut self, ids: &[PageId]) -> Vec<&mut PageData> {
        debug_assert!(ids.is_sorted());
        // Costs as much as there are ids, however large the pool.
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
