//! Sequences as bytes: what is cached of their first tokens, page after page.
//!
//! The *image* of a sequence with `computed` tokens in the cache has, for each group in turn, the pages that a query after them
//! sees, in ascending order; of a recurrent group, the state. So the number of tokens says which pages these are, and how
//! many bytes. Snapshots are not in it. A page is its elements and then its scales, little-endian.

use std::io::{self, Read};
use std::ops::Range;

use clawdbot_kernels::attention::{Int8Head, PAGE_TOKENS, clear_float, clear_int8};

use super::block_pool::Page;
use super::{Group, KvCache, LayerState, PageData, PageId, PageTables, StateTable};
use crate::error::{Error, Result};

/// Pages that are in no table and no pool: who has them fills them without the cache. Their memory stays reserved.
#[derive(Debug)]
pub(crate) struct LoosePages {
    /// Tokens that they are for.
    computed: usize,
    /// With their groups, in the order of an image.
    pages: Vec<(usize, Page)>,
}

impl LoosePages {
    /// Fills them with an image.
    ///
    /// # Errors
    /// Those of `from`.
    pub(crate) fn read(&mut self, from: &mut dyn Read) -> io::Result<()> {
        let mut parts = self.pages.iter_mut().flat_map(|(_, page)| page.data.bytes_mut());
        parts.try_for_each(|part| from.read_exact(part))
    }

    /// Tokens that they are for.
    pub(crate) fn computed(&self) -> usize {
        self.computed
    }

    /// Their bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.parts().map(|part| part.len() as u64).sum()
    }

    /// The bytes of an image in parts, two of a page.
    fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.pages.iter().flat_map(|(_, page)| page.data.bytes())
    }

    /// The part `index` of an image, for writing.
    pub(super) fn part_mut(&mut self, index: usize) -> Option<&mut [u8]> {
        let (_, page) = self.pages.get_mut(index / 2)?;
        page.data.bytes_mut().into_iter().nth(index % 2)
    }

    /// Adds `len` bytes of the image from `at` on to `bytes`, or as many as there are.
    pub(super) fn copy_to(&self, bytes: &mut Vec<u8>, at: u64, len: usize) {
        let (mut skipped, mut left) = (at, len);
        for part in self.parts() {
            let from = skipped.min(part.len() as u64);
            skipped -= from;
            let part = &part[from as usize..];
            let part = &part[..left.min(part.len())];
            bytes.extend_from_slice(part);
            left -= part.len();
        }
    }

    /// Whether all numbers in the page `index` are finite.
    pub(super) fn is_finite(&self, index: usize) -> Option<bool> {
        self.pages.get(index).map(|(_, page)| page.data.is_finite())
    }
}

/// A page of an image that was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoredPage {
    pub(crate) group: usize,
    pub(crate) bytes: u64,
    /// Whether it is in the image that is wanted of it.
    pub(crate) is_wanted: bool,
    /// Where in it tokens begin that are not wanted.
    pub(crate) clear_from: Option<usize>,
}

impl Group {
    /// Which pages of this group an image of `computed` tokens has.
    fn imaged(&self, computed: usize) -> Range<usize> {
        match self.state {
            LayerState::Attention { window, .. } => {
                let count = computed.div_ceil(PAGE_TOKENS);
                let first = window.map_or(0, |window| (computed + 1).saturating_sub(window) / PAGE_TOKENS);
                first.min(count)..count
            }
            LayerState::Recurrent { .. } | LayerState::Shared { .. } => 0..1,
        }
    }

    /// Makes what page `page` holds of tokens from `slot` on zeros.
    fn clear(&self, page: &mut PageData, slot: usize) {
        let (elements, scales) = (self.shape.head_elements(), self.shape.head_scales());
        let head_dim = self.shape.head_dim;
        match page {
            PageData::F32(data) => {
                data.chunks_exact_mut(elements).for_each(|head| clear_float(head, head_dim, slot));
            }
            PageData::Bf16(data) => {
                data.chunks_exact_mut(elements).for_each(|head| clear_float(head, head_dim, slot));
            }
            PageData::Int8 { codes, scales: all } => {
                for (codes, scales) in codes.chunks_exact_mut(elements).zip(all.chunks_exact_mut(scales)) {
                    clear_int8(&mut Int8Head { codes, scales }, head_dim, slot);
                }
            }
        }
    }
}

