//! Granite: Llama with multipliers on the embedding, on attention scores, on additions to the residual stream, and on
//! logits. Granite 4: Mamba-2 on most layers, attention without rotation on the others, and maybe experts with a shared
//! one.
//! Source: transformers 5, `models/granite/` and `models/granitemoehybrid/`.

use serde_json::json;

use super::llama::{self, Keys};
use super::{Family, architecture, layer_types_of, only};
use crate::error::Result;
use crate::spec::config::ModelConfig;
use crate::spec::gguf::{self, GgufFamily};
use crate::spec::mixers::attention::Attention;
use crate::spec::mixers::mamba::MambaSpec;
use crate::spec::names::{self, MlpModules, MoeModules, Names};
use crate::spec::rope_scaling::{RopeDefaults, RopeSpec};
use crate::spec::{AttentionSpec, DecoderSpec, ExpertStorage, LayerSpec, MixerSpec, MoeSpec, SharedExpert};

pub(super) const FAMILY: Family = Family {
    architectures: &[
        architecture("GraniteForCausalLM", "granite", parse),
        architecture("GraniteMoeHybridForCausalLM", "granitemoehybrid", parse_hybrid),
    ],
    gguf: &[
        GgufFamily {
            name: "granite",
            architecture: "GraniteForCausalLM",
            pairs: true,
            keys: &["attention.scale", "embedding_scale", "residual_scale", "logit_scale"],
            fields: gguf_granite,
            ..GgufFamily::PLAIN
        },
        GgufFamily {
            name: "granitehybrid",
            architecture: "GraniteMoeHybridForCausalLM",
            pairs: true,
            names: &[("block_sparse_moe.router.layer", "ffn_gate_inp")],
            keys: &[
                gguf::SHARED_SIZE,
                "attention.scale",
                "embedding_scale",
                "residual_scale",
                "logit_scale",
                "ssm.conv_kernel",
                "ssm.inner_size",
                "ssm.state_size",
                "ssm.time_step_rank",
                "ssm.group_count",
            ],
            fields: gguf_hybrid,
            ..GgufFamily::PLAIN
        },
    ],
};

const SHARED: MlpModules =
    MlpModules { gate_up: &["shared_mlp.input_linear"], down: "shared_mlp.output_linear" };
const HYBRID: Names = Names {
    mlp: SHARED,
    moe: MoeModules {
        router: "block_sparse_moe.router.layer",
        experts: "block_sparse_moe.experts",
        joined: ["block_sparse_moe.input_linear.weight", "block_sparse_moe.output_linear.weight"],
        shared: SHARED,
        ..names::LLAMA.moe
    },
    ..names::LLAMA
};

fn parse(config: &ModelConfig) -> Result<DecoderSpec> {
    with_multipliers(config, llama::parse(config)?)
}

fn parse_hybrid(config: &ModelConfig) -> Result<DecoderSpec> {
    only(config, "mamba_proj_bias", false)?;
    let experts = config.usize("num_local_experts")?;
    let shared = config.usize("shared_intermediate_size")?;
    let keys = Keys { intermediate_size: &["shared_intermediate_size"], ..Keys::LLAMA };
    let plain = DecoderSpec::with_keys(config, &keys)?;
    let bias = config.bool_or("attention_bias", false)?;
    let rotated = match config.opt_str("position_embedding_type")? {
        Some("rope") => true,
        None | Some("nope") => false,
        Some(_) => return Err(config.unsupported("position_embedding_type", "rope, nope or null")),
    };
    let moe = MoeSpec {
        num_experts: experts,
        num_experts_per_tok: config.opt_usize("num_experts_per_tok")?.unwrap_or(0),
        intermediate_size: config.opt_usize("intermediate_size")?.unwrap_or(0),
        shared: Some(SharedExpert { intermediate_size: shared, gated: false }),
        storage: ExpertStorage::JoinedRows,
        // Softmax over the selected experts.
        ..MoeSpec::softmax()
    };
    let layer = LayerSpec {
        rope: rotated.then_some(0),
        moe: experts > 0,
        mixer: MixerSpec::Mamba(mamba(config, plain.hidden_size)?),
        ..LayerSpec::default()
    };
    let hybrid = DecoderSpec {
        qkv_bias: bias,
        o_bias: bias,
        moe: Some(moe).filter(|_| experts > 0),
        ropes: match rotated {
            true => vec![RopeSpec::parse(config, plain.head_dim, RopeDefaults::LLAMA)?],
            false => Vec::new(),
        },
        layers: layers(config, plain.num_hidden_layers, layer)?,
        names: HYBRID,
        ..plain
    };
    with_multipliers(config, hybrid)
}

fn with_multipliers(config: &ModelConfig, plain: DecoderSpec) -> Result<DecoderSpec> {
    let factor = |key: &str| match config.opt_f32(key)? {
        None => Ok(1.0),
        Some(factor) if factor > 0.0 => Ok(factor),
        Some(_) => Err(config.invalid(key, "a number > 0")),
    };
    Ok(DecoderSpec {
        attention: AttentionSpec { divisor: 1.0 / factor("attention_multiplier")?, ..plain.attention },
        embedding_multiplier: factor("embedding_multiplier")?,
        residual_multiplier: factor("residual_multiplier")?,
        logit_scale: 1.0 / factor("logits_scaling")?,
        ..plain
    })
}

