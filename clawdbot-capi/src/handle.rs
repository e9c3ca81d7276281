//! The boundary: null checks, text and arrays from pointers, results into out-parameters, ownership.

use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, TryLockError};

use clawdbot_core::{Error, ErrorKind, Result};

/// Given as the length of a text: the text ends at its first NUL character. `SIZE_MAX` in the header.
pub(crate) const CLAWDBOT_NUL_TERMINATED: usize = usize::MAX;

/// An `InvalidArgument`.
pub(crate) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}

/// An `Internal`.
pub(crate) fn internal(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Internal, message)
}

fn null(name: &str) -> Error {
    Error::new(ErrorKind::NullPointer, format!("{name} is NULL")).with("argument", name)
}

/// A required pointer: a handle or an out-parameter.
pub(crate) fn required<T>(pointer: Option<T>, name: &str) -> Result<T> {
    pointer.ok_or_else(|| null(name))
}

/// A required handle that the header shows without `const`, because calling changes what it stands for. It is borrowed
/// shared all the same: a lock guards the changes.
///
/// # Safety
/// `handle` is null, or was made by [`owned`] and is not freed during `'a`.
pub(crate) unsafe fn handle<'a, T>(handle: Option<NonNull<T>>, name: &str) -> Result<&'a T> {
    // SAFETY: not null, and by the clause above a live handle; no one makes exclusive references to handles.
    handle.map(|handle| unsafe { handle.as_ref() }).ok_or_else(|| null(name))
}

/// `value` as a handle that the caller owns, and gives back to be freed.
pub(crate) fn owned<T>(value: T) -> *mut T {
    Box::into_raw(Box::new(value))
}

/// Hands `value` to the caller as an owned handle.
pub(crate) fn give<T>(out: &mut MaybeUninit<*mut T>, value: T) {
    out.write(owned(value));
}

/// Runs something that has no way to report a failure, such as freeing a handle.
pub(crate) fn quietly(body: impl FnOnce()) {
    // What a destructor that panics has not freed is leaked: nothing else can be done.
    let _ = catch_unwind(AssertUnwindSafe(body));
}

/// The lock of a handle that one thread at a time may use. Two at once, or a callback that calls back, is an error.
pub(crate) fn exclusive<'a, T>(lock: &'a Mutex<T>, name: &str) -> Result<MutexGuard<'a, T>> {
    lock.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => invalid(format!(
            "the {name} is in use by another thread, or by the call that this callback is part of"
        )),
        TryLockError::Poisoned(_) => {
            internal(format!("an earlier panic left the {name} in an unknown state"))
        }
    })
}

/// The bytes of a text.
///
/// # Safety
/// `text` is null, or readable for `length` bytes, or up to a NUL character if `length` is [`CLAWDBOT_NUL_TERMINATED`];
/// and stays so for `'a`.
unsafe fn bytes<'a>(text: *const c_char, length: usize, name: &str) -> Result<&'a [u8]> {
    if length != CLAWDBOT_NUL_TERMINATED {
        // SAFETY: by the clause above, `text` is null or readable for `length` bytes, because that is not the marker.
        return unsafe { array(text.cast::<u8>(), length, name) };
    }
    if text.is_null() {
        return Err(null(name));
    }
    // SAFETY: not null, and by the clause above NUL-terminated, because `length` is the marker.
    Ok(unsafe { CStr::from_ptr(text) }.to_bytes())
}

/// A text argument. Null is the empty text if `length` is 0.
///
/// # Safety
/// `text` is null, or readable for `length` bytes, or up to a NUL character if `length` is [`CLAWDBOT_NUL_TERMINATED`];
/// and stays so for `'a`.
pub(crate) unsafe fn text<'a>(text: *const c_char, length: usize, name: &str) -> Result<&'a str> {
    // SAFETY: the clause above is that of `bytes`.
    let bytes = unsafe { bytes(text, length, name) }?;
    std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        let message = format!("{name}: expected UTF-8, found the byte 0x{:02x} at {at}", bytes[at]);
        Error::new(ErrorKind::InvalidUtf8, message).with("argument", name).with("position", at)
    })
}

/// A file name, which is bytes on Unix and UTF-8 elsewhere.
///
/// # Safety
/// `path` is null, or NUL-terminated and stays so for `'a`.
pub(crate) unsafe fn path<'a>(path: *const c_char, name: &str) -> Result<&'a Path> {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        // SAFETY: by the clause above, `path` is null or NUL-terminated, which is what the marker stands for.
        let bytes = unsafe { bytes(path, CLAWDBOT_NUL_TERMINATED, name) }?;
        Ok(Path::new(std::ffi::OsStr::from_bytes(bytes)))
    }
    #[cfg(not(unix))]
    // SAFETY: by the clause above, `path` is null or NUL-terminated, which is what the marker stands for.
    unsafe {
        text(path, CLAWDBOT_NUL_TERMINATED, name).map(Path::new)
    }
}

