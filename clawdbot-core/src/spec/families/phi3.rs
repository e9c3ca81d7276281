//! Phi-3 and Phi-4: Llama with joined projections; maybe only part of each head is rotated.
//! Source: transformers 5, `models/phi3/configuration_phi3.py` and `modeling_phi3.py`.

use super::llama::Keys;
use super::{Family, Window, architecture, windows};
use crate::error::Result;
use crate::spec::DecoderSpec;
use crate::spec::config::ModelConfig;
use crate::spec::gguf::GgufFamily;
use crate::spec::names::{self, MlpModules, Names};
use crate::spec::rope_scaling::{RopeDefaults, RopeSpec};

pub(super) const FAMILY: Family = Family {
    architectures: &[architecture("Phi3ForCausalLM", "phi3", parse)],
    gguf: &[GgufFamily {
        name: "phi3",
        architecture: "Phi3ForCausalLM",
        windowed: Some("Phi3ForCausalLM"),
        partial: true,
        ..GgufFamily::PLAIN
    }],
};

const NAMES: Names = Names {
    qkv: &["self_attn.qkv_proj"],
    mlp: MlpModules { gate_up: &["mlp.gate_up_proj"], down: "mlp.down_proj" },
    ..names::LLAMA
};

fn parse(config: &ModelConfig) -> Result<DecoderSpec> {
    let plain = DecoderSpec::with_keys(config, &Keys::LLAMA)?;
    let rope = RopeDefaults { partial: Some(1.0), ..RopeDefaults::LLAMA };
    // Without the key there is no window in this family.
    let window = config.opt_usize("sliding_window")?;
    let expected = "an integer, as layer_types has windows";
    Ok(DecoderSpec {
        ropes: vec![RopeSpec::parse(config, plain.head_dim, rope)?],
        layers: windows(config, plain.num_hidden_layers, Window { size: window, expected }, |_| true)?,
        names: NAMES,
        ..plain
    })
}
