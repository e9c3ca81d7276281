//! Array accesses without bounds checks, for the inner loops of kernels. Builds with debug assertions check each of them.

/// Element `at`.
///
/// # Safety
/// `at` must be below the length of `slice`.
#[inline(always)]
pub(crate) unsafe fn item<T: Copy>(slice: &[T], at: usize) -> T {
    debug_assert!(at < slice.len(), "element {at} of {}", slice.len());
    // SAFETY: the clause on `at`.
    *unsafe { slice.get_unchecked(at) }
}

/// The `N` elements from `at` on.
///
/// # Safety
/// `at + N` must not exceed the length of `slice`.
#[inline(always)]
pub(crate) unsafe fn array<T, const N: usize>(slice: &[T], at: usize) -> &[T; N] {
    debug_assert!(at + N <= slice.len(), "{N} elements from {at} of {}", slice.len());
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
    debug_assert!(at + N <= slice.len(), "{N} elements from {at} of {}", slice.len());
    // SAFETY: the clause on `at`: the pointer stays inside the slice.
    let start = unsafe { slice.as_mut_ptr().add(at) };
    // SAFETY: the slice has `N` elements from there on, borrowed exclusively for as long as the result.
    unsafe { &mut *start.cast() }
}
