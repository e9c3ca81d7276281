//! Heads for multi-token prediction (MTP): a further layer, which guesses the token after the next one.
//!
//! ```text
//! x = fc([norm(embedding[token p + 1]), norm(state p)])
//! logits of token p + 2 = lm_head(norm(layer(x)))        layer: with keys and values of its own, at position p
//! ```
//! State p is the model's at position p after its last norm; for the guesses after the first one, what the head's last norm gives.
//! Embedding and output layer are the model's.
//! Sources: vLLM, `models/qwen3_next_mtp.py` and `models/deepseek_mtp.py`; SGLang, `models/deepseek_nextn.py`.

use super::packing::{Joined, Projections};
use super::tensors::{LayerNames, LinearNames, MatrixName, NormNames, VectorName, linear};
use super::{DecoderSpec, ExpertStorage, KeySource, MixerSpec};

/// Architectures whose checkpoints may have a head.
const ARCHITECTURES: &[&str] = &[
    "Qwen3_5ForCausalLM",
    "Qwen3_5ForConditionalGeneration",
    "Qwen3_5MoeForCausalLM",
    "Qwen3_5MoeForConditionalGeneration",
    "Qwen3NextForCausalLM",
    "DeepseekV3ForCausalLM",
];

/// What a head has of its own before its layer.
pub(crate) const FC: &str = "mtp.fc.weight";
/// Copies of the model's embedding and output layer that some checkpoints have.
pub(crate) const OWN_EMBEDDING: &str = "mtp.embed_tokens.weight";
pub(crate) const OWN_LM_HEAD: &str = "mtp.lm_head.weight";
/// How the tensors of a second layer begin.
pub(crate) const SECOND_LAYER: &str = "mtp.layers.1.";

/// Modules of a head that is stored as the layer after the last one, and what they are called otherwise.
const AS_LAYER: &[(&str, &str)] = &[
    ("eh_proj.", "mtp.fc."),
    ("enorm.", "mtp.pre_fc_norm_embedding."),
    ("hnorm.", "mtp.pre_fc_norm_hidden."),
    ("shared_head.norm.", "mtp.norm."),
    ("shared_head.head.", "mtp.lm_head."),
    ("embed_tokens.", "mtp.embed_tokens."),
    ("", "mtp.layers.0."),
];

impl DecoderSpec {
    /// The first tensor of a head that is stored as the layer after the last one.
    pub(crate) fn mtp_as_layer(&self) -> String {
        format!("{}.{}.eh_proj.weight", self.names.layers, self.num_hidden_layers)
    }

    /// What a tensor of such a head is called otherwise; `None` for other tensors.
    pub(crate) fn mtp_name(&self, stored: &str) -> Option<String> {
        let rest = stored.strip_prefix(self.names.layers)?.strip_prefix('.')?;
        let (layer, rest) = rest.split_once('.')?;
        match layer.parse::<usize>().ok()?.checked_sub(self.num_hidden_layers)? {
            0 => {
                let found = AS_LAYER.iter().find_map(|(own, name)| Some((name, rest.strip_prefix(own)?)));
                found.map(|(name, rest)| format!("{name}{rest}"))
            }
            further => Some(format!("mtp.layers.{further}.{rest}")),
        }
    }
}

/// A head for multi-token prediction.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MtpSpec {
    /// Its layer and its last norm: a model of one layer.
    pub(crate) layer: DecoderSpec,
}

/// The tensors of a head.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MtpNames {
    /// `[hidden_size, 2 * hidden_size]`
    pub(crate) fc: LinearNames,
    /// `[hidden_size]`, of the embedding.
    pub(crate) embedding_norm: NormNames,
    /// `[hidden_size]`, of the state.
    pub(crate) state_norm: NormNames,
    pub(crate) layer: LayerNames,
    /// `[hidden_size]`, after the layer.
    pub(crate) norm: NormNames,
}

impl MtpSpec {
    /// The head that a model of this kind may have; `None` if there is none for its kind. `stored`: whether the files have a tensor.
    pub(crate) fn of(model: &DecoderSpec, stored: impl Fn(&str) -> bool) -> Option<Self> {
        if !ARCHITECTURES.contains(&model.architecture) {
            return None;
        }
        let attends = |mixer: &MixerSpec| matches!(mixer, MixerSpec::Attention(_) | MixerSpec::Mla(_));
        let mut layer = *model.layers.iter().rev().find(|layer| attends(&layer.mixer))?;
        layer.keys = KeySource::Own;
        let mut spec = DecoderSpec {
            num_hidden_layers: 1,
            layers: vec![layer],
            tie_word_embeddings: true,
            names: super::names::Names { layers: "mtp.layers", final_norm: Some("mtp.norm"), ..model.names },
            ..model.clone()
        };
        if let Some(moe) = spec.moe.as_mut().filter(|moe| moe.storage == ExpertStorage::JoinedRows) {
            moe.storage = ExpertStorage::Separate;
        }
        Some(MtpSpec { layer: spec.with_experts_as_stored(stored) })
    }

