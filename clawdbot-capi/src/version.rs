//! Versions of the library and of its binary interface.

use std::ffi::c_char;

use crate::abi::CLAWDBOT_ABI_VERSION;

/// Version of the library, such as "0.1.0": a static string. To compare with `CLAWDBOT_VERSION`, that of the header.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Version of the library's binary interface. A program whose `CLAWDBOT_ABI_VERSION` differs must not use it.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_abi_version() -> u32 {
    CLAWDBOT_ABI_VERSION
}
