//! Text that goes to C: with its length, and with a NUL after it.

use std::ffi::c_char;
use std::mem::MaybeUninit;

use crate::handle::quietly;

/// UTF-8 with a NUL after it.
pub(crate) struct Text(Box<[u8]>);

impl From<String> for Text {
    fn from(text: String) -> Self {
        let mut bytes = text.into_bytes();
        bytes.push(0);
        Text(bytes.into_boxed_slice())
    }
}

impl Text {
    /// Text for those who will read it up to the first NUL: NULs in it are replaced by their symbol.
    pub(crate) fn readable(text: &str) -> Self {
        Text::from(text.replace('\0', "\u{2400}"))
    }

    /// Start of the text; valid as long as this is neither moved from nor dropped.
    pub(crate) fn pointer(&self) -> *const c_char {
        self.0.as_ptr().cast()
    }

    /// Length in bytes, without the NUL.
    pub(crate) fn length(&self) -> usize {
        self.0.len() - 1
    }

    /// Start of the text, and its length to `length`, unless that is null.
    pub(crate) fn give(&self, length: Option<&mut MaybeUninit<usize>>) -> *const c_char {
        if let Some(length) = length {
            length.write(self.length());
        }
        self.pointer()
    }
}

/// An owned text: a rendered prompt, decoded tokens, JSON.
pub struct clawdbot_string(Text);

impl clawdbot_string {
    pub(crate) fn new(text: String) -> Self {
        clawdbot_string(Text::from(text))
    }
}

/// The text, in UTF-8, with a NUL after its last byte. Valid until the string is freed. NULL for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_string_data(string: Option<&clawdbot_string>) -> *const c_char {
    string.map_or(std::ptr::null(), |string| string.0.pointer())
}

/// Length of the text in bytes, without the NUL after it. 0 for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_string_length(string: Option<&clawdbot_string>) -> usize {
    string.map_or(0, |string| string.0.length())
}

/// Frees a string. NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_string_free(string: Option<Box<clawdbot_string>>) {
    quietly(|| drop(string));
}
