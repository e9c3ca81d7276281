//! What a model would cost, before anything is paid.

use clawdbot_kernels::PackedMatrix;
use clawdbot_kernels::attention::PAGE_TOKENS;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::forward::scratch::Scratch;
use crate::load::formats::{Segment, weights_in};
use crate::load::source::Opened;
use crate::load::weights::Weights;
use crate::spec::DecoderSpec;
use crate::spec::embedding::EmbeddingConfig;
use crate::spec::packing::Joined;

use crate::cache::KvCache;
use crate::engine::{SCORE_ROWS, reserved_bytes};
use crate::error::{Error, Result};
use crate::options::{ModelOptions, Pooling};
use crate::runtime::{Budget, Runtime};
use crate::sampling;

/// What loading a model would cost, and what it would compute with. Sizes in bytes.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Plan {
    /// Directory, file or name.
    pub name: String,
    /// Architecture, as in `config.json`.
    pub architecture: &'static str,
    /// Weights in all matrices and vectors.
    pub parameters: u64,
    /// Weights in the matrices of the layers that a token is multiplied with on its way to the output head: of experts those
    /// it chooses.
    pub block_parameters: u64,
    /// Size of the tensors as stored.
    pub stored_bytes: u64,
    /// Type of the weights as `config.json` names it.
    pub stored_dtype: Option<String>,
    /// Whether the model is a packed file, whose weights are used as they are.
    pub packed: bool,
    /// `int8`, `int4`, `int4-mixed`, `bf16`, `f32` or `stored`.
    pub weights: &'static str,
    /// Tokens of the text that the weights of a packed file were calibrated on, if they were.
    pub calibrated_tokens: Option<u64>,
    /// The report of an evaluation that is stored in a packed file, as `docs/evaluate.md` describes it.
    pub evaluation: Option<Map<String, Value>>,
    /// Packed weights in memory; those of a packed file that is mapped count too, though other processes share them.
    pub weights_bytes: u64,
    /// How many of them a forward pass for one token reads: all but an embedding that is not the output head too, and the
    /// experts that the token does not choose.
    pub weights_bytes_per_pass: u64,
    /// `int8`, `bf16` or `f32`.
    pub kv: &'static str,
    /// Of a GGUF file or a quantized directory: in which formats its matrices are stored, and what each is computed as.
    pub stored: Vec<StoredMatrices>,
    /// KV cache for one token.
    pub kv_bytes_per_token: u64,
    /// Most tokens of a sequence.
    pub max_context: usize,
    /// KV cache of one sequence as long as the context, the states of recurrent layers included. Pages are allocated as sequences grow.
    pub kv_bytes_full_context: u64,
    /// Buffers of the largest forward pass, of sampling, and what small requests keep.
    pub scratch_bytes: u64,
    /// What loading the `draft_model` needs of the budget, and, with `speculation` mtp, the model's own head; 0 without either.
    pub draft_bytes: u64,
    /// Weights, scratch, the first page of KV cache and the states of a sequence, and `draft_bytes`: what loading needs of the budget.
    pub load_bytes: u64,
    /// Most bytes that the runtime's models may take together, if it has a budget.
    pub memory_budget: Option<u64>,
    /// Bytes of memory that the process can have (the machine's, or what limits of the cgroup and the process leave), if
    /// there is no budget and the system says.
    pub system_memory: Option<u64>,
    /// Whether `load_bytes` are free in the budget now; without a budget, in `system_memory`.
    pub fits: bool,
    /// Whether the data of a packed file was read and compared with its checksum (`verify`).
    pub verified: bool,
    /// Instruction-set tier that would compute.
    pub kernels: &'static str,
    /// Threads that would compute.
    pub threads: usize,
    /// Where threads run and weights lie, as the option `numa` says: `off`, `interleave`, `local`.
    pub numa: &'static str,
    /// What the model can do: `generate`, `embed`; `rerank` of models with a head for scores.
    pub tasks: Vec<&'static str>,
    /// Whether messages can be rendered: with `generate`, the model can chat.
    pub has_chat_template: bool,
    /// How texts become vectors.
    pub embedding: EmbeddingInfo,
    /// What there is in the model's files that has no effect, or not the one that it seems to have. Loading logs them.
    pub warnings: Vec<String>,
}

/// Matrices that are stored in one format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StoredMatrices {
    /// Name of the format, such as `Q4_K` or `GPTQ int4/128`.
    pub format: String,
    /// How many there are.
    pub matrices: u64,
    /// Weights in them.
    pub weights: u64,
    /// What they are computed as: bits, weights that share a scale, and type of the scales, such as `int4/32/super`.
    pub computed: String,
    /// Whether that is with their own codes and scales. Otherwise they are converted, which rounds again.
    pub own_codes: bool,
}

