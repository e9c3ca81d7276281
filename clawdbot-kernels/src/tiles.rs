//! The tile registers of AMX: eight matrices of at most 16 rows of 64 bytes, and the exact int8 product of two of them.
//!
//! Kernels use [`Tiles`]. [`Amx`] implements it with the instructions; [`Model`] does the same in plain Rust, so that kernels
//! on tiles are tested on every machine.
//!
//! Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18, and the instructions
//! LDTILECFG, TILELOADD, TILESTORED, TILEZERO, TDPBSSD, TILERELEASE.

use super::simd::LANES;

/// Rows of a tile.
pub(super) const TILE_ROWS: usize = 16;
/// Bytes of a row of a tile: codes of an activation row, or four codes of each of 16 columns.
pub(super) const TILE_BYTES: usize = 64;
/// Tiles whose rows are rows of activations or of sums; the others hold weights.
#[cfg(target_arch = "x86_64")]
const SUMS: [usize; 3] = [0, 1, 2];
#[cfg(target_arch = "x86_64")]
const ACTIVATIONS: usize = 7;

/// int32 sums of 16 rows x 16 columns.
pub(super) type SumTile = [[i32; LANES]; TILE_ROWS];

/// Eight tiles: 0 to 2 are sums `[16][16]` of i32, 3 to 6 are weights `[k / 4][16][4]` of i8, 7 is activations `[16][k]`.
///
/// Invariant, established by [`configure`](Self::configure), which alone makes values: the CPU has the instructions, and the
/// tiles of this thread are configured so.
pub(super) trait Tiles {
    /// Configures the tiles for products over `4 * k_blocks` codes: 1 to 16 blocks.
    ///
    /// # Safety
    /// The CPU must have the instructions, and the thread no other value of such a type.
    unsafe fn configure(k_blocks: usize) -> Self;

    /// Loads 16 rows of `4 * k_blocks` bytes, `stride` bytes apart, into the tile of activations.
    ///
    /// # Safety
    /// `rows` must be valid for reads of `4 * k_blocks` bytes at each of the 16 multiples of `stride`.
    unsafe fn load_activations(&mut self, rows: *const i8, stride: usize);

    /// Loads `k_blocks` consecutive blocks of a panel into tile `T`, 3 to 6.
    ///
    /// # Safety
    /// `blocks` must be valid for reads of `64 * k_blocks` bytes.
    unsafe fn load_weights<const T: usize>(&mut self, blocks: *const i8);

    /// Tile `T`, 0 to 2, becomes zero.
    fn zero<const T: usize>(&mut self);

    /// Tile `T`, 0 to 2, `+=` activations times weights in tile `W`: wrapping, exact for up to 2^17 codes.
    fn multiply<const T: usize, const W: usize>(&mut self);

    /// Writes tile `T`, 0 to 2.
    fn store<const T: usize>(&self, sums: &mut SumTile);
}

/// The operand of LDTILECFG. By default no tile has rows.
#[cfg(target_arch = "x86_64")]
#[repr(C, align(64))]
pub(super) struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    pub(super) row_bytes: [u16; 16],
    pub(super) rows: [u8; 16],
}

#[cfg(target_arch = "x86_64")]
impl Default for Configuration {
    fn default() -> Self {
        Configuration { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] }
    }
}

/// The instructions themselves. No compiler-generated code touches tile registers, so their contents last from one
/// statement to the next, although each declares those it writes as clobbered.
#[cfg(target_arch = "x86_64")]
pub(super) struct Amx(());

#[cfg(target_arch = "x86_64")]
pub(super) use amx::{permitted, usable};

#[cfg(target_arch = "x86_64")]
mod amx {
    use std::arch::asm;

    use super::*;