    /// Names and shapes of its tensors.
    pub(crate) fn tensors(&self) -> MtpNames {
        let (spec, hidden) = (&self.layer, self.layer.hidden_size);
        MtpNames {
            fc: linear("mtp", "fc", hidden, 2 * hidden),
            embedding_norm: spec.stream_norm("mtp.pre_fc_norm_embedding", hidden),
            state_norm: spec.stream_norm("mtp.pre_fc_norm_hidden", hidden),
            layer: spec.layer_tensors(0),
            norm: spec.stream_norm("mtp.norm", hidden),
        }
    }
}

impl MtpNames {
    /// All packed matrices in order of use.
    pub(crate) fn packed_matrices(&self) -> Vec<Joined<'_>> {
        let fc = std::iter::once(Joined::rows([&self.fc.weight]));
        fc.chain(self.layer.packed().iter().map(Projections::joined)).collect()
    }

    /// Every matrix.
    pub(crate) fn matrices(&self) -> impl Iterator<Item = &MatrixName> {
        self.packed_matrices().into_iter().flat_map(|joined| joined.parts)
    }

    /// All norms and biases, and the small matrices that stay in f32.
    pub(crate) fn vectors(&self) -> impl Iterator<Item = &VectorName> {
        let norms = [&self.embedding_norm, &self.state_norm, &self.norm];
        norms.into_iter().flat_map(NormNames::vectors).chain(self.layer.vectors())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::tests::support;
    use crate::load::source::{Opened, Source};

    fn spec(family: &str) -> DecoderSpec {
        Opened::open(&Source::Path(support::family(family))).unwrap().spec
    }

    #[test]
    fn heads_stored_as_a_layer_have_the_names_of_others() {
        let spec = spec("deepseek_v3");
        assert_eq!(spec.mtp_as_layer(), "model.layers.2.eh_proj.weight");
        for (stored, name) in [
            ("model.layers.2.eh_proj.weight", Some("mtp.fc.weight")),
            ("model.layers.2.eh_proj.weight_scale_inv", Some("mtp.fc.weight_scale_inv")),
            ("model.layers.2.hnorm.weight", Some("mtp.pre_fc_norm_hidden.weight")),
            ("model.layers.2.shared_head.head.weight", Some(OWN_LM_HEAD)),
            ("model.layers.2.embed_tokens.weight", Some(OWN_EMBEDDING)),
            ("model.layers.2.mlp.gate.weight", Some("mtp.layers.0.mlp.gate.weight")),
            ("model.layers.3.enorm.weight", Some("mtp.layers.1.enorm.weight")),
            ("model.layers.1.mlp.gate.weight", None),
            ("model.layers.x.mlp.gate.weight", None),
            ("model.norm.weight", None),
        ] {
            assert_eq!(spec.mtp_name(stored).as_deref(), name, "{stored}");
        }
    }

    #[test]
    fn its_layer_is_one_that_attends() {
        let qwen = MtpSpec::of(&spec("qwen3_5"), |_| false).unwrap();
        let names = qwen.tensors();
        let found: Vec<String> = names.packed_matrices().iter().map(Joined::name).collect();
        let query = "mtp.layers.0.self_attn.q_proj.weight.query+mtp.layers.0.self_attn.k_proj.weight\
                     +mtp.layers.0.self_attn.v_proj.weight";
        assert_eq!(found[..2], [FC, query]);
        assert_eq!(names.fc.weight.k, 2 * qwen.layer.hidden_size);
        assert!(names.vectors().filter(|vector| vector.len == 64).all(|vector| vector.offset == 1.0));
        let joined =
            MtpSpec::of(&spec("qwen3_5_moe"), |name| name == "mtp.layers.0.mlp.experts.gate_up_proj");
        assert_eq!(joined.unwrap().layer.moe.unwrap().storage, ExpertStorage::JoinedRows);
        let separate = MtpSpec::of(&spec("qwen3_5_moe"), |_| false);
        assert_eq!(separate.unwrap().layer.moe.unwrap().storage, ExpertStorage::Separate);
        assert!(MtpSpec::of(&spec("deepseek_v3"), |_| false).unwrap().layer.layers[0].moe);
        assert!(MtpSpec::of(&spec("llama"), |_| false).is_none());
    }
}
