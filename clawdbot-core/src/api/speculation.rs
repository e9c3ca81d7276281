//! Which models can guess tokens, and which other one can guess for them.

use super::loaded::{DraftLoaded, MtpParts};
use crate::cache::{KvCache, LayerState};
use crate::engine::DraftModel;
use crate::error::{Error, Result};
use crate::load::source::{Opened, Source};
use crate::options::{ModelOptions, Speculation};
use crate::spec::DecoderSpec;

const OPTION: &str = "draft_model";

/// What a loaded model is for.
pub(super) enum Role {
    /// Requests. Its tokens may be drafted by another one, and by a head of its own.
    Requests(Option<DraftLoaded>, Option<Box<MtpParts>>),
    /// Drafts.
    Drafts,
}

impl Role {
    /// What loading its drafters needs of the budget.
    pub(super) fn draft_bytes(&self) -> u64 {
        match self {
            Role::Requests(draft, mtp) => {
                let draft = draft.as_ref().map_or(0, |draft| draft.bytes);
                draft.saturating_add(mtp.as_ref().map_or(0, |mtp| mtp.bytes))
            }
            Role::Drafts => 0,
        }
    }
}

/// A draft model, opened and checked.
pub(super) struct Draft {
    pub(super) opened: Opened,
    pub(super) options: ModelOptions,
}

impl Draft {
    /// Opens the draft model of `target`, if it is to have one, and checks what `options` say about guessing tokens.
    ///
    /// # Errors
    /// As [`Opened::open`]; `InvalidArgument` for a model that generates nothing, and for a draft model that has other tokens or
    /// cannot draft.
    pub(super) fn open(target: &Opened, options: &ModelOptions) -> Result<Option<Self>> {
        check_guesses(&target.spec, options)?;
        let Some(path) = &options.draft_model else { return Ok(None) };
        let named = |error: Error| error.context(format_args!("option {OPTION}")).with("option", OPTION);
        let ModelOptions { kv, prefill_chunk, max_batch, mmap, verify, cache, .. } = options.clone();
        let own = ModelOptions::default().kv(kv).prefill_chunk(prefill_chunk).max_batch(max_batch);
        let own = own.mmap(mmap).verify(verify).cache(cache);
        let source = Source::Path(path.clone());
        let mut opened = Opened::open_with(&source, &own, &mut |_, _| true).map_err(named)?;
        let own = opened.resolve(&own).map_err(named)?;
        check(target, &opened)?;
        Ok(Some(Draft { opened, options: own }))
    }
}

/// Refuses to guess tokens of a model that generates none.
///
/// # Errors
/// `InvalidArgument`.
pub(super) fn check_guesses(spec: &DecoderSpec, options: &ModelOptions) -> Result<()> {
    let (option, found) = match (&options.draft_model, options.speculation) {
        (Some(path), _) => (OPTION, path.display().to_string()),
        (None, speculation) => ("speculation", speculation.name().to_owned()),
    };
    if spec.generates() || option != OPTION && options.speculation == Speculation::None {
        return Ok(());
    }
    let architecture = spec.architecture;
    let message = format!(
        "option {option}: expected none, as {architecture} has no output layer and generates nothing, found {found}"
    );
    Err(Error::invalid_argument(message).with("option", option).with("expected", "none").with("found", found))
}

/// Refuses a model that cannot draft for `target`.
fn check(target: &Opened, draft: &Opened) -> Result<()> {
    let refused = |expected: &str, found: &str| {
        let message = format!("option {OPTION}: expected {expected}, found {found} in {}", draft.name);
        let error = Error::invalid_argument(message).with("option", OPTION);
        Err(error.with("expected", expected).with("found", found))
    };
    if !draft.spec.generates() {
        return refused("a model that generates", draft.spec.architecture);
    }
    let recurrent = |state: &LayerState| matches!(state, LayerState::Recurrent { .. });
    if draft.spec.layer_states().iter().any(recurrent) {
        return refused("a model without recurrent layers", draft.spec.architecture);
    }
    let (Some(own), Some(other)) = (&target.text, &draft.text) else {
        let (expected, found) = (target.spec.vocab_size, draft.spec.vocab_size);
        return match expected == found {
            true => Ok(()),
            false => refused(&format!("a vocabulary of {expected}"), &format!("one of {found}")),
        };
    };
    // Paddings may differ.
    let (own, other) = (&own.tokenizer, &other.tokenizer);
    let most = own.id_limit().max(other.id_limit());
    match (0..most).find(|&id| own.id_to_token(id) != other.id_to_token(id)) {
        None => Ok(()),
        Some(id) => {
            let shown =
                |token: Option<String>| token.map_or_else(|| "none".to_owned(), |token| format!("{token:?}"));
            let (expected, found) = (shown(own.id_to_token(id)), shown(other.id_to_token(id)));
            refused(&format!("the same tokens: {expected} with id {id}"), &found)
        }
    }
}

/// What an engine keeps for a draft model.
///
/// # Errors
/// `OutOfBudget` for its buffers; as [`KvCache::new`].
pub(super) fn draft_engine(draft: &DraftLoaded) -> Result<DraftModel> {
    let loaded = &draft.loaded;
    let (states, budget) = (loaded.decoder.spec.layer_states(), loaded.runtime.budget());
    let scratch = budget.reserve(draft.scratch, "scratch of the draft model")?;
    Ok(DraftModel::new(KvCache::new(loaded.options.kv_type(), &states, budget)?, scratch))
}