impl KvCache {
    /// Bytes of an image.
    pub(crate) fn image_bytes(&self, computed: usize) -> u64 {
        let of_group =
            |group: &Group| group.pool.page_bytes().saturating_mul(group.imaged(computed).len() as u64);
        self.groups.iter().map(of_group).fold(0, u64::saturating_add)
    }

    /// The pages of the image of a sequence, with their groups. `None` if not all are there, or the states are those of another
    /// position.
    pub(crate) fn image(&self, tables: &PageTables, computed: usize) -> Option<Vec<(usize, PageId)>> {
        let mut pages = Vec::new();
        for (index, group) in self.groups.iter().enumerate() {
            if group.is_recurrent() {
                let live = tables.states(index).and_then(StateTable::live);
                pages.push((index, live.filter(|state| state.tokens == computed)?.page));
                continue;
            }
            let table = tables.of_group(index).get(group.imaged(computed))?;
            for page in table {
                pages.push((index, (*page)?));
            }
        }
        Some(pages)
    }

    /// The bytes of a page of an image.
    ///
    /// # Errors
    /// `UnsupportedModel` on a big-endian machine; `Internal` for a page that is not there.
    pub(crate) fn page_bytes_of(&self, (group, page): (usize, PageId)) -> Result<[&[u8]; 2]> {
        little_endian()?;
        let page = self.groups.get(group).and_then(|group| group.pool.page(page));
        page.map(PageData::bytes).ok_or_else(|| Error::internal("a page of an image is missing"))
    }

    /// Pages for an image of `computed` tokens.
    ///
    /// # Errors
    /// `OutOfBudget`; nothing is taken then. `UnsupportedModel` on a big-endian machine.
    pub(crate) fn loose_pages(&mut self, computed: usize) -> Result<LoosePages> {
        little_endian()?;
        let mut pages = Vec::new();
        for group in 0..self.groups.len() {
            for _ in self.groups[group].imaged(computed) {
                pages.push((group, self.loose_page(group)?));
            }
        }
        Ok(LoosePages { computed, pages })
    }

    /// One page of a group.
    pub(super) fn loose_page(&mut self, group: usize) -> Result<Page> {
        let id = self.take(group)?;
        let page = self.groups[group].pool.lift(id);
        page.ok_or_else(|| Error::internal("a page that was taken is not there"))
    }

    /// A copy of a page of the image of `computed` tokens, in which nothing is left of what came after them.
    ///
    /// # Errors
    /// As [`KvCache::loose_pages`].
    pub(crate) fn page_copy(
        &mut self,
        (group, page): (usize, PageId),
        clear_from: Option<usize>,
    ) -> Result<LoosePages> {
        let mut copy = self.blank_copy(group)?;
        let data = self.groups[group].pool.page(page);
        let data = data.ok_or_else(|| Error::internal("a page of an image is missing"))?;
        copy.pages.iter_mut().for_each(|(_, page)| page.data.copy_from(data));
        if let Some(slot) = clear_from {
            self.clear_copy(&mut copy, slot);
        }
        Ok(copy)
    }

    /// The pages of an image of `stored` tokens, in its order, for an image of the first `wanted` of them. With fewer tokens than
    /// were stored, the cache is one that can be cut.
    pub(crate) fn stored_pages(&self, stored: usize, wanted: usize) -> Vec<StoredPage> {
        let mut pages = Vec::new();
        for (index, group) in self.groups.iter().enumerate() {
            let image = group.imaged(wanted);
            let last = image.end.saturating_sub(1);
            let cut = Some(wanted % PAGE_TOKENS).filter(|slot| *slot > 0 && !group.is_recurrent());
            pages.extend(group.imaged(stored).map(|page| StoredPage {
                group: index,
                bytes: group.pool.page_bytes(),
                is_wanted: image.contains(&page),
                clear_from: cut.filter(|_| page == last),
            }));
        }
        pages
    }

