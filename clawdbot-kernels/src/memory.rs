//! Memory that kernels work on: 64-byte aligned, zeroed, allocated without aborting.
#![allow(unsafe_code, reason = "raw memory is this module's purpose")]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::MmapMut;

use crate::error::{Error, Result};

/// Alignment of every buffer in bytes: one cache line, one AVX-512 register.
pub const ALIGNMENT: usize = 64;
/// Size of a huge page. Buffers of this size or more are mappings of their own, aligned to it, for which the system is
/// asked for huge pages before they are touched: with small pages, streaming through weights is an eighth slower.
pub(crate) const HUGE_PAGE: usize = 2 << 20;

/// Types for which any bit pattern, zero included, is a value.
///
/// # Safety
/// Implement only for primitive integers and floats.
pub unsafe trait Pod: Copy + Send + Sync + 'static {}
// SAFETY: `u8` is a primitive integer.
unsafe impl Pod for u8 {}
// SAFETY: `i8` is a primitive integer.
unsafe impl Pod for i8 {}
// SAFETY: `u16` is a primitive integer.
unsafe impl Pod for u16 {}
// SAFETY: `i32` is a primitive integer.
unsafe impl Pod for i32 {}
// SAFETY: `u32` is a primitive integer.
unsafe impl Pod for u32 {}
// SAFETY: `f32` is a primitive float.
unsafe impl Pod for f32 {}

/// A fixed-length, zero-initialised, 64-byte aligned array. Dereferences to a slice.
///
/// Invariant, established by `zeroed`: `ptr` is aligned and valid for `len` initialised elements that nothing else uses, in
/// `mapping` if there is one, else allocated with `layout(len)`; with `len` 0 it is dangling.
pub struct AlignedBuf<T: Pod> {
    ptr: NonNull<T>,
    len: usize,
    /// The memory of a large buffer; others are on the heap.
    mapping: Option<MmapMut>,
}

// SAFETY: the buffer owns its memory exclusively, like `Box<[T]>`, and `T: Pod` is `Send`.
unsafe impl<T: Pod> Send for AlignedBuf<T> {}
// SAFETY: a shared buffer gives shared slices alone, and `T: Pod` is `Sync`.
unsafe impl<T: Pod> Sync for AlignedBuf<T> {}

impl<T: Pod> AlignedBuf<T> {
    /// `len` zeros.
    ///
    /// # Errors
    /// `OutOfMemory` when the size overflows or the allocator has no memory.
    pub fn zeroed(len: usize) -> Result<Self> {
        if len == 0 {
            return Ok(AlignedBuf::default());
        }
        let layout = Self::layout(len).ok_or_else(|| too_large::<T>(len))?;
        if layout.size() >= HUGE_PAGE {
            let (mut mapping, offset) = map(layout.size()).ok_or_else(|| too_large::<T>(len))?;
            let ptr = NonNull::from(&mut mapping[offset..]).cast::<T>();
            return Ok(AlignedBuf { ptr, len, mapping: Some(mapping) });
        }
        // SAFETY: the layout has a non-zero size: `len` is not zero and no `Pod` type is zero-sized.
        let raw = unsafe { alloc_zeroed(layout) };
        let ptr = NonNull::new(raw.cast::<T>()).ok_or_else(|| too_large::<T>(len))?;
        Ok(AlignedBuf { ptr, len, mapping: None })
    }

    /// Makes the buffer hold at least `len` elements. If it grows, its contents become zeros.
    ///
    /// # Errors
    /// `OutOfMemory` as from [`zeroed`](Self::zeroed); the buffer is empty then.
    pub fn reserve(&mut self, len: usize) -> Result<()> {
        if self.len < len {
            // Release first, so that the peak is one buffer, not two.
            *self = AlignedBuf::default();
            *self = Self::zeroed(len)?;
        }
        Ok(())
    }

    /// Whether it is a mapping of its own, so that no other data is on its pages.
    pub(crate) fn is_mapped(&self) -> bool {
        self.mapping.is_some()
    }

    fn layout(len: usize) -> Option<Layout> {
        Layout::from_size_align(len.checked_mul(size_of::<T>())?, ALIGNMENT).ok()
    }
}

