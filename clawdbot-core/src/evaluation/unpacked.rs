//! The weights of a packed file in floats.

use clawdbot_kernels::simd::LANES;
use clawdbot_kernels::{ComputeFormat, KernelSet, PackedMatrix, RowSource};

use crate::error::Result;
use crate::runtime::Runtime;
use crate::spec::packing::Joined;

/// The matrices `names` as `format`, which is one of floats. `packed` has them in any format.
///
/// # Errors
/// `OutOfBudget` without memory.
pub(super) fn unpack(
    runtime: &Runtime,
    packed: &PackedMatrix,
    names: &Joined<'_>,
    format: ComputeFormat,
) -> Result<PackedMatrix> {
    let kernels = runtime.kernel_set();
    let rows = |rows, first, apart| Rows { kernels, packed, rows, first, apart };
    Ok(runtime.pool().region(|region| match *names.parts.as_slice() {
        [gate, up] if names.gated => {
            let (gate, up) = (rows(gate.n, 0, 2), rows(up.n, 1, 2));
            PackedMatrix::pack_gated(kernels, region, format, [&gate, &up])
        }
        _ => PackedMatrix::pack(kernels, region, format, &[&rows(packed.n(), 0, 1)]),
    })??)
}

/// Rows of a packed matrix: panels of 16 of them, from one on, every so many.
struct Rows<'a> {
    kernels: &'static KernelSet,
    packed: &'a PackedMatrix,
    rows: usize,
    first: usize,
    apart: usize,
}

impl RowSource for Rows<'_> {
    fn rows(&self) -> usize {
        self.rows
    }
    fn cols(&self) -> usize {
        self.packed.k()
    }
    fn read_row(&self, row: usize, _: &[u8], out: &mut [f32]) {
        let panel = row / LANES * self.apart + self.first;
        self.packed.read_row(self.kernels, panel * LANES + row % LANES, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tensors::MatrixName;
    use clawdbot_kernels::memory::AlignedBuf;

    /// Small whole numbers, which every type of floats holds.
    struct Numbers(usize, usize);

    impl RowSource for Numbers {
        fn rows(&self) -> usize {
            self.0
        }
        fn cols(&self) -> usize {
            8
        }
        fn read_row(&self, row: usize, _: &[u8], out: &mut [f32]) {
            out.iter_mut().zip(0_u8..).for_each(|(x, i)| *x = (self.1 + row) as f32 + f32::from(i) / 8.0);
        }
    }

    fn rows(runtime: &Runtime, matrix: &PackedMatrix) -> Vec<Vec<f32>> {
        let row = |row| {
            let mut out: AlignedBuf<f32> = AlignedBuf::zeroed(8).unwrap();
            matrix.read_row(runtime.kernel_set(), row, &mut out);
            out.to_vec()
        };
        (0..matrix.n()).map(row).collect()
    }

    #[test]
    fn rows_stay_where_they_were() {
        let runtime = Runtime::new(&Default::default()).unwrap();
        let kernels = runtime.kernel_set();
        let name = |n| MatrixName { name: String::new(), n, k: 8, sensitive: false, part: None };
        let (gate, up) = (name(21), name(21));
        let (a, b) = (Numbers(21, 0), Numbers(21, 64));
        for (names, gated) in [(Joined::rows([&gate, &up]), false), (Joined::gated(&gate, &up), true)] {
            let packed = runtime
                .pool()
                .region(|region| match gated {
                    true => PackedMatrix::pack_gated(kernels, region, ComputeFormat::Bf16, [&a, &b]),
                    false => PackedMatrix::pack(kernels, region, ComputeFormat::Bf16, &[&a, &b]),
                })
                .unwrap()
                .unwrap();
            let unpacked = unpack(&runtime, &packed, &names, ComputeFormat::F32).unwrap();
            assert_eq!(unpacked.format(), ComputeFormat::F32);
            assert_eq!(rows(&runtime, &unpacked), rows(&runtime, &packed), "gated: {gated}");
        }
    }
}