    /// A page to read a page of a group into.
    ///
    /// # Errors
    /// As [`KvCache::loose_pages`].
    pub(crate) fn blank_copy(&mut self, group: usize) -> Result<LoosePages> {
        little_endian()?;
        Ok(LoosePages { computed: 0, pages: vec![(group, self.loose_page(group)?)] })
    }

    /// Makes what `copy` holds of tokens from `slot` on zeros.
    pub(crate) fn clear_copy(&self, copy: &mut LoosePages, slot: usize) {
        for (group, page) in &mut copy.pages {
            let group = &self.groups[*group];
            if !group.is_recurrent() {
                group.clear(&mut page.data, slot);
            }
        }
    }

    /// Tables of a sequence whose first tokens are in `loose`.
    pub(crate) fn adopt(&mut self, loose: LoosePages) -> PageTables {
        let LoosePages { computed, pages } = loose;
        let mut tables = PageTables::default();
        for group in &self.groups {
            // What no query sees any more.
            tables.pages.push(match group.is_recurrent() {
                true => Vec::new(),
                false => vec![None; group.imaged(computed).start],
            });
            tables.states.push(StateTable::default());
        }
        for (index, page) in pages {
            let group = &mut self.groups[index];
            let id = group.pool.put(page);
            match group.is_recurrent() {
                true => tables.states[index] = StateTable::after(computed, id),
                false => tables.pages[index].push(Some(id)),
            }
        }
        tables
    }
}

