//! The adapters that a model has loaded, by name.

use std::path::Path;
use std::sync::{Arc, PoisonError};

use super::loaded::{Adapters, Loaded};
use super::model::Model;
use crate::error::{Error, Result};
use crate::forward::adapter::Adapter;
use crate::load::adapter;

impl Loaded {
    /// The adapter of that name; none for none.
    ///
    /// # Errors
    /// `InvalidArgument` if it is not loaded.
    pub(crate) fn adapter(&self, name: Option<&str>) -> Result<Option<Arc<Adapter>>> {
        let Some(name) = name else { return Ok(None) };
        let adapters = self.adapters.read().unwrap_or_else(PoisonError::into_inner);
        match adapters.get(name) {
            Some(adapter) => Ok(Some(Arc::clone(adapter))),
            None => Err(no_adapter(name, &adapters)),
        }
    }
}

impl Model {
    /// Loads the LoRA adapter in `dir`, as PEFT writes it, for requests that name it (`GenerateOptions::adapter`). It is
    /// applied next to the weights, which stay as they are; requests with different adapters, and without, are computed
    /// together. Its memory counts in the runtime's budget.
    ///
    /// # Errors
    /// `InvalidArgument` for a name that is empty or taken; `NotFound`, `Io`, `InvalidModel`, `UnsupportedModel` for what
    /// is wrong with the files; `OutOfBudget`, `Closed`, `ForkedRuntime`.
    pub fn load_adapter(&self, name: &str, dir: impl AsRef<Path>) -> Result<()> {
        let loaded = self.loaded()?;
        loaded.runtime.pool().check_fork()?;
        let refused = |message: String| Err(Error::invalid_argument(message).with("found", name));
        let taken = |adapters: &Adapters| match (name.is_empty(), adapters.contains_key(name)) {
            (true, _) => refused("adapter: expected a name, found an empty text".to_owned()),
            (_, true) => {
                refused(format!("adapter: the model has an adapter {name:?} already; unload it first"))
            }
            _ => Ok(()),
        };
        taken(&loaded.adapters.read().unwrap_or_else(PoisonError::into_inner))?;
        loop {
            let rows = loaded.bounds.rows();
            let adapter = adapter::load(&loaded.runtime, dir.as_ref(), &loaded.decoder.spec, rows)?;
            let mut adapters = loaded.adapters.write().unwrap_or_else(PoisonError::into_inner);
            // Another thread may have been faster.
            taken(&adapters)?;
            // Passes may have become larger meanwhile.
            if adapter.rows >= loaded.bounds.rows() {
                adapters.insert(name.to_owned(), Arc::new(adapter));
                return Ok(());
            }
        }
    }

    /// Unloads an adapter. Requests that run keep using it; its memory is freed with the last session that used it.
    ///
    /// # Errors
    /// `InvalidArgument` if it is not loaded; `Closed`.
    pub fn unload_adapter(&self, name: &str) -> Result<()> {
        let loaded = self.loaded()?;
        let mut adapters = loaded.adapters.write().unwrap_or_else(PoisonError::into_inner);
        match adapters.remove(name) {
            Some(_) => Ok(()),
            None => Err(no_adapter(name, &adapters)),
        }
    }

    /// The names of the loaded adapters, sorted.
    ///
    /// # Errors
    /// `Closed`.
    pub fn adapters(&self) -> Result<Vec<String>> {
        let loaded = self.loaded()?;
        let adapters = loaded.adapters.read().unwrap_or_else(PoisonError::into_inner);
        Ok(adapters.keys().cloned().collect())
    }
}

fn no_adapter(name: &str, adapters: &Adapters) -> Error {
    let loaded: Vec<&str> = adapters.keys().map(String::as_str).collect();
    let loaded = if loaded.is_empty() { "none".to_owned() } else { loaded.join(", ") };
    let message = format!("option adapter: expected the name of a loaded adapter ({loaded}), found {name:?}");
    Error::invalid_argument(message).with("option", "adapter").with("found", name)
}
