//! The panic guard around every entry point.

use std::any::Any;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};

use clawdbot_core::{Error, Result};

use crate::error::clawdbot_error;
use crate::handle::{give, internal};

#[cfg(not(test))]
static QUIET: std::sync::Once = std::sync::Once::new();

/// Runs the body of an entry point; an error goes to `error` if it is wanted, a panic becomes `Internal`.
pub(crate) fn guard(
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
    body: impl FnOnce() -> Result<()>,
) -> i32 {
    // This library has a copy of Rust's standard library to itself, so the panic hook is its own; it must not print.
    #[cfg(not(test))]
    QUIET.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    let result = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| Err(from_panic(&*panic)));
    let Err(failure) = result else { return 0 };
    let code = failure.code();
    if let Some(out) = error {
        give(out, clawdbot_error::new(failure));
    }
    code
}

fn from_panic(panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("unknown");
    internal(format!("a panic, which is a bug in clawdbot: {text}"))
}

#[cfg(test)]
mod tests {
    use clawdbot_core::ErrorKind;

    use super::*;

    #[test]
    fn a_panic_becomes_internal() {
        let mut out = MaybeUninit::new(std::ptr::null_mut());
        let code = guard(Some(&mut out), || -> Result<()> {
            // `resume_unwind` does not call the panic hook, which would print.
            std::panic::resume_unwind(Box::new("seven".to_owned()))
        });
        assert_eq!(code, ErrorKind::Internal.code());
        // SAFETY: initialised above.
        let error = unsafe { out.assume_init() };
        // SAFETY: `guard` failed, so it wrote a pointer from `owned`, which nothing else frees.
        let error = unsafe { Box::from_raw(error) };
        assert!(error.error().message().contains("seven"));
    }
}