/// What a model's files say about turning texts into vectors.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct EmbeddingInfo {
    /// Elements of a vector.
    pub dimensions: usize,
    /// How states of tokens become one; `None`: the option must say.
    pub pooling: Option<Pooling>,
    /// Whether vectors are scaled to length 1.
    pub normalize: bool,
    /// Names of the prompts.
    pub prompts: Vec<String>,
    /// The prompt that is used when none is asked for.
    pub default_prompt_name: Option<String>,
    /// Most tokens of a text.
    pub max_tokens: usize,
}

impl EmbeddingInfo {
    pub(crate) fn new(config: &EmbeddingConfig, dimensions: usize, max_context: usize) -> Self {
        EmbeddingInfo {
            dimensions,
            pooling: config.pooling,
            normalize: config.normalize,
            prompts: config.prompts.keys().cloned().collect(),
            default_prompt_name: config.default_prompt_name.clone(),
            max_tokens: config.most_tokens(max_context),
        }
    }
}

fn stored_matrices(opened: &Opened, options: &ModelOptions) -> Result<Vec<StoredMatrices>> {
    let mut found: Vec<StoredMatrices> = Vec::new();
    for group in opened.spec.tensors().packed_matrices() {
        for Segment { names, format } in opened.weights.segments(&group, options.weight_type())? {
            let packed = opened.weights.packed_format(&names);
            for name in names.parts {
                let stored = packed
                    .map_or_else(|| opened.weights.stored_format(name), |name| Ok(Some(name.to_owned())))?;
                let Some(stored) = stored else { continue };
                let (computed, weights) = (format.name(), name.n as u64 * name.k as u64);
                let same = |other: &&mut StoredMatrices| other.format == stored && other.computed == computed;
                match found.iter_mut().find(same) {
                    Some(other) => {
                        other.matrices += 1;
                        other.weights += weights;
                    }
                    None => found.push(StoredMatrices {
                        format: stored,
                        matrices: 1,
                        weights,
                        computed,
                        own_codes: packed.is_some() || opened.weights.own_format(name)? == Some(format),
                    }),
                }
            }
        }
    }
    found.sort_by_key(|other| std::cmp::Reverse(other.weights));
    Ok(found)
}

/// The parts of a plan that loading needs.
pub(crate) struct Sizes {
    pub(crate) weights: u64,
    pub(crate) scratch: u64,
    pub(crate) max_context: usize,
}

impl Sizes {
    pub(crate) fn of(opened: &Opened, options: &ModelOptions, threads: usize) -> Result<Self> {
        options.validate()?;
        let spec = &opened.spec;
        let max_context = max_context(spec, options)?;
        let mut weights = spec.vectors_bytes();
        for group in spec.tensors().packed_matrices() {
            for Segment { names, format } in opened.weights.segments(&group, options.weight_type())? {
                let bytes = PackedMatrix::packed_bytes(format, names.n(), names.k())?;
                weights =
                    weights.checked_add(bytes).ok_or_else(|| Error::invalid_model("the weights overflow"))?;
            }
        }
        let (max_batch, prefill_chunk) = (options.max_batch, options.prefill_chunk);
        let buffers = buffers(spec, max_context, max_batch, prefill_chunk, threads)?;
        Ok(Sizes { weights, scratch: buffers.saturating_add(reserved_bytes(max_batch)), max_context })
    }
}

/// Most tokens of a sequence.
///
/// # Errors
/// `InvalidArgument` for more than the model was trained for.
pub(super) fn max_context(spec: &DecoderSpec, options: &ModelOptions) -> Result<usize> {
    let trained = spec.max_position_embeddings;
    let max_context = options.max_context.map_or(trained, |n| n as usize);
    match max_context <= trained {
        true => Ok(max_context),
        false => Err(Error::invalid_argument(format!(
            "option max_context: expected at most {trained}, what the model was trained for, found {max_context}"
        ))
        .with("option", "max_context")),
    }
}

/// Bytes of the first page of a cache, and of the states of a sequence.
pub(super) fn first_bytes(cache: &KvCache) -> u64 {
    (cache.bytes_per_token() * PAGE_TOKENS as u64).saturating_add(cache.state_bytes())
}

/// Bytes of the keys, values and states of a sequence as long as the context.
pub(super) fn kv_bytes(cache: &KvCache, max_context: usize) -> u64 {
    (max_context.div_ceil(PAGE_TOKENS) as u64)
        .saturating_mul(cache.bytes_per_token() * PAGE_TOKENS as u64)
        .saturating_add(cache.state_bytes())
}