    impl Tiles for Amx {
        #[inline(always)]
        unsafe fn configure(k_blocks: usize) -> Self {
            assert!((1..=TILE_ROWS).contains(&k_blocks), "1 to 16 blocks, found {k_blocks}");
            let mut configuration = Configuration::default();
            for tile in 0..8 {
                let (rows, bytes) = match tile {
                    ACTIVATIONS => (TILE_ROWS, 4 * k_blocks),
                    _ if SUMS.contains(&tile) => (TILE_ROWS, TILE_BYTES),
                    _ => (k_blocks, TILE_BYTES),
                };
                configuration.rows[tile] = rows as u8;
                configuration.row_bytes[tile] = bytes as u16;
            }
            // SAFETY: the CPU has the instruction by the clause of `configure`; the operand is 64 bytes in palette 1 with at most
            // 16 rows of 64 bytes, as asserted, which is a valid configuration.
            unsafe {
                asm!(
                    "ldtilecfg [{}]", in(reg) &raw const configuration, options(nostack, preserves_flags, readonly),
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                );
            }
            Amx(())
        }

        #[inline(always)]
        unsafe fn load_activations(&mut self, rows: *const i8, stride: usize) {
            // SAFETY: the invariant of `Tiles`: tile 7 has 16 rows of `4 * k_blocks` bytes, which may be read by the clause on
            // `rows`.
            unsafe {
                asm!(
                    "tileloadd tmm7, [{rows} + {stride}*1]", rows = in(reg) rows, stride = in(reg) stride,
                    out("tmm7") _, options(nostack, preserves_flags, readonly),
                );
            }
        }

        #[inline(always)]
        unsafe fn load_weights<const T: usize>(&mut self, blocks: *const i8) {
            const { assert!(T >= 3 && T <= 6) };
            // SAFETY: the invariant of `Tiles`: tile `T`, 3 to 6, has `k_blocks` rows of 64 bytes, which may be read by the clause
            // on `blocks`.
            unsafe {
                asm!(
                    "tileloadd tmm{t}, [{blocks} + {stride}*1]",
                    t = const T, blocks = in(reg) blocks, stride = in(reg) TILE_BYTES,
                    out("tmm3") _, out("tmm4") _, out("tmm5") _, out("tmm6") _,
                    options(nostack, preserves_flags, readonly),
                );
            }
        }

        #[inline(always)]
        fn zero<const T: usize>(&mut self) {
            const { assert!(T <= 2) };
            // SAFETY: the invariant of `Tiles`: tile `T` is configured. No memory is accessed.
            unsafe {
                asm!(
                    "tilezero tmm{t}", t = const T, out("tmm0") _, out("tmm1") _, out("tmm2") _,
                    options(nostack, preserves_flags, nomem),
                );
            }
        }

        #[inline(always)]
        fn multiply<const T: usize, const W: usize>(&mut self) {
            const { assert!(T <= 2 && W >= 3 && W <= 6) };
            // SAFETY: the invariant of `Tiles`: 16 rows of sums and of activations, and as many rows of weights as activations have
            // groups of four bytes. No memory is accessed.
            unsafe {
                asm!(
                    "tdpbssd tmm{t}, tmm7, tmm{w}", t = const T, w = const W,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _,
                    options(nostack, preserves_flags, nomem),
                );
            }
        }

        #[inline(always)]
        fn store<const T: usize>(&self, sums: &mut SumTile) {
            const { assert!(T <= 2) };
            // SAFETY: the invariant of `Tiles`: tile `T`, 0 to 2, has 16 rows of 64 bytes, which is the size of `sums`.
            unsafe {
                asm!(
                    "tilestored [{sums} + {stride}*1], tmm{t}",
                    t = const T, sums = in(reg) sums, stride = in(reg) TILE_BYTES,
                    options(nostack, preserves_flags),
                );
            }
        }
    }

    impl Drop for Amx {
        #[inline(always)]
        fn drop(&mut self) {
            // In their initial state, tiles cost context switches nothing.
            // SAFETY: the invariant of `Tiles`: the CPU has the instruction, and no other value uses this thread's tiles.
            unsafe {
                asm!(
                    "tilerelease", options(nostack, preserves_flags, nomem),
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                );
            }
        }
    }

