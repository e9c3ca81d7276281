//! Work on a large stack of its own. Parsers of dependencies recurse as deep as their input nests, the caller's thread
//! may have a small stack, and an overflow would end the process.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::{Error, ErrorKind, Result};

/// Bytes of address space of the stack; only pages that are touched take memory.
pub(crate) const STACK_SIZE: usize = 256 << 20;

thread_local! {
    /// Whether this thread has such a stack.
    static LARGE: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` on a thread with a stack of [`STACK_SIZE`] bytes (this thread, if it has one) and waits for it. Drop
/// large values of a dependency in `work` too: dropping recurses like parsing.
///
/// # Errors
/// Those of `work`; `panicked()` if it panics; `Io` if the thread, called `name`, cannot be started.
pub(crate) fn on_large_stack<T: Send>(
    name: &str,
    panicked: impl FnOnce() -> Error,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    if LARGE.get() {
        return catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(panicked()));
    }
    let work = || {
        LARGE.set(true);
        work()
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(name.to_owned()).stack_size(STACK_SIZE);
        let thread = thread.spawn_scoped(scope, work).map_err(|error| {
            Error::new(
                ErrorKind::Io,
                format!("cannot start the thread {name:?} with a stack of {STACK_SIZE} bytes: {error}"),
            )
        })?;
        thread.join().unwrap_or_else(|_| Err(panicked()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deep_recursion_fits_a_small_thread() {
        fn depth(levels: usize) -> usize {
            let block = std::hint::black_box([levels; 64]);
            if levels == 0 { 0 } else { 1 + depth(block[0] - 1) }
        }
        let small = std::thread::Builder::new()
            .stack_size(128 << 10)
            .spawn(|| on_large_stack("deep", || Error::internal("panicked"), || Ok(depth(50_000))));
        let found = small.expect("a thread").join().expect("no panic");
        assert_eq!(found.expect("no error"), 50_000);
    }

    #[test]
    fn nested_calls_share_a_stack() {
        let panicked = || Error::internal("panicked");
        let here = || std::thread::current().id();
        let (outer, inner) = on_large_stack("outer", panicked, || {
            Ok((here(), on_large_stack("inner", panicked, || Ok(here()))?))
        })
        .expect("no error");
        assert_eq!(outer, inner);
        assert_ne!(outer, here());
    }

    #[test]
    fn errors_are_returned() {
        let failed: Result<()> = on_large_stack(
            "fails",
            || Error::internal("panicked"),
            || Err(Error::new(ErrorKind::InvalidTemplate, "expected this")),
        );
        assert_eq!(failed.map_err(|error| error.kind()), Err(ErrorKind::InvalidTemplate));
    }
}