/// `recurrent` on all layers, unless `layer_types` says otherwise.
fn layers(config: &ModelConfig, count: usize, recurrent: LayerSpec) -> Result<Vec<LayerSpec>> {
    // The list's name and values in transformers 5 and 4.
    const LISTS: [&str; 2] = ["layer_types", "layers_block_type"];
    let list = LISTS.into_iter().find(|key| config.get(key).is_some()).unwrap_or(LISTS[0]);
    let kinds = ["linear_attention", "mamba", "full_attention", "attention"];
    let attention = LayerSpec { mixer: MixerSpec::Attention(Attention), ..recurrent };
    let layer = |kind: &str| if kinds[2..].contains(&kind) { attention } else { recurrent };
    Ok(match layer_types_of(config, count, list, &kinds)? {
        Some(types) => types.into_iter().map(layer).collect(),
        None => vec![recurrent; count],
    })
}

/// Refuses bounds of the steps of Mamba-2.
pub(super) fn unlimited_steps(config: &ModelConfig) -> Result<()> {
    const LIMIT: &str = "time_step_limit";
    let unlimited = json!([0.0, {"__float__": "Infinity"}]);
    match config.get(LIMIT) {
        Some(limit) if *limit != unlimited => Err(config.unsupported(LIMIT, "no limit")),
        _ => Ok(()),
    }
}

fn mamba(config: &ModelConfig, hidden_size: usize) -> Result<MambaSpec> {
    unlimited_steps(config)?;
    let size = |key: &str, default: usize| -> Result<usize> { Ok(config.opt_usize(key)?.unwrap_or(default)) };
    let num_heads = size("mamba_n_heads", 128)?;
    let inner = size("mamba_expand", 2)?.saturating_mul(hidden_size);
    let head_dim = match config.get("mamba_d_head").map(serde_json::Value::as_str) {
        None | Some(Some("auto")) => inner.checked_div(num_heads).unwrap_or(0),
        Some(_) => config.usize("mamba_d_head")?,
    };
    if head_dim.checked_mul(num_heads) != Some(inner) {
        let expected = format!("heads of {inner} elements together, mamba_expand * hidden_size");
        return Err(config.invalid("mamba_n_heads", &expected));
    }
    Ok(MambaSpec {
        kernel_size: size("mamba_d_conv", 4)?,
        conv_bias: config.bool_or("mamba_conv_bias", true)?,
        num_heads,
        head_dim,
        num_groups: size("mamba_n_groups", 1)?,
        state_size: size("mamba_d_state", 256)?,
    })
}

fn gguf_granite(keys: &gguf::Keys<'_>, config: &mut gguf::Config) -> Result<()> {
    gguf_multipliers(keys, config)?;
    gguf::dense(keys, config)
}

fn gguf_hybrid(keys: &gguf::Keys<'_>, config: &mut gguf::Config) -> Result<()> {
    const HEADS: &str = "attention.head_count_kv";
    const INNER: &str = "ssm.inner_size";
    let kv_heads = keys.per_layer(HEADS)?.unwrap_or_default();
    if kv_heads.len() as u64 != keys.u64("block_count")? {
        return Err(keys.invalid(HEADS, "one integer for each layer"));
    }
    let kinds = kv_heads.iter().map(|&heads| if heads == 0 { "mamba" } else { "attention" });
    let (inner, heads) = (keys.u64(INNER)?, keys.u64("ssm.time_step_rank")?);
    let hidden = keys.u64("embedding_length")?;
    for (name, divisor) in [("ssm.time_step_rank", heads), ("embedding_length", hidden)] {
        if divisor == 0 || !inner.is_multiple_of(divisor) {
            return Err(keys.invalid(INNER, &format!("a multiple of {name}, which is {divisor}")));
        }
    }
    let experts = keys.opt_u64("expert_count")?.unwrap_or(0);
    let shared = match keys.opt_u64(gguf::SHARED_SIZE)? {
        None if experts == 0 => config["intermediate_size"].clone(),
        None => keys.u64(gguf::SHARED_SIZE)?.into(),
        Some(size) => size.into(),
    };
    // Files have this key for models without rotation.
    let rotated = keys.opt_bool("rope.scaling.finetuned")?.unwrap_or(true);
    gguf::extend(
        config,
        json!({
            "layer_types": kinds.collect::<Vec<_>>(),
            "position_embedding_type": if rotated { "rope" } else { "nope" },
            "num_local_experts": experts,
            "num_experts_per_tok": keys.opt_u64("expert_used_count")?.unwrap_or(0),
            "shared_intermediate_size": shared,
            "mamba_d_conv": keys.u64("ssm.conv_kernel")?,
            "mamba_d_state": keys.u64("ssm.state_size")?,
            "mamba_n_groups": keys.u64("ssm.group_count")?,
            "mamba_n_heads": heads,
            "mamba_d_head": inner / heads,
            "mamba_expand": inner / hidden,
            "mamba_conv_bias": keys.some(".ssm_conv1d.bias"),
        }),
    );
    gguf_multipliers(keys, config)?;
    gguf::value_length(keys, config)
}

fn gguf_multipliers(keys: &gguf::Keys<'_>, config: &mut gguf::Config) -> Result<()> {
    for (key, field) in [
        ("attention.scale", "attention_multiplier"),
        ("embedding_scale", "embedding_multiplier"),
        ("residual_scale", "residual_multiplier"),
        ("logit_scale", "logits_scaling"),
    ] {
        let value = keys.opt_f64(key)?.ok_or_else(|| keys.invalid(key, "a number"))?;
        config.insert(field.to_owned(), value.into());
    }
    Ok(())
}
