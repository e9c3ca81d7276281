//! Llama 4, text: layers that rotate see their chunk alone and norm rotated queries and keys; the others see everything,
//! without a rotation, and their queries grow. The weight of an expert multiplies its input.
//! Source: transformers 5, `models/llama4/configuration_llama4.py` and `modeling_llama4.py`.

use serde_json::{Value, json};

use super::llama::Keys;
use super::{Family, architecture, layer_types, text_of};
use crate::error::Result;
use crate::spec::config::ModelConfig;
use crate::spec::gguf::{self, GgufFamily};
use crate::spec::names::{self, MlpModules, MoeModules, Names};
use crate::spec::rope_scaling::{QueryGrowth, RopeDefaults, RopeSpec};
use crate::spec::{DecoderSpec, ExpertStorage, LayerSpec, MoeSpec, NormSpec, Scoring, SharedExpert};

pub(super) const FAMILY: Family = Family {
    architectures: &[
        architecture("Llama4ForCausalLM", "llama4_text", parse),
        text_of("Llama4ForConditionalGeneration", "llama4", parse),
    ],
    gguf: &[GgufFamily {
        name: "llama4",
        architecture: "Llama4ForCausalLM",
        names: GGUF_NAMES,
        keys: &[gguf::EXPERT_SIZE, "interleave_moe_layer_step"],
        fields: gguf_fields,
        ..GgufFamily::PLAIN
    }],
};

const NAMES: Names = Names {
    mlp: MlpModules {
        gate_up: &["feed_forward.gate_proj", "feed_forward.up_proj"],
        down: "feed_forward.down_proj",
    },
    moe: MoeModules {
        router: "feed_forward.router",
        experts: "feed_forward.experts",
        joined: ["feed_forward.experts.gate_up_proj", "feed_forward.experts.down_proj"],
        shared: MlpModules {
            gate_up: &["feed_forward.shared_expert.gate_proj", "feed_forward.shared_expert.up_proj"],
            down: "feed_forward.shared_expert.down_proj",
        },
        ..names::LLAMA.moe
    },
    ..names::LLAMA
};
/// Defaults of transformers.
const DEFAULT_THETA: f64 = 500_000.0;
const DEFAULT_UNROTATED: usize = 4;
const DEFAULT_CHUNK: usize = 8192;
const DEFAULT_FLOOR: usize = 8192;
const DEFAULT_GROWTH: f32 = 0.1;

fn parse(config: &ModelConfig) -> Result<DecoderSpec> {
    // The defaults of both are those of one model.
    config.usize("head_dim")?;
    config.usize("num_key_value_heads")?;
    // `intermediate_size` is that of experts.
    let keys = Keys { intermediate_size: &["intermediate_size_mlp"], ..Keys::LLAMA };
    let plain = DecoderSpec::with_keys(config, &keys)?;
    let rope = RopeDefaults { theta: DEFAULT_THETA, ..RopeDefaults::LLAMA };
    let rope = RopeSpec::parse(config, plain.head_dim, rope)?;
    let bias = config.bool_or("attention_bias", false)?;
    let norm = NormSpec { rotated: true, gains: false, ..NormSpec::of_heads(plain.rms_norm_eps) };
    let mut ropes = vec![RopeSpec { interleaved: true, ..rope }];
    ropes.extend(growth(config)?.map(RopeSpec::growth_alone));
    Ok(DecoderSpec {
        qk_norm: config.bool_or("use_qk_norm", true)?.then_some(norm),
        qkv_bias: bias,
        o_bias: bias,
        moe: Some(experts(config)?),
        layers: layers(config, plain.num_hidden_layers, (ropes.len() > 1).then_some(1))?,
        ropes,
        names: NAMES,
        ..plain
    })
}

/// How queries of layers without a rotation grow.
fn growth(config: &ModelConfig) -> Result<Option<QueryGrowth>> {
    let length = config.opt_usize("floor_scale")?.unwrap_or(DEFAULT_FLOOR);
    let beta = config.opt_f32("attn_scale")?.unwrap_or(DEFAULT_GROWTH);
    // A number in the first checkpoints.
    let tuned = match config.get("attn_temperature_tuning").and_then(Value::as_u64) {
        Some(number) => number > 0,
        None => config.bool_or("attn_temperature_tuning", true)?,
    };
    if !tuned {
        return Ok(None);
    }
    if length == 0 {
        return Err(config.invalid("floor_scale", "a positive integer"));
    }
    if !(0.0..=100.0).contains(&beta) {
        return Err(config.invalid("attn_scale", "a number from 0 to 100"));
    }
    Ok(Some(QueryGrowth { beta, length, first: 1 }))
}

