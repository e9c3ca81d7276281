//! Mixtral: Mistral with experts instead of the MLP.
//! Source: transformers 5, `models/mixtral/configuration_mixtral.py` and `modeling_mixtral.py`.

use super::llama::Keys;
use super::{Family, architecture, one_of};
use crate::error::Result;
use crate::spec::config::ModelConfig;
use crate::spec::names::{self, MlpModules, MoeModules, Names};
use crate::spec::rope_scaling::{RopeDefaults, RopeSpec};
use crate::spec::{DecoderSpec, ExpertStorage, LayerSpec, MoeSpec, Scoring};

pub(super) const FAMILY: Family =
    Family { architectures: &[architecture("MixtralForCausalLM", "mixtral", parse)], gguf: &[] };

const NAMES: Names = Names {
    moe: MoeModules {
        router: "block_sparse_moe.gate",
        experts: "block_sparse_moe.experts",
        expert: MlpModules { gate_up: &["w1", "w3"], down: "w2" },
        ..names::LLAMA.moe
    },
    ..names::LLAMA
};

fn parse(config: &ModelConfig) -> Result<DecoderSpec> {
    let plain = DecoderSpec::with_keys(config, &Keys::LLAMA)?;
    // Without the key there is no window in this family.
    let window = config.opt_usize("sliding_window")?;
    let rope = RopeDefaults { theta: 1e6, ..RopeDefaults::LLAMA };
    Ok(DecoderSpec {
        moe: Some(MoeSpec {
            num_experts: one_of(config, &["num_local_experts", "num_experts"])?,
            num_experts_per_tok: config.usize("num_experts_per_tok")?,
            intermediate_size: plain.intermediate_size,
            ..MoeSpec::softmax()
        }),
        ropes: vec![RopeSpec::parse(config, plain.head_dim, rope)?],
        layers: vec![LayerSpec { window, moe: true, ..LayerSpec::default() }; plain.num_hidden_layers],
        names: NAMES,
        ..plain
    })
}

impl MoeSpec {
    /// Weights by softmax over all experts, divided by the sum of those chosen. Experts are stored separately; the family
    /// sets the sizes.
    pub(super) fn softmax() -> MoeSpec {
        MoeSpec {
            num_experts: 0,
            num_experts_per_tok: 0,
            intermediate_size: 0,
            scoring: Scoring::Softmax,
            norm_topk_prob: true,
            scaled_input: false,
            routed_scaling_factor: 1.0,
            groups: None,
            router_bias: false,
            gate: true,
            expert_bias: false,
            shared: None,
            parallel_mlp: false,
            storage: ExpertStorage::Separate,
        }
    }
}