/// Zeroed memory that has `bytes` bytes from the offset returned, which is aligned to huge pages.
fn map(bytes: usize) -> Option<(MmapMut, usize)> {
    let mut mapping = MmapMut::map_anon(bytes.checked_add(HUGE_PAGE)?).ok()?;
    let offset = mapping.as_mut_ptr().align_offset(HUGE_PAGE);
    // Whole huge pages only: a last one would take memory beyond the buffer. If the system refuses, only speed is lost.
    #[cfg(target_os = "linux")]
    let _ = mapping.advise_range(memmap2::Advice::HugePage, offset, bytes / HUGE_PAGE * HUGE_PAGE);
    Some((mapping, offset))
}

fn too_large<T>(len: usize) -> Error {
    let bytes = len as u128 * size_of::<T>() as u128;
    Error::OutOfMemory {
        message: format!("the system has no memory for a buffer of {bytes} bytes"),
        bytes: Some(bytes.min(u128::from(u64::MAX)) as u64),
    }
}

impl<T: Pod> Drop for AlignedBuf<T> {
    fn drop(&mut self) {
        if let (true, None, Some(layout)) = (self.len > 0, &self.mapping, Self::layout(self.len)) {
            // SAFETY: the invariant of `AlignedBuf` without a mapping: `zeroed` allocated `ptr` with this layout, and a value
            // is dropped once.
            unsafe { dealloc(self.ptr.as_ptr().cast(), layout) };
        }
    }
}

impl<T: Pod> Deref for AlignedBuf<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: the invariant of `AlignedBuf`: `ptr` is valid for `len` initialised elements, or dangling with `len` 0.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }
}

impl<T: Pod> DerefMut for AlignedBuf<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: the invariant of `AlignedBuf`: `ptr` is valid for `len` initialised elements, or dangling with `len` 0, and
        // nothing else uses them while `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) }
    }
}

impl<T: Pod> Default for AlignedBuf<T> {
    fn default() -> Self {
        AlignedBuf { ptr: NonNull::dangling(), len: 0, mapping: None }
    }
}

impl<T: Pod> fmt::Debug for AlignedBuf<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBuf<{}>[{}]", std::any::type_name::<T>(), self.len)
    }
}

/// A vector of `len` zeros; `None` without memory. No page of a large one is touched here: the threads that write it do that.
pub fn zeros<T: Pod>(len: usize) -> Option<Vec<T>> {
    let layout = Layout::array::<T>(len).ok()?;
    if layout.size() == 0 {
        return Some(Vec::new());
    }
    // SAFETY: the layout has a non-zero size: a size of 0 returned above.
    let raw = unsafe { alloc_zeroed(layout) };
    let ptr = NonNull::new(raw.cast::<T>())?;
    // SAFETY: the global allocator gave `ptr` for the layout of `len` elements, all of them initialised: zeros are a `T`,
    // because `T: Pod` has every bit pattern.
    Some(unsafe { Vec::from_raw_parts(ptr.as_ptr(), len, len) })
}

/// The bytes of numbers, in this machine's order.
pub fn bytes_of<T: Pod>(values: &[T]) -> &[u8] {
    // SAFETY: `T: Pod` is a number and has no padding; any alignment is right for bytes; the borrow is that of `values`.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// The bytes of numbers, in this machine's order.
pub fn bytes_of_mut<T: Pod>(values: &mut [T]) -> &mut [u8] {
    // SAFETY: `T: Pod` has no padding, and any bytes written are a `T`; any alignment is right for bytes; the borrow is the
    // exclusive one of `values`.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
}

/// A borrowed buffer whose disjoint parts several tasks write.
///
/// Invariant, established by `new`: `start` is valid for `len` elements, which are borrowed exclusively for `'a`.
pub(crate) struct SharedMut<'a, T> {
    start: *mut T,
    len: usize,
    buffer: PhantomData<&'a mut [T]>,
}

// SAFETY: threads reach elements through `slice` alone, whose contract makes their parts disjoint; `T` may be sent to them.
unsafe impl<T: Send> Sync for SharedMut<'_, T> {}