    impl Amx {
        /// Whether the CPU has int8 tiles and the operating system can hand them out.
        pub(crate) fn detected() -> bool {
            /// AMX-INT8 in EDX of leaf 7.
            const AMX_INT8: u32 = 1 << 25;
            usable(AMX_INT8)
        }
    }

    /// Whether the CPU has tiles and `features`, bits of EDX of leaf 7, and the operating system can hand them out. Changes
    /// nothing: before tiles are used, [`permitted`].
    pub(crate) fn usable(features: u32) -> bool {
        /// AMX-TILE in EDX of leaf 7.
        const AMX_TILE: u32 = 1 << 24;
        /// XTILECFG and XTILEDATA in XCR0.
        const STATE: u64 = 1 << 17 | 1 << 18;
        if !std::arch::is_x86_feature_detected!("xsave") {
            return false;
        }
        let leaf7 = match std::arch::x86_64::__cpuid(0).eax {
            0..7 => return false,
            _ => std::arch::x86_64::__cpuid_count(7, 0),
        };
        let features = features | AMX_TILE;
        // SAFETY: `xsave` was detected above, which includes that the operating system has enabled XGETBV.
        let xcr0 = unsafe { std::arch::x86_64::_xgetbv(0) };
        leaf7.edx & features == features && xcr0 & STATE == STATE && handed_out()
    }

    /// The tile data among the states of a CPU.
    #[cfg(target_os = "linux")]
    const XTILEDATA: libc::c_ulong = 18;

    /// Whether Linux hands out tile data to those who ask.
    #[cfg(target_os = "linux")]
    fn handed_out() -> bool {
        const ARCH_GET_XCOMP_SUPP: libc::c_int = 0x1021;
        let mut states = 0_u64;
        // SAFETY: the system call writes one u64 to where the pointer says, which is `states`.
        let answer = unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_GET_XCOMP_SUPP, &raw mut states) };
        answer == 0 && states >> XTILEDATA & 1 == 1
    }

    /// Asks Linux for the tile data, at the first call. The permission is for the whole process, all its threads and children,
    /// for as long as it runs. Afterwards, threads that use tiles need larger alternate signal stacks; Linux refuses where the
    /// stack of a thread is too small.
    #[cfg(target_os = "linux")]
    pub(crate) fn permitted() -> bool {
        const ARCH_REQ_XCOMP_PERM: libc::c_int = 0x1023;
        static ANSWER: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
        *ANSWER.get_or_init(|| {
            // SAFETY: the system call takes numbers and returns one; it accesses no memory of this process.
            unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA) == 0 }
        })
    }

    /// Other systems have other ways, which are not tested.
    #[cfg(not(target_os = "linux"))]
    fn handed_out() -> bool {
        false
    }

    /// See [`handed_out`].
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn permitted() -> bool {
        false
    }
}

/// Tiles in plain Rust.
#[cfg(test)]
pub(super) struct Model {
    k_blocks: usize,
    sums: [SumTile; 3],
    weights: [[[[i8; 4]; LANES]; TILE_ROWS]; 4],
    activations: [[[i8; 4]; TILE_ROWS]; TILE_ROWS],
}

#[cfg(test)]
impl Tiles for Model {
    unsafe fn configure(k_blocks: usize) -> Self {
        assert!((1..=TILE_ROWS).contains(&k_blocks));
        // Not zeros: whatever is not loaded must not matter.
        Model {
            k_blocks,
            sums: [[[-7; LANES]; TILE_ROWS]; 3],
            weights: [[[[-7; 4]; LANES]; TILE_ROWS]; 4],
            activations: [[[-7; 4]; TILE_ROWS]; TILE_ROWS],
        }
    }

    unsafe fn load_activations(&mut self, rows: *const i8, stride: usize) {
        for (row, codes) in self.activations.iter_mut().enumerate() {
            for (block, codes) in codes[..self.k_blocks].iter_mut().enumerate() {
                let at = rows.wrapping_add(row * stride + 4 * block).cast::<[i8; 4]>();
                // SAFETY: the clause on `rows`: `row < 16` and `block < k_blocks`.
                *codes = unsafe { at.read_unaligned() };
            }
        }
    }