/// Bytes of the buffers of the largest forward pass, and of sampling.
///
/// # Errors
/// `InvalidModel` when the sum overflows.
pub(crate) fn buffers(
    spec: &DecoderSpec,
    max_context: usize,
    max_batch: u32,
    prefill_chunk: u32,
    threads: usize,
) -> Result<u64> {
    // What sees both ways is not cut.
    let whole = if spec.bidirectional { max_context } else { 0 };
    let rows = (prefill_chunk.max(max_batch) as usize).max(whole);
    let logits = if spec.generates() { SCORE_ROWS.max(max_batch as usize) } else { 0 };
    let sampling = match spec.generates() {
        true => sampling::bytes(spec.vocab_size, max_context).saturating_mul(threads as u64),
        false => 0,
    };
    Ok(<Scratch>::bytes(spec, rows, logits, threads)?.saturating_add(sampling))
}

impl Plan {
    pub(crate) fn new(runtime: &Runtime, opened: &Opened, options: &ModelOptions) -> Result<Self> {
        let spec = &opened.spec;
        let sizes = Sizes::of(opened, options, runtime.threads())?;
        let cache = KvCache::new(options.kv_type(), &spec.layer_states(), &Budget::new(None))?;
        let names = spec.tensors();
        let embedding = names.embed_tokens.n as u64 * names.embed_tokens.k as u64;
        let inputs = names.layer_inputs.as_ref().map(|inputs| &inputs.embedding);
        let head = names.lm_head.as_ref().map_or(0, |head| head.n as u64 * head.k as u64);
        let mut looked_up = 0;
        let apart = names.lm_head.is_some() || !spec.generates();
        for matrix in apart.then_some(&names.embed_tokens).into_iter().chain(inputs) {
            let segments = opened.weights.segments(&Joined::rows([matrix]), options.weight_type())?;
            for Segment { names, format } in segments {
                looked_up += PackedMatrix::packed_bytes(format, names.n(), names.k())?;
            }
        }
        let idle = names.idle_experts(spec);
        let mut idle_bytes = 0;
        for group in &idle {
            for Segment { names, format } in opened.weights.segments(group, options.weight_type())? {
                idle_bytes += PackedMatrix::packed_bytes(format, names.n(), names.k())?;
            }
        }
        let idle: u64 = idle.iter().map(Joined::weights).sum();
        let matrices = weights_in(spec);
        let load_bytes = sizes.weights.saturating_add(sizes.scratch).saturating_add(first_bytes(&cache));
        let budget = runtime.budget();
        Ok(Plan {
            name: opened.name.clone(),
            architecture: spec.architecture,
            parameters: matrices + spec.vectors_bytes() / 4,
            block_parameters: matrices
                - embedding
                - inputs.map_or(0, |inputs| inputs.n as u64 * inputs.k as u64)
                - head
                - idle,
            stored_bytes: opened.weights.stored_bytes(),
            stored_dtype: opened.dtype.clone(),
            packed: matches!(opened.weights, Weights::Packed(_)),
            weights: options.weight_type().name(),
            calibrated_tokens: match opened.weights.base() {
                Weights::Packed(file) => file.info().calibrated_tokens,
                _ => None,
            },
            evaluation: match opened.weights.base() {
                Weights::Packed(file) => file.report()?,
                _ => None,
            },
            weights_bytes: sizes.weights,
            weights_bytes_per_pass: sizes.weights - looked_up - idle_bytes,
            stored: stored_matrices(opened, options)?,
            kv: options.kv_type().name(),
            kv_bytes_per_token: cache.bytes_per_token(),
            max_context: sizes.max_context,
            kv_bytes_full_context: kv_bytes(&cache, sizes.max_context),
            scratch_bytes: sizes.scratch,
            draft_bytes: 0,
            load_bytes,
            memory_budget: budget.limit(),
            system_memory: budget.memory(),
            fits: fits(load_bytes, budget),
            verified: false,
            kernels: runtime.kernels(),
            threads: runtime.threads(),
            numa: runtime.numa().name(),
            tasks: spec.tasks(),
            has_chat_template: opened.has_chat_template(),
            embedding: EmbeddingInfo::new(&opened.embedding, spec.pooled_size(), sizes.max_context),
            warnings: opened.warnings(),
        })
    }

    /// The plan with a draft model that takes so many bytes.
    pub(super) fn with_draft(self, draft_bytes: u64, budget: &Budget) -> Self {
        let load_bytes = self.load_bytes.saturating_add(draft_bytes);
        Plan { draft_bytes, load_bytes, fits: fits(load_bytes, budget), ..self }
    }
}

/// Whether so many bytes are free in the budget; without one, in the machine's memory.
fn fits(bytes: u64, budget: &Budget) -> bool {
    let limit = budget.limit().or(budget.memory());
    limit.is_none_or(|limit| bytes <= limit.saturating_sub(budget.used()))
}
