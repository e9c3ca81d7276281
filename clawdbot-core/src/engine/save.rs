//! What sequences are saved from and restored to.

use std::sync::Arc;

use clawdbot_kernels::attention::PAGE_TOKENS;

use super::Engine;
use super::entry::SequenceId;
use crate::cache::{KvCache, LoosePages, PageCopy, PageId};
use crate::error::{Error, ErrorKind, Result};
use crate::forward::adapter::Adapter;

/// What a sequence is, apart from its pages.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) tokens: Vec<u32>,
    /// Tokens that are in `pages`.
    pub(crate) computed: usize,
    /// The pages of its image (`cache/image.rs`), with their groups.
    pub(crate) pages: Vec<(usize, PageId)>,
    pub(crate) adapter: Option<Arc<Adapter>>,
    pub(crate) long: bool,
}

impl Engine {
    /// Opens a sequence that begins as the idle sequence `id` is. It loses its pages only when nobody else can spare any.
    ///
    /// # Errors
    /// As [`Engine::fork`].
    pub(crate) fn hold(&mut self, id: SequenceId) -> Result<SequenceId> {
        let held = self.fork(id)?;
        self.read_back(held).inspect_err(|_| self.close(held))?;
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
        let image = match sequence.computed {
            0 => None,
            computed => self.cache.image(&sequence.tables, computed),
        };
        Ok(Held {
            tokens: sequence.tokens.clone(),
            computed: if image.is_some() { sequence.computed } else { 0 },
            pages: image.unwrap_or_default(),
            adapter: sequence.adapter.clone(),
            long: sequence.long,
        })
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
    ) -> Result<Option<PageCopy>> {
        if self.idle(id)?.computed != computed {
            return Ok(None);
        }
        let clear_from = Some(computed % PAGE_TOKENS).filter(|slot| last && *slot > 0);
        self.cache.page_copy(page, clear_from).map(Some)
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
    pub(crate) fn loose_pages(&mut self, computed: usize) -> Result<LoosePages> {
        self.check_open()?;
        self.cache.loose_pages(computed)
    }

    /// Gives an idle sequence, which has nothing cached, what was restored of its tokens.
    ///
    /// # Errors
    /// As [`Engine::idle`].
    pub(crate) fn restore(
        &mut self,
        id: SequenceId,
        pages: Option<LoosePages>,
        adapter: Option<Arc<Adapter>>,
        long: bool,
    ) -> Result<()> {
        self.idle(id)?;
        let sequence = self.sequences.get_mut(&id).ok_or_else(super::gone)?;
        (sequence.adapter, sequence.long) = (adapter, long);
        if let Some(pages) = pages {
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
