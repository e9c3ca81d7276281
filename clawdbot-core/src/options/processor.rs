//! A function of the host that may change logits.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::error::{Error, Result};

/// Changes the logits of a request's next token before it is sampled. Closures of the same form are processors.
///
/// It is called once for each token that is sampled, on a thread of the library, and other requests of the model wait for it.
/// What it does must depend on its arguments alone: with speculation, and where logits are computed again, the same place of the
/// output may be asked for more than once, and results are the same bits again only if it gives the same.
pub trait LogitsProcessor: Send + Sync {
    /// `prompt` and `output`: the tokens so far. `logits`: one for each token id of the model, with `logit_bias` and penalties, before
    /// masks and temperature. Minus infinity forbids a token.
    ///
    /// # Errors
    /// Any; it ends the request.
    fn process(&self, prompt: &[u32], output: &[u32], logits: &mut [f32]) -> Result<()>;
}

impl<F: Fn(&[u32], &[u32], &mut [f32]) -> Result<()> + Send + Sync> LogitsProcessor for F {
    fn process(&self, prompt: &[u32], output: &[u32], logits: &mut [f32]) -> Result<()> {
        self(prompt, output, logits)
    }
}

/// A [`LogitsProcessor`] that requests share.
#[derive(Clone)]
pub struct SharedProcessor(Arc<dyn LogitsProcessor>);

impl SharedProcessor {
    /// A processor for the option `logits_processor`.
    pub fn new(processor: impl LogitsProcessor + 'static) -> Self {
        SharedProcessor(Arc::new(processor))
    }

    /// Lets it change `logits`.
    ///
    /// # Errors
    /// Those of the processor; `InvalidArgument` if it panics, or leaves a logit that is NaN or plus infinity.
    pub(crate) fn process(&self, prompt: &[u32], output: &[u32], logits: &mut [f32]) -> Result<()> {
        let processed = catch_unwind(AssertUnwindSafe(|| self.0.process(prompt, output, logits)));
        processed.unwrap_or_else(|_| Err(Error::invalid_argument("logits_processor: it panicked")))?;
        match logits.iter().position(|logit| logit.is_nan() || *logit == f32::INFINITY) {
            None => Ok(()),
            Some(id) => {
                let found = logits.get(id).copied().unwrap_or_default();
                let message = format!(
                    "logits_processor: expected logits that are numbers or minus infinity, found {found} for token {id}"
                );
                Err(Error::invalid_argument(message).with("option", "logits_processor"))
            }
        }
    }
}

impl fmt::Debug for SharedProcessor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedProcessor")
    }
}

/// The same processor, not one that does the same.
impl PartialEq for SharedProcessor {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
