//! Array accesses without bounds checks, for the inner loops of kernels. Builds with debug assertions check each of them.

/// Element `at`.
///
/// # Safety
/// `at` must be below the length of `slice`.
#[inline(always)]
pub(crate) unsafe fn item<T: Copy>(slice: &[T], at: usize) -> T {
    // SAFETY: the clause on `at`. (With debug assertions, the standard library checks it.)
    *unsafe { slice.get_unchecked(at) }
}

/// The `N` elements from `at` on.
///
/// # Safety
/// `at + N` must not exceed the length of `slice`.
#[inline(always)]
pub(crate) unsafe fn array<T, const N: usize>(slice: &[T], at: usize) -> &[T; N] {
    check(at, N, slice.len());
    // SAFETY: the clause on `at`: the pointer stays inside the slice.
    let start = unsafe { slice.as_ptr().add(at) };
    // SAFETY: the slice has `N` elements from there on, borrowed for as long as the result.
    unsafe { &*start.cast() }
}

/// As [`array`], to be written.
///
/// # Safety
/// As [`array`].
#[inline(always)]
pub(crate) unsafe fn array_mut<T, const N: usize>(slice: &mut [T], at: usize) -> &mut [T; N] {
    check(at, N, slice.len());
    // SAFETY: the clause on `at`: the pointer stays inside the slice.
    let start = unsafe { slice.as_mut_ptr().add(at) };
    // SAFETY: the slice has `N` elements from there on, borrowed exclusively for as long as the result.
    unsafe { &mut *start.cast() }
}

/// With debug assertions, panics unless an array of `len` elements has `count` from `at` on.
#[inline(always)]
pub(crate) fn check(at: usize, count: usize, len: usize) {
    if cfg!(debug_assertions) && (at > len || count > len - at) {
        out_of_bounds(at, count, len);
    }
}

/// Not inlined: otherwise each access of each kernel would have the text.
#[cold]
#[inline(never)]
fn out_of_bounds(at: usize, count: usize, len: usize) -> ! {
    panic!("{count} elements from {at} of {len}");
}
