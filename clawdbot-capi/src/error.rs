//! Errors as owned objects.

use std::ffi::c_char;

use clawdbot_core::{Error, ErrorKind};

use crate::handle::quietly;
use crate::string::Text;

/// What went wrong: a stable number, its name, a message for people, detail for programs.
pub struct clawdbot_error {
    error: Error,
    message: Text,
    detail: Text,
}

impl clawdbot_error {
    pub(crate) fn new(error: Error) -> Self {
        let message = Text::readable(error.message());
        let detail = Text::from(serde_json::Value::Object(error.detail().clone()).to_string());
        clawdbot_error { error, message, detail }
    }

    #[cfg(test)]
    pub(crate) fn error(&self) -> &Error {
        &self.error
    }
}

/// The error's number, one of `CLAWDBOT_ERROR_*`; the same as the status of the call that failed. 0 for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_error_code(error: Option<&clawdbot_error>) -> i32 {
    error.map_or(0, |error| error.error.code())
}

/// The name of the error's kind, such as "InvalidArgument": a static string. NULL for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_error_kind(error: Option<&clawdbot_error>) -> *const c_char {
    error.map_or(std::ptr::null(), |error| clawdbot_error_kind_name(error.error.code()))
}

/// The message, one sentence in UTF-8, NUL-terminated. Valid until the error is freed. NULL for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_error_message(error: Option<&clawdbot_error>) -> *const c_char {
    error.map_or(std::ptr::null(), |error| error.message.pointer())
}

/// Structured detail, a JSON object such as {"option": "top_p", "expected": ...}, NUL-terminated. Valid until the error
/// is freed. NULL for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_error_detail_json(error: Option<&clawdbot_error>) -> *const c_char {
    error.map_or(std::ptr::null(), |error| error.detail.pointer())
}

/// The name of an error number, such as "InvalidArgument" for 1: a static string. NULL for a number that is not one.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_error_kind_name(code: i32) -> *const c_char {
    let kind = ErrorKind::ALL.iter().position(|kind| kind.code() == code);
    kind.map_or(std::ptr::null(), |index| NAMES[index].as_ptr().cast())
}

/// Frees an error. NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_error_free(error: Option<Box<clawdbot_error>>) {
    quietly(|| drop(error));
}

/// Room for a kind's name and a NUL; a longer name does not compile.
const NAME_BYTES: usize = 32;

/// The names of all kinds, NUL-terminated, in the order of [`ErrorKind::ALL`].
static NAMES: [[u8; NAME_BYTES]; ErrorKind::ALL.len()] = {
    let mut names = [[0; NAME_BYTES]; ErrorKind::ALL.len()];
    let mut kind = 0;
    while kind < names.len() {
        let name = ErrorKind::ALL[kind].name().as_bytes();
        assert!(name.len() < NAME_BYTES, "a kind's name is too long");
        let mut i = 0;
        while i < name.len() {
            names[kind][i] = name[i];
            i += 1;
        }
        kind += 1;
    }
    names
};
