//! Qwen3.5 and 3.6, dense and with experts: Qwen3-Next with separately stored projections of DeltaNet layers. The three
//! sections of a rotation have the same positions for text.
//! Source: transformers 5, `models/qwen3_5/` and `models/qwen3_5_moe/`.

use super::llama::Keys;
use super::qwen3_next::{gguf_delta_nets, with_delta_nets, with_shared_expert};
use super::{Family, architecture, text_of};
use crate::error::Result;
use crate::spec::DecoderSpec;
use crate::spec::config::ModelConfig;
use crate::spec::gguf::{self, GgufFamily};
use crate::spec::mixers::delta_net::DeltaStorage;

pub(super) const FAMILY: Family = Family {
    architectures: &[
        architecture("Qwen3_5ForCausalLM", "qwen3_5_text", parse),
        text_of("Qwen3_5ForConditionalGeneration", "qwen3_5", parse),
        architecture("Qwen3_5MoeForCausalLM", "qwen3_5_moe_text", parse_moe),
        text_of("Qwen3_5MoeForConditionalGeneration", "qwen3_5_moe", parse_moe),
    ],
    gguf: &[
        GgufFamily {
            name: "qwen35",
            architecture: "Qwen3_5ForCausalLM",
            keys: &[
                gguf::PREDICTING_LAYERS,
                "attention.recurrent_layers",
                "rope.dimension_sections",
                "full_attention_interval",
                "ssm.conv_kernel",
                "ssm.inner_size",
                "ssm.state_size",
                "ssm.time_step_rank",
                "ssm.group_count",
            ],
            fields: gguf_dense,
            ..super::qwen3_next::GGUF
        },
        GgufFamily {
            name: "qwen35moe",
            architecture: "Qwen3_5MoeForCausalLM",
            keys: &[
                gguf::PREDICTING_LAYERS,
                gguf::EXPERT_SIZE,
                gguf::SHARED_SIZE,
                "expert_weights_norm",
                "attention.recurrent_layers",
                "rope.dimension_sections",
                "full_attention_interval",
                "ssm.conv_kernel",
                "ssm.inner_size",
                "ssm.state_size",
                "ssm.time_step_rank",
                "ssm.group_count",
            ],
            fields: gguf_moe,
            ..super::qwen3_next::GGUF
        },
    ],
};

fn parse(config: &ModelConfig) -> Result<DecoderSpec> {
    with_delta_nets(config, &Keys::LLAMA, DeltaStorage::Apart)
}

fn parse_moe(config: &ModelConfig) -> Result<DecoderSpec> {
    // There are no dense layers.
    let keys = Keys { intermediate_size: &["moe_intermediate_size"], ..Keys::LLAMA };
    with_shared_expert(config, with_delta_nets(config, &keys, DeltaStorage::Apart)?)
}

fn gguf_dense(keys: &gguf::Keys<'_>, config: &mut gguf::Config) -> Result<()> {
    gguf_tiled_delta_nets(keys, config)?;
    gguf::dense(keys, config)
}

fn gguf_moe(keys: &gguf::Keys<'_>, config: &mut gguf::Config) -> Result<()> {
    gguf_tiled_delta_nets(keys, config)?;
    gguf::shared_experts(keys, config)
}

/// DeltaNet layers whose value heads are stored in turn for all key heads.
fn gguf_tiled_delta_nets(keys: &gguf::Keys<'_>, config: &mut gguf::Config) -> Result<()> {
    gguf_delta_nets(keys, config)?;
    config.insert("linear_value_heads_tiled".to_owned(), true.into());
    if let Some(marks) = keys.per_layer("attention.recurrent_layers")? {
        let kind = |mark: &u64| if *mark == 0 { "full_attention" } else { "linear_attention" };
        // Layers for multi-token prediction come after the others.
        let layers = config["num_hidden_layers"].as_u64().unwrap_or_default();
        let layers = usize::try_from(layers).unwrap_or(usize::MAX);
        config.insert("layer_types".to_owned(), marks.iter().take(layers).map(kind).collect());
    }
    Ok(())
}
