//! Options by name, checked by the core where they are used.

use std::ffi::c_char;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use clawdbot_core::{Error, ErrorKind, GenerateOptions, Result, SharedProcessor};
use serde_json::{Map, Value};

use crate::error::clawdbot_error;
use crate::guard::guard;
use crate::handle::{CLAWDBOT_NUL_TERMINATED, give, handle, invalid, quietly, required, text};

/// Options by name. The functions that take some list them.
pub struct clawdbot_options(Mutex<Options>);

/// Values by name, and a function, which is no value.
#[derive(Default)]
struct Options {
    values: Map<String, Value>,
    processor: Option<SharedProcessor>,
}

impl clawdbot_options {
    fn new(values: Map<String, Value>) -> Self {
        clawdbot_options(Mutex::new(Options { values, processor: None }))
    }

    fn lock(&self) -> MutexGuard<'_, Options> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the function that changes logits.
    pub(crate) fn set_processor(&self, processor: Option<SharedProcessor>) {
        // The old one is dropped without the lock: that may call the program.
        let old = std::mem::replace(&mut self.lock().processor, processor);
        drop(old);
    }
}

/// Options of a generation.
///
/// # Errors
/// As [`GenerateOptions::from_json`].
pub(crate) fn generation(options: Option<&clawdbot_options>) -> Result<GenerateOptions> {
    generation_of(options, GenerateOptions::from_json)
}

/// As [`generation`], with what `from_json` makes of the values.
///
/// # Errors
/// Those of `from_json`.
pub(crate) fn generation_of(
    options: Option<&clawdbot_options>,
    from_json: impl FnOnce(&Map<String, Value>) -> Result<GenerateOptions>,
) -> Result<GenerateOptions> {
    let Some(options) = options else { return Ok(GenerateOptions::default()) };
    let options = options.lock();
    Ok(from_json(&options.values)?.logits_processor(options.processor.clone()))
}

/// What NULL stands for is `T`'s default; otherwise what `from_json` of the core makes of the options.
pub(crate) fn read<T: Default>(
    options: Option<&clawdbot_options>,
    from_json: impl FnOnce(&Map<String, Value>) -> Result<T>,
) -> Result<T> {
    match options {
        None => Ok(T::default()),
        Some(options) => {
            let options = options.lock();
            match options.processor {
                None => from_json(&options.values),
                Some(_) => Err(Error::new(
                    ErrorKind::UnknownOption,
                    "options: expected those of this call, found a logits processor, which is for generating",
                )),
            }
        }
    }
}

/// A JSON argument.
///
/// # Safety
/// `pointer` is null or NUL-terminated.
pub(crate) unsafe fn json(pointer: *const c_char, name: &str) -> Result<Value> {
    // SAFETY: by the clause above, `pointer` is NULL or ends with a NUL.
    let text = unsafe { text(pointer, CLAWDBOT_NUL_TERMINATED, name) }?;
    serde_json::from_str(text)
        .map_err(|error| invalid(format!("{name}: expected JSON: {error}")).with("argument", name))
}

/// A JSON argument that is an object.
///
/// # Safety
/// `pointer` is null or NUL-terminated.
pub(crate) unsafe fn json_object(pointer: *const c_char, name: &str) -> Result<Map<String, Value>> {
    // SAFETY: by the clause above, `pointer` is NULL or ends with a NUL.
    match unsafe { json(pointer, name) }? {
        Value::Object(map) => Ok(map),
        _ => Err(invalid(format!("{name}: expected a JSON object")).with("argument", name)),
    }
}

/// Sets an option to what `value` gives.
///
/// # Safety
/// `options` is null or live; `name` is null or NUL-terminated.
unsafe fn set(
    options: Option<NonNull<clawdbot_options>>,
    name: *const c_char,
    value: impl FnOnce() -> Result<Value>,
) -> Result<()> {
    // SAFETY: by the clause above, `options` is NULL or a handle that is not yet freed.
    let options = unsafe { handle(options, "options") }?;
    // SAFETY: by the clause above, `name` is NULL or ends with a NUL.
    let name = unsafe { text(name, CLAWDBOT_NUL_TERMINATED, "name") }?;
    let value = value()?;
    options.lock().values.insert(name.to_owned(), value);
    Ok(())
}