fn little_endian() -> Result<()> {
    match cfg!(target_endian = "little") {
        true => Ok(()),
        false => Err(Error::unsupported_model("keys and values cannot be stored on a big-endian machine")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::KvType;
    use crate::runtime::Budget;

    fn layers() -> [LayerState; 3] {
        let attention = |window| LayerState::Attention { window, kv_heads: 2, head_dim: 24 };
        [attention(None), attention(Some(70)), LayerState::Recurrent { floats: 8 }]
    }

    fn image(cache: &KvCache, tables: &PageTables, computed: usize) -> Vec<u8> {
        let pages = cache.image(tables, computed).unwrap();
        let bytes = pages.into_iter().flat_map(|page| cache.page_bytes_of(page).unwrap().concat());
        bytes.collect()
    }

    fn bytes_of(pages: &LoosePages) -> Vec<u8> {
        pages.parts().collect::<Vec<_>>().concat()
    }

    /// Bytes that are finite numbers in every type.
    fn some_bytes(len: u64) -> Vec<u8> {
        (0..len).map(|i| (i * 31 % 61) as u8).collect()
    }

    #[test]
    fn images_come_back() {
        for kv_type in [KvType::F32, KvType::Bf16, KvType::Int8] {
            let budget = Budget::new(Some(10 << 20));
            let mut cache = KvCache::new(kv_type, &layers(), &budget).unwrap();
            for computed in [1, 63, 64, 65, 134, 133, 300] {
                let bytes = some_bytes(cache.image_bytes(computed));
                let mut loose = cache.loose_pages(computed).unwrap();
                loose.read(&mut bytes.as_slice()).unwrap();
                assert_eq!(loose.computed(), computed);
                assert_eq!(cache.usage().0, 0);
                let mut tables = cache.adopt(loose);
                assert_eq!(image(&cache, &tables, computed), bytes, "{kv_type} {computed}");
                assert!(cache.image(&tables, computed + 64).is_none());
                assert_eq!(tables.states(2).unwrap().live().map(|state| state.tokens), Some(computed));
                assert!(cache.held(&tables) == bytes.len() as u64);
                // It goes on as any sequence does.
                cache.grow(&mut tables, computed + 100).unwrap();
                cache.release_passed(&mut tables, computed + 100);
                assert_eq!(
                    cache.image(&tables, computed + 100).map(|pages| pages.len() as u64 > 0),
                    Some(true)
                );
                cache.release_all(&mut tables);
            }
            cache.trim();
            assert_eq!((cache.usage(), budget.used()), ((0, 0), 0));
        }
    }

    #[test]
    fn shorter_images_are_parts_of_longer_ones() {
        let attention = LayerState::Attention { window: None, kv_heads: 2, head_dim: 24 };
        let wide = LayerState::Attention { window: None, kv_heads: 1, head_dim: 40 };
        for kv_type in [KvType::F32, KvType::Bf16, KvType::Int8] {
            let mut cache = KvCache::new(kv_type, &[attention, wide], &Budget::new(None)).unwrap();
            assert!(cache.can_be_cut());
            let bytes = some_bytes(cache.image_bytes(300));
            let mut loose = cache.loose_pages(300).unwrap();
            loose.read(&mut bytes.as_slice()).unwrap();
            let tables = cache.adopt(loose);
            for wanted in [1, 64, 100, 128, 299, 300] {
                let (mut from, mut found) = (bytes.as_slice(), Vec::new());
                for page in cache.stored_pages(300, wanted) {
                    let mut copy = cache.blank_copy(page.group).unwrap();
                    copy.read(&mut from).unwrap();
                    assert_eq!(copy.bytes(), page.bytes);
                    page.clear_from.iter().for_each(|slot| cache.clear_copy(&mut copy, *slot));
                    found.extend(bytes_of(&copy).into_iter().filter(|_| page.is_wanted));
                }
                let pages = cache.image(&tables, wanted).unwrap();
                let mut expected = Vec::new();
                for (index, page) in pages.iter().enumerate() {
                    let last = pages.get(index + 1).is_none_or(|next| next.0 != page.0);
                    let clear_from = Some(wanted % PAGE_TOKENS).filter(|slot| last && *slot > 0);
                    expected.extend(bytes_of(&cache.page_copy(*page, clear_from).unwrap()));
                }
                assert!(from.is_empty() && found == expected, "{kv_type} {wanted}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_leaves_nothing() {
        let budget = Budget::new(None);
        let mut cache = KvCache::new(KvType::F32, &layers(), &budget).unwrap();
        let needed = cache.image_bytes(200);
        let budget = Budget::new(Some(needed - 1));
        cache = KvCache::new(KvType::F32, &layers(), &budget).unwrap();
        assert!(cache.loose_pages(200).is_err());
        assert_eq!((cache.usage().1, budget.used()), (0, 0));
        let mut loose = cache.loose_pages(120).unwrap();
        assert!(loose.read(&mut &some_bytes(100)[..]).is_err());
        drop(loose);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn copies_have_nothing_of_later_tokens() {
        for kv_type in [KvType::F32, KvType::Bf16, KvType::Int8] {
            let mut cache = KvCache::new(kv_type, &layers(), &Budget::new(None)).unwrap();
            let mut loose = cache.loose_pages(70).unwrap();
            loose.read(&mut some_bytes(cache.image_bytes(70)).as_slice()).unwrap();
            let tables = cache.adopt(loose);
            let pages = cache.image(&tables, 70).unwrap();
            let before = cache.page_bytes_of(pages[1]).unwrap().concat();
            let zeros = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == 0).count();
            let copy = |cache: &mut KvCache, slot| bytes_of(&cache.page_copy(pages[1], slot).unwrap());
            assert_eq!(copy(&mut cache, None), before);
            let cleared = copy(&mut cache, Some(6));
            assert!(zeros(&cleared) >= before.len() * 58 / 64 && cleared != vec![0; before.len()]);
            let same = cleared.iter().zip(&before).filter(|(a, b)| a == b).count();
            assert!(same >= before.len() * 6 / 64);
            assert_eq!(copy(&mut cache, Some(0)), vec![0; before.len()]);
        }
    }
}