impl<'a, T> SharedMut<'a, T> {
    pub(crate) fn new(buffer: &'a mut [T]) -> Self {
        SharedMut { start: buffer.as_mut_ptr(), len: buffer.len(), buffer: PhantomData }
    }

    /// Elements `start..start + len`.
    ///
    /// # Panics
    /// When the buffer does not have them.
    ///
    /// # Safety
    /// While the result lives, no other part that was given out may overlap it.
    #[inline(always)]
    #[allow(clippy::mut_from_ref, reason = "the contract makes the parts disjoint")]
    pub(crate) unsafe fn slice(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start <= self.len && len <= self.len - start, "{len} elements from {start} of {}", self.len);
        // SAFETY: the assert: `start` is inside the buffer.
        let first = unsafe { self.start.add(start) };
        // SAFETY: the assert and the invariant of `SharedMut`: `len` elements are valid; by the clause above nothing else
        // reaches them meanwhile.
        unsafe { std::slice::from_raw_parts_mut(first, len) }
    }
}

/// Bytes that many buffers share, such as a mapped file.
///
/// # Safety
/// `bytes` must give the same memory every time, also after the value was moved, and it must be initialised and
/// readable until the value is dropped.
pub unsafe trait SharedBytes: Send + Sync {
    /// All of them.
    fn bytes(&self) -> &[u8];
}

/// A read-only array for kernels, 64-byte aligned: memory of its own, or a range of bytes that others use too.
/// Dereferences to a slice.
#[derive(Debug)]
pub struct Panel<T: Pod>(PanelMemory<T>);

enum PanelMemory<T: Pod> {
    Owned(AlignedBuf<T>),
    Shared(SharedRange<T>),
}

/// `len` elements at `ptr`.
///
/// Invariant, established by [`Panel::shared`]: they lie inside the bytes of `owner` and are 64-byte aligned.
struct SharedRange<T> {
    ptr: NonNull<T>,
    len: usize,
    owner: Arc<dyn SharedBytes>,
}

// SAFETY: the memory is only read, and `owner`, which frees it, may be dropped by any thread (`SharedBytes: Send`).
unsafe impl<T: Pod> Send for SharedRange<T> {}
// SAFETY: the memory is only read, which any thread may do (`SharedBytes: Sync`).
unsafe impl<T: Pod> Sync for SharedRange<T> {}

impl<T: Pod> Panel<T> {
    /// The elements in bytes `range` of `owner`, in place. The bytes are taken as this machine's numbers.
    ///
    /// # Errors
    /// `InvalidWeights` when the range does not lie inside the bytes, is not whole elements, or is not 64-byte aligned in
    /// memory.
    pub fn shared(owner: &Arc<dyn SharedBytes>, range: Range<usize>) -> Result<Self> {
        let bytes = owner.bytes();
        let Some(part) = bytes.get(range.clone()) else {
            let message = format!("expected a range within {} bytes, found {range:?}", bytes.len());
            return Err(Error::invalid_weights(message));
        };
        if !part.len().is_multiple_of(size_of::<T>()) {
            let message = format!("expected whole elements of {} bytes, found {range:?}", size_of::<T>());
            return Err(Error::invalid_weights(message));
        }
        if !(part.as_ptr() as usize).is_multiple_of(ALIGNMENT) {
            let message = format!("expected data at a multiple of {ALIGNMENT} bytes, found it at {range:?}");
            return Err(Error::invalid_weights(message));
        }
        let ptr = NonNull::from(part).cast::<T>();
        let shared = SharedRange { ptr, len: part.len() / size_of::<T>(), owner: Arc::clone(owner) };
        Ok(Panel(PanelMemory::Shared(shared)))
    }
}

impl<T: Pod> From<AlignedBuf<T>> for Panel<T> {
    fn from(buffer: AlignedBuf<T>) -> Self {
        Panel(PanelMemory::Owned(buffer))
    }
}

