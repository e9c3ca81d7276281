//! Tensor names: as Hugging Face checkpoints have them, and as GGUF files do.

use crate::error::{Error, Result};
use crate::spec::gguf::GgufFamily;
use crate::spec::tensors::{MatrixName, Part, PartStorage, VectorName};
use crate::spec::{DecoderSpec, LayerSpec, MixerSpec};
use crate::weights::{GgufSource, RowOrder};

/// Outside of layers.
const GLOBAL: &[(&str, &str)] =
    &[("model.embed_tokens", "token_embd"), ("model.norm", "output_norm"), ("lm_head", "output")];

/// In layers: `model.layers.N.` (or what the family has) and `blk.N.` in front. Families have others before these.
const LAYER: &[(&str, &str)] = &[
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.qkv_proj", "attn_qkv"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("self_attn.q_a_proj", "attn_q_a"),
    ("self_attn.q_a_layernorm", "attn_q_a_norm"),
    ("self_attn.q_b_proj", "attn_q_b"),
    ("self_attn.kv_a_proj_with_mqa", "attn_kv_a_mqa"),
    ("self_attn.kv_a_layernorm", "attn_kv_a_norm"),
    ("self_attn.kv_b_proj", "attn_kv_b"),
    ("post_attention_layernorm", "ffn_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
    ("post_self_attn_layernorm", "post_attention_norm"),
    ("post_mlp_layernorm", "post_ffw_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.gate_up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("mlp.gate", "ffn_gate_inp"),
    ("mlp.router", "ffn_gate_inp"),
    ("block_sparse_moe.gate", "ffn_gate_inp"),
    ("mlp.shared_expert.gate_proj", "ffn_gate_shexp"),
    ("mlp.shared_expert.up_proj", "ffn_up_shexp"),
    ("mlp.shared_expert.down_proj", "ffn_down_shexp"),
    ("mlp.shared_expert_gate", "ffn_gate_inp_shexp"),
    ("mlp.shared_experts.gate_proj", "ffn_gate_shexp"),
    ("mlp.shared_experts.up_proj", "ffn_up_shexp"),
    ("mlp.shared_experts.down_proj", "ffn_down_shexp"),
    ("linear_attn.conv1d", "ssm_conv1d"),
    ("linear_attn.norm", "ssm_norm"),
    ("linear_attn.out_proj", "ssm_out"),
    ("linear_attn.in_proj_qkvz", "ssm_in"),
    ("linear_attn.in_proj_ba", "ssm_ba"),
    ("linear_attn.in_proj_qkv", "attn_qkv"),
    ("linear_attn.in_proj_z", "attn_gate"),
    ("linear_attn.in_proj_b", "ssm_beta"),
    ("linear_attn.in_proj_a", "ssm_alpha"),
    ("mamba.in_proj", "ssm_in"),
    ("mamba.conv1d", "ssm_conv1d"),
    ("mamba.out_proj", "ssm_out"),
];

/// Tensors of layers that are not called `weight` or `bias`, on either side.
const WHOLE: &[(&str, &str)] = &[
    ("self_attn.sinks", "attn_sinks.weight"),
    ("mlp.gate.e_score_correction_bias", "exp_probs_b.bias"),
    ("block_sparse_moe.e_score_correction_bias", "exp_probs_b.bias"),
    ("linear_attn.A_log", "ssm_a"),
    ("linear_attn.dt_bias", "ssm_dt.bias"),
    ("mixer.gate.e_score_correction_bias", "exp_probs_b.bias"),
    ("mixer.A_log", "ssm_a"),
    ("mixer.dt_bias", "ssm_dt.bias"),
    ("mixer.D", "ssm_d"),
    ("mamba.A_log", "ssm_a"),
    ("mamba.dt_bias", "ssm_dt.bias"),
    ("mamba.D", "ssm_d"),
    ("layer_scalar", "layer_output_scale.weight"),
    ("altup.correct_output_scale", "altup_correct_scale.weight"),
    ("router.scale", "ffn_gate_inp.scale"),
    ("router.per_expert_scale", "ffn_down_exps.scale"),
];

/// Outside of layers: numbered modules of one shape, and the tensor that has all of them.
const STACKED: &[(&str, &str)] = &[
    ("model.altup_projections.", "altup_proj.weight"),
    ("model.altup_unembed_projections.", "altup_unembd_proj.weight"),
];

/// An expert's projections, after its number, and what the tensor with those of all experts is called.
const EXPERT: &[(&str, &str)] = &[
    ("gate_proj", "gate"),
    ("up_proj", "up"),
    ("down_proj", "down"),
    ("w1", "gate"),
    ("w3", "up"),
    ("w2", "down"),
];

/// Where a matrix or a vector is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) tensor: String,
    /// As the file should have it, outermost dimension first.
    pub(super) shape: Vec<usize>,
    /// Its rows, or of vectors elements, in those of the tensor.
    pub(super) order: RowOrder,
    /// The rows are columns of the tensor instead, of the `k` rows from this one on.
    pub(super) columns: Option<usize>,
}

/// Finds what a model needs in a file.
pub(super) struct Finder<'a> {
    pub(super) family: &'a GgufFamily,
    pub(super) spec: &'a DecoderSpec,
    pub(super) source: &'a GgufSource,
}

