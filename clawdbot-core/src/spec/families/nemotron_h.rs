//! Nemotron-H, Nemotron Nano 2 and Nemotron 3 Nano: Mamba-2 on most layers, attention without rotation on a few, and MLPs or
//! experts, both without gates, after some of them. Checkpoints count each of these as a layer; here an MLP belongs to the
//! layer before it.
//! Source: transformers 5, `models/nemotron_h/configuration_nemotron_h.py` and `modeling_nemotron_h.py`. It bounds the steps of
//! Mamba-2 by `time_step_min` where it computes several tokens at once, but not where it continues a text; here nothing does.

use serde_json::json;

use super::deepseek_v3::groups;
use super::granite::unlimited_steps;
use super::llama::Keys;
use super::{Family, architecture, one_of, only, only_str};
use crate::error::Result;
use crate::spec::config::ModelConfig;
use crate::spec::gguf::{self, GgufFamily};
use crate::spec::mixers::attention::Attention;
use crate::spec::mixers::mamba::MambaSpec;
use crate::spec::names::{self, MambaModules, MlpModules, MoeModules, Names};
use crate::spec::{AttentionSpec, DecoderSpec, Halves, LayerSpec, MixerSpec, MoeSpec, Scoring, SharedExpert};

pub(super) const FAMILY: Family = Family {
    architectures: &[architecture("NemotronHForCausalLM", "nemotron_h", parse)],
    gguf: &[
        GgufFamily { name: "nemotron_h", fields: gguf_dense, ..GGUF },
        GgufFamily {
            name: "nemotron_h_moe",
            keys: &[
                gguf::EXPERT_SIZE,
                gguf::SHARED_SIZE,
                gguf::GATING,
                "expert_shared_count",
                "expert_weights_norm",
                "expert_weights_scale",
                "expert_group_count",
                "expert_group_used_count",
                "moe_latent_size",
                "ssm.conv_kernel",
                "ssm.inner_size",
                "ssm.state_size",
                "ssm.time_step_rank",
                "ssm.group_count",
            ],
            fields: gguf_experts,
            ..GGUF
        },
    ],
};

const GGUF: GgufFamily = GgufFamily {
    architecture: "NemotronHForCausalLM",
    partial: true,
    uneven: true,
    eps: ("attention.layer_norm_rms_epsilon", "layer_norm_epsilon"),
    names: &[
        ("backbone.embeddings", "token_embd"),
        ("backbone.norm_f", "output_norm"),
        ("norm", "attn_norm"),
        ("mixer.in_proj", "ssm_in"),
        ("mixer.conv1d", "ssm_conv1d"),
        ("mixer.out_proj", "ssm_out"),
        ("mixer.q_proj", "attn_q"),
        ("mixer.k_proj", "attn_k"),
        ("mixer.v_proj", "attn_v"),
        ("mixer.o_proj", "attn_output"),
        ("mixer.up_proj", "ffn_up"),
        ("mixer.down_proj", "ffn_down"),
        ("mixer.gate", "ffn_gate_inp"),
        ("mixer.shared_experts.up_proj", "ffn_up_shexp"),
        ("mixer.shared_experts.down_proj", "ffn_down_shexp"),
    ],
    keys: &["ssm.conv_kernel", "ssm.inner_size", "ssm.state_size", "ssm.time_step_rank", "ssm.group_count"],
    ..GgufFamily::PLAIN
};

const NAMES: Names = Names {
    layers: "backbone.layers",
    embedding: "backbone.embeddings",
    input_norm: Some("norm"),
    mlp_norm: Some("norm"),
    final_norm: Some("backbone.norm_f"),
    qkv: &["mixer.q_proj", "mixer.k_proj", "mixer.v_proj"],
    o: "mixer.o_proj",
    mamba: MambaModules { mixer: "mixer", output: "mixer.out_proj" },
    mlp: MlpModules { gate_up: &["mixer.up_proj"], down: "mixer.down_proj" },
    moe: MoeModules {
        router: "mixer.gate",
        correction: "mixer.gate.e_score_correction_bias",
        experts: "mixer.experts",
        expert: MlpModules { gate_up: &["up_proj"], down: "down_proj" },
        shared: MlpModules {
            gate_up: &["mixer.shared_experts.up_proj"],
            down: "mixer.shared_experts.down_proj",
        },
        ..names::LLAMA.moe
    },
    ..names::LLAMA
};
const KEYS: Keys = Keys { eps: "layer_norm_epsilon", activation: Some("mlp_hidden_act"), ..Keys::LLAMA };
/// Settings of experts, for models without any.
const OF_EXPERTS: &[&str] = &[
    "moe_intermediate_size",
    "moe_latent_size",
    "moe_shared_expert_intermediate_size",
    "moe_shared_expert_overlap",
    "n_group",
    "n_routed_experts",
    "n_shared_experts",
    "norm_topk_prob",
    "num_experts_per_tok",
    "routed_scaling_factor",
    "topk_group",
];

