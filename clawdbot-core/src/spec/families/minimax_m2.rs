//! MiniMax-M2: experts in all layers, chosen by sigmoids with corrections, norms over all query or key heads, and part of
//! each head rotated.
//! Source: transformers 5, `models/minimax_m2/configuration_minimax_m2.py` and `modeling_minimax_m2.py`.

use serde_json::json;

use super::llama::Keys;
use super::{Family, architecture, one_of, only, only_str};
use crate::error::Result;
use crate::spec::config::ModelConfig;
use crate::spec::gguf::{self, GgufFamily};
use crate::spec::names::{self, MlpModules, MoeModules, Names};
use crate::spec::rope_scaling::{RopeDefaults, RopeSpec};
use crate::spec::{DecoderSpec, LayerSpec, MoeSpec, NormSpec, Scoring};

pub(super) const FAMILY: Family = Family {
    architectures: &[architecture("MiniMaxM2ForCausalLM", "minimax_m2", parse)],
    gguf: &[GgufFamily {
        name: "minimax-m2",
        architecture: "MiniMaxM2ForCausalLM",
        partial: true,
        keys: &[gguf::EXPERT_SIZE, gguf::GATING, NORM],
        fields: gguf_fields,
        ..GgufFamily::PLAIN
    }],
};

const NAMES: Names = Names {
    moe: MoeModules {
        router: "block_sparse_moe.gate",
        correction: "block_sparse_moe.e_score_correction_bias",
        experts: "block_sparse_moe.experts",
        expert: MlpModules { gate_up: &["w1", "w3"], down: "w2" },
        ..names::LLAMA.moe
    },
    ..names::LLAMA
};
/// Base of the rotation if the configuration has none, as in transformers.
const DEFAULT_THETA: f64 = 5_000_000.0;

fn parse(config: &ModelConfig) -> Result<DecoderSpec> {
    published(config)?;
    // Where it is missing it is not what follows from the other sizes.
    config.usize("head_dim")?;
    let plain = DecoderSpec::with_keys(config, &Keys::LLAMA)?;
    // The product with `head_dim` is rounded down: half an element keeps it from falling below.
    let part = |rotary: usize| if rotary < plain.head_dim { rotary as f64 + 0.5 } else { rotary as f64 };
    let rotary = config.opt_usize("rotary_dim")?.map_or(1.0, |rotary| part(rotary) / plain.head_dim as f64);
    let rope = RopeDefaults { theta: DEFAULT_THETA, partial: Some(rotary), ..RopeDefaults::LLAMA };
    Ok(DecoderSpec {
        qk_norm: Some(NormSpec { whole: true, ..NormSpec::of_heads(plain.rms_norm_eps) }),
        moe: Some(MoeSpec {
            num_experts: one_of(config, &["num_local_experts", "num_experts"])?,
            num_experts_per_tok: config.usize("num_experts_per_tok")?,
            intermediate_size: plain.intermediate_size,
            scoring: Scoring::Sigmoid,
            ..MoeSpec::softmax()
        }),
        ropes: vec![RopeSpec::parse(config, plain.head_dim, rope)?],
        layers: vec![LayerSpec { moe: true, ..LayerSpec::default() }; plain.num_hidden_layers],
        names: NAMES,
        ..plain
    })
}

/// Refuses settings of the published code that transformers does not read, for other models.
fn published(config: &ModelConfig) -> Result<()> {
    only_str(config, "scoring_func", "sigmoid")?;
    only_str(config, "qk_norm_type", "per_layer")?;
    only(config, "use_qk_norm", true)?;
    only(config, "use_routing_bias", true)?;
    const KINDS: &str = "attn_type_list";
    if config.opt_usizes(KINDS)?.is_some_and(|kinds| kinds.iter().any(|&kind| kind != 1)) {
        return Err(config.unsupported(KINDS, "1, softmax attention, for all layers"));
    }
    const SHARED: &str = "shared_intermediate_size";
    match config.opt_usize(SHARED)? {
        None | Some(0) => Ok(()),
        Some(_) => Err(config.unsupported(SHARED, "0, no shared expert")),
    }
}

/// Whether the weights of experts are divided by their sum; files need not say.
const NORM: &str = "expert_weights_norm";

fn gguf_fields(keys: &gguf::Keys<'_>, config: &mut gguf::Config) -> Result<()> {
    gguf::sigmoid(keys)?;
    if keys.opt_bool(NORM)? == Some(false) {
        return Err(keys.unsupported(NORM, "true"));
    }
    gguf::extend(
        config,
        json!({
            "num_local_experts": keys.u64("expert_count")?,
            "num_experts_per_tok": keys.u64("expert_used_count")?,
            "intermediate_size": gguf::expert_size(keys, gguf::EXPERT_SIZE)?,
        }),
    );
    gguf::value_length(keys, config)
}