    unsafe fn load_weights<const T: usize>(&mut self, blocks: *const i8) {
        for (block, codes) in self.weights[T - 3][..self.k_blocks].iter_mut().enumerate() {
            let at = blocks.wrapping_add(block * TILE_BYTES).cast::<[[i8; 4]; LANES]>();
            // SAFETY: the clause on `blocks`: `block < k_blocks`.
            *codes = unsafe { at.read_unaligned() };
        }
    }

    fn zero<const T: usize>(&mut self) {
        self.sums[T] = [[0; LANES]; TILE_ROWS];
    }

    fn multiply<const T: usize, const W: usize>(&mut self) {
        for (sums, activations) in self.sums[T].iter_mut().zip(&self.activations) {
            for (codes, weights) in activations[..self.k_blocks].iter().zip(&self.weights[W - 3]) {
                for (sum, weights) in sums.iter_mut().zip(weights) {
                    for (code, weight) in codes.iter().zip(weights) {
                        *sum = sum.wrapping_add(i32::from(*code) * i32::from(*weight));
                    }
                }
            }
        }
    }

    fn store<const T: usize>(&self, sums: &mut SumTile) {
        *sums = self.sums[T];
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    /// Two products into one tile, one into another.
    fn run<T: Tiles>(k_blocks: usize, stride: usize) -> [SumTile; 2] {
        let code = |i: usize| (i * 37 % 255) as i8;
        let rows: Vec<i8> = (0..TILE_ROWS * stride).map(code).collect();
        let weights: Vec<i8> = (0..2 * TILE_ROWS * TILE_BYTES).map(|i| code(i + 11)).collect();
        let mut out = [[[0; LANES]; TILE_ROWS]; 2];
        // SAFETY: the tests call this with `Model`, and with `Amx` only after `detected` and `permitted`.
        let mut tiles = unsafe { T::configure(k_blocks) };
        // SAFETY: `rows` has 16 rows of `stride >= 4 * k_blocks` bytes.
        unsafe { tiles.load_activations(rows.as_ptr(), stride) };
        // SAFETY: `weights` begins with 16 blocks.
        unsafe { tiles.load_weights::<3>(weights.as_ptr()) };
        // SAFETY: `weights` has 16 further blocks.
        unsafe { tiles.load_weights::<6>(weights[TILE_ROWS * TILE_BYTES..].as_ptr()) };
        tiles.zero::<0>();
        tiles.zero::<2>();
        tiles.multiply::<0, 3>();
        tiles.multiply::<2, 3>();
        tiles.multiply::<0, 6>();
        tiles.store::<0>(&mut out[0]);
        tiles.store::<2>(&mut out[1]);
        out
    }

    #[test]
    fn the_model_does_what_the_instructions_do() {
        if !Amx::detected() || !permitted() {
            crate::skipped::skipped("AMX tiles against their model: this CPU or system has none");
            return;
        }
        for (k_blocks, stride) in [(16, 64), (16, 512), (8, 64), (3, 100), (1, 64)] {
            assert_eq!(run::<Amx>(k_blocks, stride), run::<Model>(k_blocks, stride), "{k_blocks} {stride}");
        }
    }

    #[test]
    fn the_model_multiplies() {
        let [both, one] = run::<Model>(2, 64);
        let code = |i: usize| i32::from((i * 37 % 255) as i8);
        let dot = |row: usize, column: usize, tile: usize| -> i32 {
            let weight = |k: usize| code(11 + tile * 1024 + k / 4 * 64 + 4 * column + k % 4);
            (0..8).map(|k| code(64 * row + k) * weight(k)).sum()
        };
        for (row, column) in [(0, 0), (3, 5), (15, 15)] {
            assert_eq!(one[row][column], dot(row, column, 0));
            assert_eq!(both[row][column], dot(row, column, 0) + dot(row, column, 1));
        }
    }
}
