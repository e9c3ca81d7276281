//! LoRA adapters: `y += B (A x) * scale` next to a projection `y = W x` (<https://arxiv.org/abs/2106.09685>), read from PEFT
//! directories.
//!
//! Projections that are packed as one ([`Linear`](crate::forward::linear::Linear)) are adapted as one: the `A` of all of them stand
//! one below the other, and `B` is block-diagonal, so that two small products serve all:
//! ```text
//! h = A x            [rows, ranks]
//! h *= scales
//! added = B h        [rows, n], laid out as the projections' columns are
//! y = (W x + bias) + added, then the residual or the gate
//! ```
//! Rows of sequences without an adapter get -0.0, which changes no bit of a sum, so the product itself is one for the whole
//! batch, and a row's bits depend on its own sequence alone, as everywhere. `A` and `B` are kept in bf16 if they are stored
//! so, otherwise in f32; sums are f32.

mod files;
mod merge;
mod peft;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) use self::files::AdapterFiles;
use clawdbot_kernels::threads::Region;
use clawdbot_kernels::{ComputeFormat, KernelSet, PackedMatrix};

use self::files::Use;
pub(crate) use self::merge::MergedAdapters;
use super::parts::InMemory;
use crate::error::Result;
use crate::forward::adapter::{Adapter, Site};
use crate::runtime::Runtime;
use crate::spec::DecoderSpec;
use crate::spec::packing::Projections;

/// Projections that are computed as one, and which of them an adapter changes.
struct Plan<'a> {
    site: String,
    projections: &'a Projections<'a>,
    /// By projection: the module in the adapter's files.
    modules: Vec<Option<&'a str>>,
    ranks: usize,
    /// Columns of the packed projections.
    columns: usize,
    k: usize,
    format: ComputeFormat,
}

/// Reads the adapter in `dir` for the model `spec`. Its memory, and that of the buffers of a forward pass of `rows` rows
/// with it, is taken out of the runtime's budget first.
///
/// # Errors
/// As [`AdapterFiles::open`]; `OutOfBudget`.
pub(crate) fn load(runtime: &Runtime, dir: &Path, spec: &DecoderSpec, rows: u64) -> Result<Adapter> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let names = spec.tensors();
    let files = AdapterFiles::open(dir, &names, Use::Separate)?;
    let projections = names.adaptable();
    let mut plans = Vec::new();
    for projections in &projections {
        plans.extend(Plan::of(projections, &files));
    }
    let rank = plans.iter().map(|plan| plan.ranks).max().unwrap_or(0);
    let columns = plans.iter().map(|plan| plan.columns).max().unwrap_or(0);
    let mut bytes = rows.saturating_mul(buffer_bytes(rank, columns));
    for plan in &plans {
        for (n, k) in [(plan.ranks, plan.k), (plan.columns, plan.ranks)] {
            bytes = bytes.saturating_add(PackedMatrix::packed_bytes(plan.format, n, k)?);
        }
    }
    let reservation = runtime.budget().reserve(bytes, "an adapter and its buffers")?;
    let mut sites = HashMap::new();
    for plan in plans {
        let site = runtime.pool().region(|region| plan.pack(runtime.kernel_set(), region, &files))??;
        sites.insert(plan.site, site);
    }
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    Ok(Adapter { id, sites, rank, columns, rows, reservation })
}

/// Bytes of the buffers for a row.
fn buffer_bytes(rank: usize, columns: usize) -> u64 {
    4 * (rank as u64 + columns as u64)
}

/// Bytes that the buffers of a forward pass with `adapter` and `rows` rows take beyond those reserved with it.
pub(crate) fn more_buffers(adapter: &Adapter, rows: u64) -> u64 {
    rows.saturating_sub(adapter.rows).saturating_mul(buffer_bytes(adapter.rank, adapter.columns))
}

impl<'a> Plan<'a> {
    /// `None` if the adapter changes none of them.
    fn of(projections: &'a Projections<'a>, files: &AdapterFiles) -> Option<Self> {
        let mut modules = Vec::new();
        let (mut ranks, mut bf16) = (0, true);
        for part in &projections.parts {
            let module = files::module(&part.weight).filter(|module| files.pairs.contains_key(*module));
            if let Some(pair) = module.and_then(|module| files.pairs.get(module)) {
                ranks += pair.rank;
                bf16 &= pair.bf16;
            }
            modules.push(module);
        }
        let joined = projections.joined();
        (ranks > 0).then(|| Plan {
            site: joined.parts[0].name.clone(),
            projections,
            modules,
            ranks,
            columns: joined.n(),
            k: joined.k(),
            format: if bf16 { ComputeFormat::Bf16 } else { ComputeFormat::F32 },
        })
    }

    fn pack(&self, kernels: &KernelSet, region: &Region<'_>, files: &AdapterFiles) -> Result<Site> {
        let (k, ranks) = (self.k, self.ranks);
        let mut a = Vec::new();
        let mut scales = Vec::new();
        // Of each projection `[n, ranks]`.
        let mut b = Vec::new();
        for (part, module) in self.projections.parts.iter().zip(&self.modules) {
            let n = part.weight.n;
            let mut block = vec![0.0; n * ranks];
            if let Some(pair) = module.and_then(|module| files.pairs.get(module)) {
                let first = scales.len();
                a.extend(files.a(pair)?);
                scales.resize(first + pair.rank, pair.scale);
                let stored = files.b(pair)?;
                for (row, block) in block.chunks_exact_mut(ranks).enumerate() {
                    let row = part.weight.part.as_ref().map_or(row, |part| part.row(row));
                    block[first..first + pair.rank].copy_from_slice(&stored[row * pair.rank..][..pair.rank]);
                }
            }
            b.push(block);
        }
        let a = PackedMatrix::pack(kernels, region, self.format, &[&InMemory { values: &a, k }])?;
        let rows: Vec<InMemory<'_>> = b.iter().map(|values| InMemory { values, k: ranks }).collect();
        let b = match rows.as_slice() {
            [gate, up] if self.projections.gated => {
                PackedMatrix::pack_gated(kernels, region, self.format, [gate, up])?
            }
            rows => {
                let rows: Vec<&dyn clawdbot_kernels::RowSource> = rows.iter().map(|rows| rows as _).collect();
                PackedMatrix::pack(kernels, region, self.format, &rows)?
            }
        };
        Ok(Site { a, b, scales })
    }
}