/// An array argument. Null is the empty array if `count` is 0.
///
/// # Safety
/// `items` is null or readable for `count` items, and stays so for `'a`.
pub(crate) unsafe fn array<'a, T>(items: *const T, count: usize, name: &str) -> Result<&'a [T]> {
    if items.is_null() {
        return if count == 0 { Ok(&[]) } else { Err(null(name)) };
    }
    if !items.is_aligned() {
        return Err(invalid(format!("{name}: expected a pointer aligned to {} bytes", align_of::<T>())));
    }
    if count.checked_mul(size_of::<T>()).is_none_or(|size| isize::try_from(size).is_err()) {
        return Err(invalid(format!("{name}: expected a count that fits into memory, found {count}")));
    }
    // SAFETY: not null, aligned and no larger than an object can be, as checked; readable by the clause above.
    Ok(unsafe { std::slice::from_raw_parts(items, count) })
}

/// Whether a buffer for `needed` items was given; null asks for the number alone.
pub(crate) fn has_room<T>(out: *mut T, capacity: usize, needed: usize, name: &str) -> Result<bool> {
    if out.is_null() {
        return Ok(false);
    }
    if capacity < needed {
        let message = format!("{name}: expected room for {needed} items, found {capacity}");
        return Err(invalid(message).with("argument", name).with("expected", needed).with("found", capacity));
    }
    Ok(true)
}

/// Copies an array result: to `out`, unless it is null, and its length to `count`, unless that is null.
///
/// # Safety
/// `out` is null or writable for `capacity` items.
pub(crate) unsafe fn copy_out<T: Copy>(
    items: &[T],
    out: *mut T,
    capacity: usize,
    count: Option<&mut MaybeUninit<usize>>,
    name: &str,
) -> Result<()> {
    if has_room(out, capacity, items.len(), name)? {
        // SAFETY: `has_room` proved `items.len() <= capacity`, for which `out` is writable by the clause above;
        // `items` is Rust's own memory, so the ranges do not overlap. Bytes, so alignment does not matter.
        unsafe { items.as_ptr().cast::<u8>().copy_to_nonoverlapping(out.cast(), size_of_val(items)) };
    }
    if let Some(count) = count {
        count.write(items.len());
    }
    Ok(())
}

/// A struct whose first field is its size in bytes, so that fields can be added at its end.
///
/// # Safety
/// The type is `repr(C)` and starts with a `usize`.
pub(crate) unsafe trait Versioned: Copy {
    /// Size of the first version of the struct.
    const FIRST: usize;
}

/// Writes as much of `value` as the caller's version of the struct has, its size field excepted.
///
/// # Safety
/// `out` is null, or its first field is readable and it is writable for as many bytes as that says.
pub(crate) unsafe fn write_sized<T: Versioned>(out: *mut T, value: &T, name: &str) -> Result<()> {
    if out.is_null() {
        return Err(null(name));
    }
    // SAFETY: not null; the first field is readable by the clause above, and a `usize` by that of `Versioned`.
    let found = unsafe { out.cast::<usize>().read_unaligned() };
    if found < T::FIRST || found > size_of::<T>() {
        let (first, now) = (T::FIRST, size_of::<T>());
        let sizes = if first == now { now.to_string() } else { format!("{first} to {now}") };
        let message = format!(
            "{name}->struct_size: expected {sizes} bytes, found {found}; set it to the size of the struct"
        );
        return Err(invalid(message).with("argument", name).with("found", found));
    }
    let header = size_of::<usize>();
    let source = std::ptr::from_ref(value).cast::<u8>().wrapping_add(header);
    let target = out.cast::<u8>().wrapping_add(header);
    // SAFETY: `found` bytes are writable by the clause above, and no more than `value` has, as checked; a `value` of this
    // library does not overlap them. `found` is at least `T::FIRST`, which includes the header.
    unsafe { source.copy_to_nonoverlapping(target, found - header) };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_checked() {
        let items = [1_u32, 2, 3];
        // SAFETY: in each call below null, or within `items`, or refused before it is read.
        let read = |pointer: *const u32, count| unsafe { array(pointer, count, "ids") };
        assert_eq!(read(items.as_ptr(), 3).unwrap(), items);
        assert!(read(std::ptr::null(), 0).unwrap().is_empty());
        assert_eq!(read(std::ptr::null(), 1).unwrap_err().kind(), ErrorKind::NullPointer);
        for bad in [read(items.as_ptr(), usize::MAX / 2), read(items.as_ptr().wrapping_byte_add(1), 1)] {
            assert_eq!(bad.unwrap_err().kind(), ErrorKind::InvalidArgument);
        }
    }

    #[test]
    fn results_need_room() {
        let (mut out, mut count) = ([0_u32; 2], MaybeUninit::new(9));
        // SAFETY: `out` has two items.
        let error =
            unsafe { copy_out(&[1, 2, 3], out.as_mut_ptr(), 2, Some(&mut count), "out") }.unwrap_err();
        assert_eq!((error.kind(), out), (ErrorKind::InvalidArgument, [0, 0]));
        // SAFETY: initialised above.
        assert_eq!(unsafe { count.assume_init() }, 9, "outputs are untouched on failure");
        // SAFETY: `out` has two items.
        unsafe { copy_out(&[1, 2], out.as_mut_ptr(), 2, Some(&mut count), "out") }.unwrap();
        assert_eq!(out, [1, 2]);
    }
}