impl<T: Pod> Deref for Panel<T> {
    type Target = [T];
    #[inline]
    fn deref(&self) -> &[T] {
        match &self.0 {
            PanelMemory::Owned(buffer) => buffer,
            // SAFETY: the invariant of `SharedRange`: `len` aligned elements inside the bytes of `owner`, which by the contract
            // of `SharedBytes` stay readable and in place as long as `self` keeps it; `T: Pod` has every bit pattern.
            PanelMemory::Shared(range) => unsafe {
                std::slice::from_raw_parts(range.ptr.as_ptr(), range.len)
            },
        }
    }
}

impl<T: Pod> fmt::Debug for PanelMemory<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PanelMemory::Owned(buffer) => buffer.fmt(f),
            PanelMemory::Shared(range) => {
                let (name, of) = (std::any::type_name::<T>(), range.owner.bytes().len());
                write!(f, "{name}[{}] in {of} bytes", range.len)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // SAFETY: the invariant of `AlignedBuf`: its memory is initialised, belongs to it, and stays in place when it moves.
    unsafe impl SharedBytes for AlignedBuf<u8> {
        fn bytes(&self) -> &[u8] {
            self
        }
    }

    #[test]
    fn numbers_are_bytes() {
        let mut numbers = [1_u16, 0x0203];
        assert_eq!(bytes_of(&numbers), [1_u16.to_ne_bytes(), 0x0203_u16.to_ne_bytes()].as_flattened());
        bytes_of_mut(&mut numbers)[2..].copy_from_slice(&7_u16.to_ne_bytes());
        assert_eq!(numbers, [1, 7]);
    }

    #[test]
    fn shared_panels_are_ranges_and_keep_their_owner() {
        let mut bytes = AlignedBuf::<u8>::zeroed(256).unwrap();
        bytes[128..132].copy_from_slice(&1.5_f32.to_ne_bytes());
        let owner: Arc<dyn SharedBytes> = Arc::new(bytes);
        let panel = Panel::<f32>::shared(&owner, 128..192).unwrap();
        assert_eq!(panel.as_ptr().cast::<u8>(), owner.bytes()[128..].as_ptr());
        let weak = Arc::downgrade(&owner);
        drop(owner);
        assert_eq!((panel.len(), panel[0], panel[1]), (16, 1.5, 0.0));
        drop(panel);
        assert!(weak.upgrade().is_none());
    }

    #[test]
    fn ranges_that_do_not_fit_are_errors() {
        let owner: Arc<dyn SharedBytes> = Arc::new(AlignedBuf::<u8>::zeroed(256).unwrap());
        #[expect(clippy::reversed_empty_ranges, reason = "what a hostile file may say")]
        for range in [0..257, 257..257, 64..0, usize::MAX - 3..usize::MAX, 4..8, 60..64, 64..66] {
            let error = Panel::<f32>::shared(&owner, range.clone()).unwrap_err();
            assert!(matches!(error, Error::InvalidWeights { .. }), "{range:?}");
        }
        assert!(Panel::<f32>::shared(&owner, 256..256).is_ok_and(|panel| panel.is_empty()));
    }

    #[test]
    fn aligned_and_zeroed() {
        for len in [0, 1, 17, 1 << 20, (1 << 20) + 1] {
            let buf = AlignedBuf::<f32>::zeroed(len).unwrap();
            assert_eq!(buf.len(), len);
            assert!(len == 0 || (buf.as_ptr() as usize).is_multiple_of(ALIGNMENT));
            assert!(buf.iter().all(|&x| x == 0.0));
        }
    }

    #[test]
    fn vectors_of_zeros_grow_and_go_as_others() {
        for len in [0, 1, 1 << 20] {
            let mut vector = zeros::<f32>(len).unwrap();
            assert!(vector.len() == len && vector.iter().all(|&x| x == 0.0));
            vector.push(1.0);
            assert_eq!(vector[len], 1.0);
        }
        assert!(zeros::<f32>(usize::MAX / 4).is_none() && zeros::<u8>(isize::MAX as usize).is_none());
    }

    #[test]
    fn absurd_sizes_are_errors() {
        for len in [usize::MAX, usize::MAX / 4, isize::MAX as usize / 8] {
            assert!(matches!(AlignedBuf::<f32>::zeroed(len).unwrap_err(), Error::OutOfMemory { .. }));
        }
    }
}
