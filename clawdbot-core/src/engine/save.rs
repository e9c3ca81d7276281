//! What sequences are saved from and restored to.

use std::sync::Arc;

use clawdbot_kernels::attention::PAGE_TOKENS;

use super::Engine;
use super::entry::SequenceId;
use super::swapped::Swapped;
use crate::cache::{KvCache, Lent, PageId, StoredPage};
use crate::error::{Error, ErrorKind, Result};
use crate::forward::adapter::Adapter;
use crate::runtime::Extent;

/// What a sequence is, apart from its pages.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) tokens: Vec<u32>,
    /// Tokens that are in its image.
    pub(crate) computed: usize,
    pub(crate) image: Image,
    pub(crate) adapter: Option<Arc<Adapter>>,
    pub(crate) long: bool,
}

/// Where the image of a sequence is (`cache/image.rs`).
#[derive(Debug, Clone)]
pub(crate) enum Image {
    /// In pages of the cache, with their groups.
    Cached(Vec<(usize, PageId)>),
    /// In the swap space, where nobody can take it.
    Swapped(SwappedImage),
}

/// An image in the swap space.
#[derive(Debug, Clone)]
pub(crate) struct SwappedImage {
    pub(crate) extent: Arc<Extent>,
    /// What is in the extent.
    pub(crate) pages: Vec<StoredPage>,
}

impl Engine {
    /// Opens a sequence that begins as the idle sequence `id` is. It loses its pages only when nobody else can spare any, and
    /// leaves them in the swap space where it can.
    ///
    /// # Errors
    /// As [`Engine::fork`].
    pub(crate) fn hold(&mut self, id: SequenceId) -> Result<SequenceId> {
        let held = self.fork(id)?;
        self.idle(held)?.held = true;
        Ok(held)
    }

    /// What a sequence is now. Without pages if some of them are missing.
    ///
    /// # Errors
    /// As [`Engine::idle`].
    pub(crate) fn held(&mut self, id: SequenceId) -> Result<Held> {
        self.idle(id)?;
        let sequence = self.sequences.get(&id).ok_or_else(super::gone)?;
        let image = match (&sequence.swapped, sequence.computed) {
            (Some(swapped), _) => Some(Image::Swapped(self.swapped_image(swapped))),
            (None, 0) => None,
            (None, computed) => self.cache.image(&sequence.tables, computed).map(Image::Cached),
        };
        Ok(Held {
            tokens: sequence.tokens.clone(),
            computed: if image.is_some() { sequence.reach() } else { 0 },
            image: image.unwrap_or_else(|| Image::Cached(Vec::new())),
            adapter: sequence.adapter.clone(),
            long: sequence.long,
        })
    }

    fn swapped_image(&self, swapped: &Swapped) -> SwappedImage {
        let pages = self.cache.stored_pages(swapped.computed, swapped.valid);
        SwappedImage { extent: Arc::clone(&swapped.extent), pages }
    }

    /// Where a held sequence, which has lost its pages, has left them. `None` if it has not.
    ///
    /// # Errors
    /// As [`Engine::idle`].
    pub(crate) fn held_swapped(&mut self, id: SequenceId) -> Result<Option<SwappedImage>> {
        self.idle(id)?;
        let swapped = self.sequences.get(&id).and_then(|sequence| sequence.swapped.as_ref());
        Ok(swapped.map(|swapped| self.swapped_image(swapped)))
    }

    /// A page to read a page of a group into.
    ///
    /// # Errors
    /// `Closed`, `OutOfBudget`.
    pub(crate) fn blank_copy(&mut self, group: usize) -> Result<Lent> {
        self.check_open()?;
        let page = self.cache.blank_copy(group)?;
        Ok(self.cache.lend(page))
    }

    /// A copy of a page of a held sequence that had `computed` tokens in its pages. `None` if it has lost them.
    ///
    /// # Errors
    /// As [`Engine::idle`]; `OutOfBudget`.
    pub(crate) fn held_page(
        &mut self,
        id: SequenceId,
        computed: usize,
        page: (usize, PageId),
        last: bool,
    ) -> Result<Option<Lent>> {
        if self.idle(id)?.computed != computed {
            return Ok(None);
        }
        let clear_from = Some(computed % PAGE_TOKENS).filter(|slot| last && *slot > 0);
        let copy = self.cache.page_copy(page, clear_from)?;
        Ok(Some(self.cache.lend(copy)))
    }

    /// What is cached.
    pub(crate) fn cache(&self) -> &KvCache {
        &self.cache
    }

    /// Bytes of the image of `computed` tokens.
    pub(crate) fn image_bytes(&self, computed: usize) -> u64 {
        self.cache.image_bytes(computed)
    }

    /// Pages to be filled with the image of `computed` tokens.
    ///
    /// # Errors
    /// `Closed`; `OutOfBudget` if they do not fit; nothing is taken then.
    pub(crate) fn lend_pages(&mut self, computed: usize) -> Result<Lent> {
        self.check_open()?;
        let pages = self.cache.loose_pages(computed)?;
        Ok(self.cache.lend(pages))
    }

    /// Gives an idle sequence, which has nothing cached, what was restored of its tokens. If requests took the pages meanwhile, they are
    /// computed again.
    ///
    /// # Errors
    /// As [`Engine::idle`].
    pub(crate) fn restore(
        &mut self,
        id: SequenceId,
        pages: Option<Lent>,
        adapter: Option<Arc<Adapter>>,
        long: bool,
    ) -> Result<()> {
        self.idle(id)?;
        let sequence = self.sequences.get_mut(&id).ok_or_else(super::gone)?;
        (sequence.adapter, sequence.long) = (adapter, long);
        if let Some(pages) = pages.and_then(Lent::into_pages) {
            sequence.computed = pages.computed();
            sequence.tables = self.cache.adopt(pages);
            sequence.restored = true;
        }
        Ok(())
    }
}

/// The error for what was to be saved, and lost its pages meanwhile.
pub(crate) fn lost() -> Error {
    let message = "requests took the memory of the session while it was saved: try again";
    Error::new(ErrorKind::OutOfBudget, message)
}
