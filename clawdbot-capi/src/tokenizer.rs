//! Tokenizers: text to token ids and back.

use std::ffi::c_char;
use std::mem::MaybeUninit;

use clawdbot_core::Tokenizer;
use clawdbot_core::constraint::LazyVocabulary;

use crate::error::clawdbot_error;
use crate::guard::guard;
use crate::handle::{array, copy_out, give, quietly, required};
use crate::model::clawdbot_model;
use crate::string::clawdbot_string;

/// A tokenizer.
pub struct clawdbot_tokenizer(pub(crate) LazyVocabulary);

impl clawdbot_tokenizer {
    fn new(tokenizer: Tokenizer) -> Self {
        clawdbot_tokenizer(LazyVocabulary::new(tokenizer))
    }

    fn core(&self) -> &Tokenizer {
        self.0.tokenizer()
    }
}

/// Opens a `tokenizer.json`, or the vocabulary in a GGUF file.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_tokenizer_from_file(
    path: *const c_char,
    out: Option<&mut MaybeUninit<*mut clawdbot_tokenizer>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        let out = required(out, "out")?;
        // SAFETY: by the header, `path` is NULL or ends with a NUL.
        let path = unsafe { crate::handle::path(path, "path") }?;
        give(out, clawdbot_tokenizer::new(Tokenizer::from_file(path)?));
        Ok(())
    })
}

/// The tokenizer of a model, which it outlives.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_model_tokenizer(
    model: Option<&clawdbot_model>,
    out: Option<&mut MaybeUninit<*mut clawdbot_tokenizer>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        let (model, out) = (required(model, "model")?, required(out, "out")?);
        give(out, clawdbot_tokenizer::new(model.0.tokenizer()?));
        Ok(())
    })
}

/// Token ids of a text: copied to `ids`, which has room for `capacity`, and their number to `count`. `ids` may be NULL
/// to learn the number, `count` may be NULL. `add_special_tokens`: not 0 for special tokens such as BOS.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_tokenizer_encode(
    tokenizer: Option<&clawdbot_tokenizer>,
    text: *const c_char,
    length: usize,
    add_special_tokens: i32,
    ids: *mut u32,
    capacity: usize,
    count: Option<&mut MaybeUninit<usize>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        let tokenizer = required(tokenizer, "tokenizer")?;
        // SAFETY: by the header, `text` is NULL or readable for `length` bytes, or up to a NUL.
        let text = unsafe { crate::handle::text(text, length, "text") }?;
        let tokens = tokenizer.core().encode(text, (add_special_tokens != 0).into())?;
        // SAFETY: by the header, `ids` is NULL or writable for `capacity` items.
        unsafe { copy_out(&tokens, ids, capacity, count, "ids") }
    })
}

/// The text of token ids. `skip_special_tokens`: not 0 to leave special tokens out.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_tokenizer_decode(
    tokenizer: Option<&clawdbot_tokenizer>,
    ids: *const u32,
    count: usize,
    skip_special_tokens: i32,
    out: Option<&mut MaybeUninit<*mut clawdbot_string>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        let (tokenizer, out) = (required(tokenizer, "tokenizer")?, required(out, "out")?);
        // SAFETY: by the header, `ids` is NULL or readable for `count` items.
        let ids = unsafe { array(ids, count, "ids") }?;
        give(out, clawdbot_string::new(tokenizer.core().decode(ids, (skip_special_tokens != 0).into())?));
        Ok(())
    })
}

/// Number of tokens, added tokens included. 0 for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_tokenizer_vocab_size(tokenizer: Option<&clawdbot_tokenizer>) -> usize {
    tokenizer.map_or(0, |tokenizer| tokenizer.core().vocab_size())
}

/// Frees a tokenizer. NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_tokenizer_free(tokenizer: Option<Box<clawdbot_tokenizer>>) {
    quietly(|| drop(tokenizer));
}
