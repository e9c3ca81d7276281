//! A model's own head for multi-token prediction: what it takes, and how it is loaded next to its model.

use clawdbot_kernels::PackedMatrix;

use super::loaded::{MtpLoaded, MtpParts};
use super::plan;
use crate::cache::KvCache;
use crate::engine::{Limits, Mtp, mtp_rows};
use crate::error::{Error, Result};
use crate::forward::mtp;
use crate::forward::scratch::Scratch;
use crate::load::build::Builder;
use crate::load::formats::Segment;
use crate::load::source::Opened;
use crate::options::{KvType, ModelOptions, Speculation, WeightType};
use crate::runtime::{Budget, Runtime};
use crate::spec::DecoderSpec;
use crate::spec::mtp::MtpSpec;

/// A head that is opened and checked.
pub(super) struct MtpOpened {
    spec: MtpSpec,
    weight_type: WeightType,
    kv: KvType,
    /// Bytes of its weights.
    weights: u64,
    limits: Limits,
    /// Bytes of the buffers of an engine.
    scratch: u64,
    /// What loading it needs of the budget.
    pub(super) bytes: u64,
}

impl MtpOpened {
    /// Opens the head of `opened`, if `options` ask for it.
    ///
    /// # Errors
    /// As [`Opened::mtp`].
    pub(super) fn open(
        runtime: &Runtime,
        opened: &mut Opened,
        options: &ModelOptions,
    ) -> Result<Option<Self>> {
        if options.speculation != Speculation::Mtp {
            return Ok(None);
        }
        let spec = opened.mtp()?;
        let weight_type = opened.weight_type(options.weights);
        let overflow = || Error::invalid_model("the weights overflow");
        let names = spec.tensors();
        let mut weights: u64 = names.vectors().map(|vector| 4 * vector.padded_len() as u64).sum();
        for group in names.packed_matrices() {
            for Segment { names, format } in opened.weights.segments(&group, weight_type)? {
                let bytes = PackedMatrix::packed_bytes(format, names.n(), names.k())?;
                weights = weights.checked_add(bytes).ok_or_else(overflow)?;
            }
        }
        let limits = limits(options.max_batch);
        let scratch = scratch_bytes(&spec.layer, &limits, runtime.threads())?;
        let kv = options.kv_type();
        let first = plan::first_bytes(&KvCache::new(kv, &spec.layer.layer_states(), &Budget::new(None))?);
        let bytes = weights.saturating_add(scratch).saturating_add(first);
        Ok(Some(MtpOpened { spec, weight_type, kv, weights, limits, scratch, bytes }))
    }

    /// Loads it, but for what it shares with the model.
    ///
    /// # Errors
    /// As [`Runtime::load`].
    pub(super) fn load(
        self,
        runtime: &Runtime,
        opened: &Opened,
        progress: &mut dyn FnMut(u64, u64) -> bool,
    ) -> Result<MtpParts> {
        let MtpOpened { spec, weight_type, kv, weights, limits, scratch, bytes } = self;
        drop(runtime.budget().reserve(bytes, "the head for multi-token prediction")?);
        runtime.prove_kernels();
        let reservation = runtime.budget().reserve(weights, "weights")?;
        let names = spec.tensors();
        let builder = Builder {
            kernels: runtime.kernel_set(),
            pool: runtime.pool(),
            weights: &opened.weights,
            last: None,
            mapped: None,
            weight_type,
            progress,
            done: 0,
            total: 0,
            ready: Default::default(),
            vectors: Default::default(),
        };
        let head = { builder }.mtp(spec, &names)?;
        Ok(MtpParts { head, kv, limits, scratch, bytes, _reservation: reservation })
    }
}

fn limits(max_batch: u32) -> Limits {
    let sequences = max_batch as usize;
    Limits { rows: mtp_rows(sequences), sequences, whole: false, prompts: usize::MAX }
}

/// Bytes of the buffers of passes within `limits`.
fn scratch_bytes(spec: &DecoderSpec, limits: &Limits, threads: usize) -> Result<u64> {
    let Limits { rows, sequences, .. } = *limits;
    let scratch = <Scratch>::bytes(spec, rows, sequences, threads)?;
    Ok(scratch.saturating_add(mtp::more_bytes(spec, rows)))
}

/// What an engine keeps for the head.
///
/// # Errors
/// `OutOfBudget` for its buffers; as [`KvCache::new`].
pub(super) fn mtp_engine(mtp: &MtpLoaded, budget: &Budget) -> Result<Mtp> {
    let MtpParts { head, kv, scratch, .. } = &mtp.parts;
    let scratch = budget.reserve(*scratch, "scratch of the head for multi-token prediction")?;
    let cache = KvCache::new(*kv, &head.spec.layer_states(), budget)?;
    Ok(Mtp::new(cache, head.spec.hidden_size, budget, scratch))
}

/// Refuses `speculation` mtp of a model that was loaded without its head. `draft`: whether it has a draft model.
///
/// # Errors
/// `InvalidArgument`.
pub(super) fn check_mtp_loaded(speculation: Speculation, loaded: bool, draft: bool) -> Result<()> {
    if speculation != Speculation::Mtp || loaded {
        return Ok(());
    }
    let others = if draft { "none, ngram or draft" } else { "none or ngram" };
    let expected = format!("{others}, as the model was loaded without speculation mtp");
    let error = Error::invalid_argument(format!("option speculation: expected {expected}, found mtp"));
    Err(error.with("option", "speculation").with("expected", expected).with("found", "mtp"))
}