fn parse(config: &ModelConfig) -> Result<DecoderSpec> {
    for key in ["mamba_proj_bias", "use_bias", "attention_bias"] {
        only(config, key, false)?;
    }
    only_str(config, "mamba_hidden_act", "silu")?;
    unlimited_steps(config)?;
    const WINDOW: &str = "sliding_window";
    if config.opt_usize(WINDOW)?.is_some() {
        return Err(config.unsupported(WINDOW, "null"));
    }
    let mamba = MambaSpec {
        kernel_size: one_of(config, &["conv_kernel", "mamba_d_conv"])?,
        conv_bias: config.bool_or("use_conv_bias", true)?,
        num_heads: config.usize("mamba_num_heads")?,
        head_dim: config.usize("mamba_head_dim")?,
        num_groups: one_of(config, &["n_groups", "mamba_n_groups"])?,
        state_size: config.usize("ssm_state_size")?,
    };
    let layers = layers(config, mamba)?;
    // Where it is missing it is not what follows from the other sizes.
    config.usize("num_key_value_heads")?;
    let plain = DecoderSpec::with_layers(config, &KEYS, layers.len())?;
    let head_dim = one_of(config, &["head_dim", "attention_head_dim"])?;
    let mlp_bias = config.bool_or("mlp_bias", false)?;
    let moe = match layers.iter().any(|layer| layer.moe) {
        true if mlp_bias => return Err(config.unsupported("mlp_bias", "false, as there are experts")),
        true => Some(experts(config)?),
        false => {
            // Marks the keys as read.
            OF_EXPERTS.iter().for_each(|key| _ = config.has(key));
            None
        }
    };
    Ok(DecoderSpec {
        head_dim,
        mlp_bias,
        moe,
        mlp_gate: false,
        attention: AttentionSpec::of_width(head_dim as f64),
        layers,
        names: NAMES,
        ..plain
    })
}

fn experts(config: &ModelConfig) -> Result<MoeSpec> {
    const SHARED: &str = "n_shared_experts";
    if config.opt_usize(SHARED)? == Some(0) {
        return Err(config.unsupported(SHARED, "a shared expert"));
    }
    const LATENT: &str = "moe_latent_size";
    if config.opt_usize(LATENT)?.is_some() {
        return Err(config.unsupported(LATENT, "null, experts of the size of the model"));
    }
    // How the two kinds are computed at once.
    config.has("moe_shared_expert_overlap");
    let shared = config.usize("moe_shared_expert_intermediate_size")?;
    Ok(MoeSpec {
        num_experts: config.usize("n_routed_experts")?,
        num_experts_per_tok: config.usize("num_experts_per_tok")?,
        intermediate_size: config.usize("moe_intermediate_size")?,
        scoring: Scoring::Sigmoid,
        norm_topk_prob: config.bool_or("norm_topk_prob", true)?,
        routed_scaling_factor: config.opt_f32("routed_scaling_factor")?.unwrap_or(1.0),
        groups: groups(config)?,
        gate: false,
        shared: Some(SharedExpert { intermediate_size: shared, gated: false }),
        ..MoeSpec::softmax()
    })
}

/// What checkpoints count as a layer.
#[derive(Clone, Copy)]
enum Block {
    Mixer(MixerSpec),
    Mlp,
    Experts,
}

/// The layers, each with the MLP that follows it, if one does.
fn layers(config: &ModelConfig, mamba: MambaSpec) -> Result<Vec<LayerSpec>> {
    // The list is the newer notation, and counts if there are both.
    let (key, blocks) = match config.opt_strings("layers_block_type")? {
        Some(kinds) => {
            config.has("hybrid_override_pattern");
            ("layers_block_type", kinds.iter().map(|kind| block(kind, mamba)).collect::<Option<Vec<_>>>())
        }
        None => {
            let pattern = config.str("hybrid_override_pattern")?;
            let kinds = pattern.char_indices().map(|(at, kind)| &pattern[at..at + kind.len_utf8()]);
            ("hybrid_override_pattern", kinds.map(|kind| block(kind, mamba)).collect())
        }
    };
    let Some(blocks) = blocks else {
        return Err(config.unsupported(key, "Mamba, attention, MLPs and experts alone"));
    };
    if config.opt_usize("num_hidden_layers")?.is_some_and(|count| count != blocks.len()) {
        return Err(config.invalid("num_hidden_layers", &format!("{}, as {key} has", blocks.len())));
    }
    let mut layers: Vec<LayerSpec> = Vec::new();
    for (number, block) in blocks.into_iter().enumerate() {
        match block {
            Block::Mixer(mixer) => {
                let halves = Some(Halves { mixer: number, mlp: None });
                layers.push(LayerSpec { rope: None, mixer, halves, ..LayerSpec::default() });
            }
            Block::Mlp | Block::Experts => match layers.last_mut() {
                Some(LayerSpec { halves: Some(Halves { mlp: mlp @ None, .. }), moe, .. }) => {
                    *mlp = Some(number);
                    *moe = matches!(block, Block::Experts);
                }
                _ => return Err(config.unsupported(key, "another kind before each MLP")),
            },
        }
    }
    Ok(layers)
}