/// New options, all at their defaults.
///
/// Names and values are checked where the options are used: a name that does not exist there is
/// `CLAWDBOT_ERROR_UNKNOWN_OPTION`, a value of the wrong type or out of range is `CLAWDBOT_ERROR_INVALID_ARGUMENT`.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_options_new(
    out: Option<&mut MaybeUninit<*mut clawdbot_options>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        give(required(out, "out")?, clawdbot_options::new(Map::new()));
        Ok(())
    })
}

/// New options from a JSON object, such as {"max_tokens": 20, "stop": ["\n"]}.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_options_from_json(
    json: *const c_char,
    out: Option<&mut MaybeUninit<*mut clawdbot_options>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        let out = required(out, "out")?;
        // SAFETY: by the header, `json` is NULL or ends with a NUL.
        let map = unsafe { json_object(json, "json") }?;
        give(out, clawdbot_options::new(map));
        Ok(())
    })
}

/// Sets the option `name` to an integer.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_options_set_int(
    options: Option<NonNull<clawdbot_options>>,
    name: *const c_char,
    value: i64,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    // SAFETY: by the header, `options` is NULL or a handle that is not yet freed, and `name` is NULL or ends
    // with a NUL.
    guard(error, || unsafe { set(options, name, || Ok(Value::from(value))) })
}

/// Sets the option `name` to a number, which must be finite.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_options_set_number(
    options: Option<NonNull<clawdbot_options>>,
    name: *const c_char,
    value: f64,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    let finite = || match serde_json::Number::from_f64(value) {
        Some(number) => Ok(Value::Number(number)),
        None => {
            let error = invalid(format!("value: expected a finite number, found {value}"));
            let found = value.to_string();
            Err(error.with("argument", "value").with("expected", "a finite number").with("found", found))
        }
    };
    // SAFETY: by the header, `options` is NULL or a handle that is not yet freed, and `name` is NULL or ends
    // with a NUL.
    guard(error, || unsafe { set(options, name, finite) })
}

/// Sets the option `name` to true (any `value` but 0) or false.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_options_set_bool(
    options: Option<NonNull<clawdbot_options>>,
    name: *const c_char,
    value: i32,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    // SAFETY: by the header, `options` is NULL or a handle that is not yet freed, and `name` is NULL or ends
    // with a NUL.
    guard(error, || unsafe { set(options, name, || Ok(Value::from(value != 0))) })
}

/// Sets the option `name` to a text.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_options_set_string(
    options: Option<NonNull<clawdbot_options>>,
    name: *const c_char,
    value: *const c_char,
    length: usize,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    // SAFETY: by the header, `value` is NULL or readable for `length` bytes, or up to a NUL.
    let value = || -> Result<Value> { Ok(Value::from(unsafe { text(value, length, "value") }?)) };
    // SAFETY: by the header, `options` is NULL or a handle that is not yet freed, and `name` is NULL or ends
    // with a NUL.
    guard(error, || unsafe { set(options, name, value) })
}

/// Sets the option `name` to a JSON value: for lists, objects and null.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_options_set_json(
    options: Option<NonNull<clawdbot_options>>,
    name: *const c_char,
    value: *const c_char,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    // SAFETY: by the header, `value` is NULL or ends with a NUL.
    let value = || unsafe { json(value, "value") };
    // SAFETY: by the header, `options` is NULL or a handle that is not yet freed, and `name` is NULL or ends
    // with a NUL.
    guard(error, || unsafe { set(options, name, value) })
}

/// Frees options. NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_options_free(options: Option<Box<clawdbot_options>>) {
    quietly(|| drop(options));
}
