//! Many texts in one call.

use std::ffi::c_char;
use std::mem::MaybeUninit;
use std::ops::ControlFlow;
use std::ptr::{NonNull, null_mut};

use clawdbot_core::{Faults, Item, Request, Result};

use crate::cancel::{self, clawdbot_cancel_handle};
use crate::completion::clawdbot_completion;
use crate::error::clawdbot_error;
use crate::guard::guard;
use crate::handle::{CLAWDBOT_NUL_TERMINATED, array, copy_out, owned, required, text};
use crate::model::clawdbot_model;
use crate::options::{clawdbot_options, generation};

/// Generates from `count` texts, computed together, with the same options.
///
/// `lengths` may be NULL if all texts are NUL-terminated. `completions` and `errors` have room for `count` handles each.
/// With status 0 every text has given either a completion or an error, to be freed, and NULL stands in the other array. A
/// text that is not UTF-8, or is too long, fails alone: the message of its error begins with `prompt[INDEX]: `, and the detail
/// has the index as `prompt`. A wrong argument, such as an option, fails the whole call.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_model_generate_batch(
    model: Option<&clawdbot_model>,
    texts: *const *const c_char,
    lengths: *const usize,
    count: usize,
    options: Option<&clawdbot_options>,
    completions: *mut *mut clawdbot_completion,
    errors: *mut *mut clawdbot_error,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        let options = generation(options)?;
        // SAFETY: by the header, `texts` and `lengths` are NULL or readable for `count` items, and so is each
        // text for its length.
        let texts = unsafe { all_texts(texts, lengths, count, "texts", Item::Prompt) }?.into_iter();
        let requests = texts.map(|text| Ok(Request::new(text?, options.clone())));
        // SAFETY: by the header, `completions` and `errors` are NULL or writable for one pointer per request.
        unsafe { batch(model, requests, None, completions, errors) }
    })
}

/// As `clawdbot_model_generate_batch`, with options for each text: `options` points to `count` pointers. Each may
/// be NULL, and may be the same as others. Options that are wrong fail their text alone. `cancel` may be NULL; what it stops ends
/// with `CLAWDBOT_FINISH_CANCELLED`, what had not begun with `CLAWDBOT_ERROR_CANCELLED`.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_model_generate_batch_with(
    model: Option<&clawdbot_model>,
    texts: *const *const c_char,
    lengths: *const usize,
    options: *const *const clawdbot_options,
    count: usize,
    cancel: Option<&clawdbot_cancel_handle>,
    completions: *mut *mut clawdbot_completion,
    errors: *mut *mut clawdbot_error,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        // SAFETY: by the header, `texts` and `lengths` are NULL or readable for `count` items, and so is each
        // text for its length.
        let texts = unsafe { all_texts(texts, lengths, count, "texts", Item::Prompt) }?;
        // SAFETY: by the header, `options` is NULL or readable for `count` items.
        let options = unsafe { array(options, count, "options") }?;
        let requests = texts.into_iter().zip(options).enumerate().map(|(index, (text, options))| {
            // SAFETY: by the header, each of `options` is NULL or a handle that is not yet freed.
            let options = generation(unsafe { options.as_ref() });
            Ok(Request::new(text?, options.map_err(|error| error.of_item(Item::Prompt(index)))?))
        });
        // SAFETY: by the header, `completions` and `errors` are NULL or writable for one pointer per request.
        unsafe { batch(model, requests, cancel, completions, errors) }
    })
}

/// The texts of an argument; a wrong text is an error of its own. `name`: the argument; `item`: the name of a text in errors.
///
/// # Safety
/// As `handle::array` for both arrays, unless `lengths` is null; as `handle::text` for each text.
pub(crate) unsafe fn all_texts<'a>(
    texts: *const *const c_char,
    lengths: *const usize,
    count: usize,
    name: &str,
    item: fn(usize) -> Item,
) -> Result<Vec<Result<&'a str>>> {
    // SAFETY: by the clause above, `texts` is NULL or readable for `count` items.
    let texts = unsafe { array(texts, count, name) }?;
    let lengths = match lengths.is_null() {
        true => None,
        // SAFETY: not NULL, and by the clause above readable for `count` items.
        false => Some(unsafe { array(lengths, count, "lengths") }?),
    };
    let length = |i: usize| lengths.map_or(CLAWDBOT_NUL_TERMINATED, |lengths| lengths[i]);
    let one = |(i, &one): (usize, &*const c_char)| {
        let item = item(i);
        // SAFETY: by the clause above, each text is NULL or readable for its length, or up to a NUL without lengths.
        unsafe { text(one, length(i), &item.to_string()) }.map_err(|error| error.with(item.key(), i))
    };
    Ok(texts.iter().enumerate().map(one).collect())
}

/// Generates for all requests, and gives each a completion or an error.
///
/// # Safety
/// Both arrays are null or writable for as many pointers as there are requests.
unsafe fn batch(
    model: Option<&clawdbot_model>,
    requests: impl ExactSizeIterator<Item = Result<Request>>,
    cancel: Option<&clawdbot_cancel_handle>,
    completions: *mut *mut clawdbot_completion,
    errors: *mut *mut clawdbot_error,
) -> Result<()> {
    let model = required(model, "model")?;
    required(NonNull::new(completions), "completions")?;
    required(NonNull::new(errors), "errors")?;
    let count = requests.len();
    let results = model.0.generate_each(requests, &cancel::handle(cancel), |_| ControlFlow::Continue(()));
    let (done, failed): (Vec<_>, Vec<_>) = results
        .into_iter()
        .map(|result| match result {
            Ok(completion) => (owned(clawdbot_completion::new(completion)), null_mut()),
            Err(error) => (null_mut(), owned(clawdbot_error::new(error))),
        })
        .unzip();
    // SAFETY: by the clause above, `completions` is writable for `count` pointers.
    unsafe { copy_out(&done, completions, count, None, "completions") }?;
    // SAFETY: by the clause above, `errors` is writable for `count` pointers.
    unsafe { copy_out(&failed, errors, count, None, "errors") }
}

/// Gives an error, or NULL, for each of `count` texts.
///
/// # Safety
/// `out` is writable for `count` pointers.
pub(crate) unsafe fn give_errors(faults: Faults, count: usize, out: *mut *mut clawdbot_error) -> Result<()> {
    let handle =
        |result: Result<()>| result.err().map_or(null_mut(), |error| owned(clawdbot_error::new(error)));
    let all: Vec<_> = faults.into_results(count, |_| Ok(())).into_iter().map(handle).collect();
    // SAFETY: by the clause above, `out` is NULL or writable for `count` items.
    unsafe { copy_out(&all, out, count, None, "errors") }
}