/// A block by its name in `layers_block_type`, in transformers 5 or 4, or by its sign in `hybrid_override_pattern`.
fn block(kind: &str, mamba: MambaSpec) -> Option<Block> {
    match kind {
        "linear_attention" | "mamba" | "M" => Some(Block::Mixer(MixerSpec::Mamba(mamba))),
        "full_attention" | "attention" | "*" => Some(Block::Mixer(MixerSpec::Attention(Attention))),
        "mlp" | "-" => Some(Block::Mlp),
        "moe" | "E" => Some(Block::Experts),
        _ => None,
    }
}

fn gguf_dense(keys: &gguf::Keys<'_>, config: &mut gguf::Config) -> Result<()> {
    gguf_blocks(keys, config, "mlp")?;
    gguf::dense(keys, config)
}

fn gguf_experts(keys: &gguf::Keys<'_>, config: &mut gguf::Config) -> Result<()> {
    gguf::sigmoid(keys)?;
    gguf_blocks(keys, config, "moe")?;
    let groups = keys.opt_u64("expert_group_count")?.unwrap_or(1);
    let used = match keys.opt_u64("expert_group_used_count")? {
        None if groups == 1 => 1,
        None => keys.u64("expert_group_used_count")?,
        Some(used) => used,
    };
    gguf::extend(
        config,
        json!({
            "n_routed_experts": keys.u64("expert_count")?,
            "num_experts_per_tok": keys.u64("expert_used_count")?,
            "n_shared_experts": keys.u64("expert_shared_count")?,
            "moe_intermediate_size": keys.u64(gguf::EXPERT_SIZE)?,
            "moe_shared_expert_intermediate_size": keys.u64(gguf::SHARED_SIZE)?,
            "moe_latent_size": keys.opt_u64("moe_latent_size")?.filter(|&size| size > 0),
            "norm_topk_prob": keys.opt_bool("expert_weights_norm")?.unwrap_or(false),
            "routed_scaling_factor": keys.opt_f64("expert_weights_scale")?.unwrap_or(1.0),
            "n_group": groups,
            "topk_group": used,
        }),
    );
    gguf::value_length(keys, config)
}

/// What each block is, and the sizes of all; `second`: the kind of blocks with a feed-forward size.
fn gguf_blocks(keys: &gguf::Keys<'_>, config: &mut gguf::Config, second: &str) -> Result<()> {
    const HEADS: &str = "attention.head_count_kv";
    const INNER: &str = "ssm.inner_size";
    let count = keys.u64("block_count")?;
    let of_blocks = |key: &str| match keys.per_layer(key)? {
        Some(numbers) if numbers.len() as u64 == count => Ok(numbers),
        _ => Err(keys.invalid(key, "one integer for each layer")),
    };
    let (heads, sizes) = (of_blocks(HEADS)?, of_blocks(gguf::FEED_FORWARD)?);
    let kind = |(&heads, &size): (&u64, &u64)| match (heads, size) {
        (0, 0) => Ok("mamba"),
        (_, 0) => Ok("attention"),
        (0, _) => Ok(second),
        _ => Err(keys.unsupported(gguf::FEED_FORWARD, "0 for layers with attention")),
    };
    let kinds = heads.iter().zip(&sizes).map(kind).collect::<Result<Vec<_>>>()?;
    let size = sizes.iter().copied().max().unwrap_or(0);
    if sizes.iter().any(|&other| other != 0 && other != size) {
        return Err(keys.unsupported(gguf::FEED_FORWARD, "the same for all MLPs"));
    }
    let (inner, heads) = (keys.u64(INNER)?, keys.u64("ssm.time_step_rank")?);
    if heads == 0 || !inner.is_multiple_of(heads) {
        return Err(keys.invalid(INNER, &format!("a multiple of ssm.time_step_rank, which is {heads}")));
    }
    gguf::extend(
        config,
        json!({
            "layers_block_type": kinds,
            "intermediate_size": size.max(1),
            "mlp_hidden_act": "relu2",
            "mlp_bias": keys.some(".ffn_up.bias"),
            "conv_kernel": keys.u64("ssm.conv_kernel")?,
            "ssm_state_size": keys.u64("ssm.state_size")?,
            "n_groups": keys.u64("ssm.group_count")?,
            "mamba_num_heads": heads,
            "mamba_head_dim": inner / heads,
            "use_conv_bias": keys.some(".ssm_conv1d.bias"),
        }),
    );
    Ok(())
}