impl Finder<'_> {
    /// Where a matrix is.
    ///
    /// # Errors
    /// `UnsupportedModel` for one that has no name in GGUF files.
    pub(super) fn matrix(&self, name: &MatrixName) -> Result<Place> {
        self.place(&name.name, &[name.n, name.k], name.part.as_deref())
    }

    /// Where a vector is.
    ///
    /// # Errors
    /// As [`matrix`](Self::matrix).
    pub(super) fn vector(&self, name: &VectorName) -> Result<Place> {
        self.place(&name.name, &[name.len], name.part.as_deref())
    }

    /// `size`: of the whole, `[n, k]` or `[len]`.
    fn place(&self, name: &str, size: &[usize], part: Option<&Part>) -> Result<Place> {
        if let Some((layer, rest)) = self.layer(name)
            && let Some(place) = self.in_parts(layer, rest, size)
        {
            return Ok(place);
        }
        if let Some(place) = self.stacked(name, size) {
            return Ok(place);
        }
        // What checkpoints store by inputs, files have by outputs.
        let turned =
            |part: &&Part| self.spec.transposed && matches!(part.storage, PartStorage::Columns { .. });
        let Some(part) = part.filter(|part| !turned(part)) else {
            let rotated = name.contains(".self_attn.q_proj.") || name.contains(".self_attn.k_proj.");
            let order = match self.family.pairs && rotated {
                true => RowOrder::Pairs { head: self.spec.head_dim },
                false => RowOrder::Stored,
            };
            return Ok(Place { tensor: self.stored(name)?, shape: size.to_vec(), order, columns: None });
        };
        let (tensor, shape) = (self.stored(&part.tensor)?, part.shape.clone());
        let order = part.order();
        let columns = match part.storage {
            PartStorage::Columns { from } => Some(from),
            PartStorage::Rows | PartStorage::MinusExp | PartStorage::Mxfp4 => None,
        };
        Ok(Place { tensor, shape, order, columns })
    }

    /// The place of one of several matrices that are one tensor.
    fn stacked(&self, name: &str, size: &[usize]) -> Option<Place> {
        let number = |(module, tensor): &(&str, &'static str)| {
            let number = name.strip_prefix(module)?.strip_suffix(".weight")?;
            Some((number.parse::<usize>().ok()?, *tensor))
        };
        let (number, tensor) = STACKED.iter().find_map(number)?;
        let count = self.spec.streams?.count.checked_sub(1)?;
        let order = RowOrder::Runs { first: number * size[0], run: usize::MAX, stride: usize::MAX };
        Some(Place { tensor: tensor.to_owned(), shape: [&[count], size].concat(), order, columns: None })
    }

    /// Number of the layer in a tensor's name, and the rest of the name.
    pub(super) fn layer<'n>(&self, name: &'n str) -> Option<(&'n str, &'n str)> {
        name.strip_prefix(self.spec.names.layers)?.strip_prefix('.')?.split_once('.')
    }

    fn mixer(&self, layer: &str) -> Option<MixerSpec> {
        let number = layer.parse::<usize>().ok()?;
        let is_it =
            |(at, layer): &(usize, &LayerSpec)| layer.halves.map_or(*at, |halves| halves.mixer) == number;
        self.spec.layers.iter().enumerate().find(is_it).map(|(_, layer)| layer.mixer)
    }

    /// The place of what is a part of another tensor than in checkpoints. `rest`: the name after that of the layer.
    fn in_parts(&self, layer: &str, rest: &str, size: &[usize]) -> Option<Place> {
        let part = |tensor: String, outer: &[usize], first: usize| {
            let shape = [outer, &size[1..]].concat();
            let order = RowOrder::Runs { first, run: usize::MAX, stride: usize::MAX };
            Some(Place { tensor, shape, order, columns: None })
        };
        let has = |tensor: &str| self.source.tensor(tensor).is_some();
        let rows = size[0];
        // Experts one after another; maybe with gate and up of each in one.
        let expert = rest.split_once(".experts.").map(|(_, expert)| expert);
        if let Some(expert) = expert.or(rest.strip_prefix("experts.")) {
            let (number, module) = expert.split_once('.')?;
            let (module, kind) = module.rsplit_once('.')?;
            let (number, experts) = (number.parse::<usize>().ok()?, self.spec.moe?.num_experts);
            let name = EXPERT.iter().find(|(known, _)| *known == module)?.1;
            let joined = format!("blk.{layer}.ffn_gate_up_exps.{kind}");
            if name != "down" && has(&joined) {
                let first = 2 * number * rows + if name == "up" { rows } else { 0 };
                return part(joined, &[experts, 2 * rows], first);
            }
            return part(format!("blk.{layer}.ffn_{name}_exps.{kind}"), &[experts, rows], number * rows);
        }
        // Joined in checkpoints alone.
        if let Some(what) = rest.strip_prefix("shared_mlp.") {
            let name = match what {
                "input_linear.weight.gate" => "gate",
                "input_linear.weight.up" => "up",
                "output_linear.weight" => "down",
                _ => return None,
            };
            let shared = if self.spec.moe.is_some() { "_shexp" } else { "" };
            return part(format!("blk.{layer}.ffn_{name}{shared}.weight"), &[rows], 0);
        }
        // By groups.
        if rest == "mamba.norm.weight" || rest == "mixer.norm.weight" {
            let MixerSpec::Mamba(mamba) = self.mixer(layer)? else { return None };
            let groups = mamba.num_groups;
            let (tensor, shape) = (format!("blk.{layer}.ssm_norm.weight"), vec![groups, rows / groups]);
            return Some(Place { tensor, shape, order: RowOrder::Stored, columns: None });
        }
        // What a latent is projected to, by heads: keys turned round, values.
        if let Some(head) = rest.strip_prefix("self_attn.kv_b_proj.weight.") {
            let (head, what) = head.split_once('.')?;
            let tensor = format!("blk.{layer}.attn_{}_b.weight", if what == "keys" { "k" } else { "v" });
            let (head, heads) = (head.parse::<usize>().ok()?, self.spec.num_attention_heads);
            return if has(&tensor) { part(tensor, &[heads, rows], head * rows) } else { None };
        }
        // Kind by kind instead of head by head.
        if let Some(what) = rest.strip_prefix("linear_attn.in_proj_qkvz.weight.") {
            let MixerSpec::DeltaNet(delta) = self.mixer(layer)? else { return None };
            let (keys, values) = (delta.keys(), delta.values());
            let joined = format!("blk.{layer}.attn_qkv.weight");
            if !has(&joined) {
                return None;
            }
            return match what {
                "query" => part(joined, &[2 * keys + values], 0),
                "key" => part(joined, &[2 * keys + values], keys),
                "value" => part(joined, &[2 * keys + values], 2 * keys),
                _ => part(format!("blk.{layer}.attn_gate.weight"), &[values], 0),
            };
        }
        None
    }

    /// The name in the file of the tensor that checkpoints call `name`.
    fn stored(&self, name: &str) -> Result<String> {
        let stored = || {
            let in_table = |table: &[(&str, &'static str)], module: &str| {
                table.iter().find(|(known, _)| *known == module).map(|&(_, stored)| stored)
            };
            let layer = self.layer(name);
            if let Some((layer, rest)) = layer
                && let Some(stored) = in_table(WHOLE, rest)
            {
                return Some(format!("blk.{layer}.{stored}"));
            }
            let (module, kind) = layer.map_or(name, |(_, rest)| rest).rsplit_once('.')?;
            let common = if layer.is_some() { LAYER } else { GLOBAL };
            let stored = in_table(self.family.names, module).or_else(|| in_table(common, module))?;
            // The first files of a family may have another name.
            let stored = self
                .family
                .renamed
                .iter()
                .find(|(known, older)| {
                    *known == stored && self.source.tensor(&format!("{older}.{kind}")).is_some()
                })
                .map_or(stored, |&(_, older)| older);
            Some(match layer {
                Some((layer, _)) => format!("blk.{layer}.{stored}.{kind}"),
                None => format!("{stored}.{kind}"),
            })
        };
        stored().ok_or_else(|| Error::unsupported_model(format!("tensor {name:?} has no name in GGUF files")))
    }
}
