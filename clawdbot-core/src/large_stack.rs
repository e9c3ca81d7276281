//! Work on a stack of its own. Parsers of the dependencies recurse as deep as their input nests, and the caller's
//! thread may have a small stack: what overflows one ends the process.

use crate::error::{Error, ErrorKind, Result};

/// Bytes of address space of the stack; only what is used takes memory.
pub(crate) const STACK_SIZE: usize = 256 << 20;

/// Runs `work` on a thread with a stack of [`STACK_SIZE`], and waits for it. Drop large results of a dependency in
/// there too: dropping recurses as parsing does.
///
/// # Errors
/// Those of `work`; `panicked()` when it panics; `Io` when the thread, which has the name `name`, cannot be started.
pub(crate) fn on_large_stack<T: Send>(
    name: &str,
    panicked: impl FnOnce() -> Error,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
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
    fn errors_come_back() {
        let failed: Result<()> = on_large_stack(
            "fails",
            || Error::internal("panicked"),
            || Err(Error::new(ErrorKind::InvalidTemplate, "expected this")),
        );
        assert_eq!(failed.map_err(|error| error.kind()), Err(ErrorKind::InvalidTemplate));
    }
}