/// The layers; those without a rotation have `unrotated` instead.
fn layers(config: &ModelConfig, count: usize, unrotated: Option<usize>) -> Result<Vec<LayerSpec>> {
    let chunk = match config.has("attention_chunk_size") {
        true => config.opt_usize("attention_chunk_size")?,
        false => Some(DEFAULT_CHUNK),
    };
    if chunk == Some(0) {
        return Err(config.invalid("attention_chunk_size", "a positive integer"));
    }
    let interval = config.opt_usize("no_rope_layer_interval")?.unwrap_or(DEFAULT_UNROTATED);
    if interval == 0 {
        return Err(config.invalid("no_rope_layer_interval", "a positive integer"));
    }
    let marks = config.opt_usizes("no_rope_layers")?.filter(|marks| !marks.is_empty());
    if marks.as_ref().is_some_and(|marks| marks.len() < count) {
        return Err(config.invalid("no_rope_layers", &format!("at least {count} numbers, one per layer")));
    }
    let types = layer_types(config, count, &["full_attention", "chunked_attention"])?;
    let moe_layers = config.opt_usizes("moe_layers")?;
    let step = config.opt_usize("interleave_moe_layer_step")?.unwrap_or(1);
    if step == 0 {
        return Err(config.invalid("interleave_moe_layer_step", "a positive integer"));
    }
    let layer = |index: usize| {
        let rotated = marks.as_ref().map_or(!(index + 1).is_multiple_of(interval), |marks| marks[index] != 0);
        let chunked = types.as_ref().map_or(rotated, |types| types[index] == "chunked_attention");
        let window = chunk.filter(|_| chunked);
        LayerSpec {
            window,
            chunked: window.is_some(),
            rope: if rotated { Some(0) } else { unrotated },
            qk_norm: rotated,
            moe: moe_layers
                .as_ref()
                .map_or((index + 1).is_multiple_of(step), |layers| layers.contains(&index)),
            ..LayerSpec::default()
        }
    };
    Ok((0..count).map(layer).collect())
}

fn experts(config: &ModelConfig) -> Result<MoeSpec> {
    let intermediate_size = config.usize("intermediate_size")?;
    Ok(MoeSpec {
        num_experts: config.usize("num_local_experts")?,
        num_experts_per_tok: config.opt_usize("num_experts_per_tok")?.unwrap_or(1),
        intermediate_size,
        scoring: Scoring::SigmoidOfLargest,
        norm_topk_prob: false,
        scaled_input: true,
        shared: Some(SharedExpert { intermediate_size, gated: false }),
        storage: ExpertStorage::JoinedColumns,
        ..MoeSpec::softmax()
    })
}

/// Names of modules in GGUF files.
const GGUF_NAMES: &[(&str, &str)] = &[
    ("feed_forward.gate_proj", "ffn_gate"),
    ("feed_forward.up_proj", "ffn_up"),
    ("feed_forward.down_proj", "ffn_down"),
    ("feed_forward.router", "ffn_gate_inp"),
    ("feed_forward.shared_expert.gate_proj", "ffn_gate_shexp"),
    ("feed_forward.shared_expert.up_proj", "ffn_up_shexp"),
    ("feed_forward.shared_expert.down_proj", "ffn_down_shexp"),
];
/// Experts of the model without norms on heads (Maverick).
const UNNORMED_EXPERTS: u64 = 128;

/// Files do not say which layers rotate, the size of chunks, or how queries grow: as in the published models.
fn gguf_fields(keys: &gguf::Keys<'_>, config: &mut gguf::Config) -> Result<()> {
    let experts = keys.u64("expert_count")?;
    let dense = config["intermediate_size"].clone();
    gguf::extend(
        config,
        json!({
            "intermediate_size": keys.u64(gguf::EXPERT_SIZE)?,
            "intermediate_size_mlp": dense,
            "interleave_moe_layer_step": keys.u64("interleave_moe_layer_step")?,
            "num_local_experts": experts,
            "num_experts_per_tok": keys.u64("expert_used_count")?,
            "use_qk_norm": experts != UNNORMED_EXPERTS,
        }),
    );
    gguf::value_length(keys, config)
}
