//! Consistency checks of a spec's fields.

use super::expect::{MAX_EXPERTS, expect, expect_size};
use super::rope_scaling::RopeSpec;
use super::{DecoderSpec, ExpertGroups, HeadShape, KeySource, LayerSpec, MixerSpec, MoeSpec, PositionSpec};
use crate::error::{Error, Result};

impl DecoderSpec {
    /// Checks that the fields are consistent.
    ///
    /// # Errors
    /// `InvalidModel` naming the field, expected and found.
    pub(crate) fn check(&self) -> Result<()> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_dim),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        for (key, size) in sizes {
            expect(size > 0, key, "a positive integer", size)?;
        }
        self.check_heads(HeadShape {
            num_key_value_heads: self.num_key_value_heads,
            head_dim: self.head_dim,
        })?;
        let eps = self.rms_norm_eps;
        expect(eps.is_finite() && eps >= 0.0, "rms_norm_eps", "a finite number >= 0", eps)?;
        expect(
            self.layers.len() == self.num_hidden_layers,
            "layers",
            "num_hidden_layers",
            self.layers.len(),
        )?;
        for (index, layer) in self.layers.iter().enumerate() {
            self.check_keys(index)?;
            expect(layer.intermediate_size != Some(0), "intermediate_size", "a positive integer", 0)?;
            expect(layer.window != Some(0), "sliding_window", "a positive integer", 0)?;
            expect(
                layer.rope.is_none_or(|rope| rope < self.ropes.len()),
                "rope",
                "an index of one of the model's rotations",
                "another",
            )?;
            let finite = layer.cutoff.is_none_or(f32::is_finite);
            expect(finite, "activation_sparsity_pattern", "numbers from 0 to below 1", "another")?;
            expect(!layer.moe || self.moe.is_some(), "experts", "some", "none")?;
        }
        let multipliers = [
            ("embedding_multiplier", self.embedding_multiplier),
            ("residual_multiplier", self.residual_multiplier),
            ("logit_scale", self.logit_scale),
            ("attention_multiplier", self.attention.divisor),
            ("final_logit_softcapping", self.final_logit_softcapping.unwrap_or(1.0)),
            ("attn_logit_softcapping", self.attention.softcap.unwrap_or(1.0)),
        ];
        for (key, value) in multipliers {
            expect(value.is_finite() && value > 0.0, key, "a finite number > 0", value)?;
        }
        self.check_mixers()?;
        self.check_streams()?;
        self.check_encoder()?;
        if let Some(moe) = &self.moe {
            moe.check()?;
            let all = self.layers.iter().filter(|layer| layer.moe).count().saturating_mul(moe.num_experts);
            expect(all <= MAX_EXPERTS, "experts of all layers", &format!("at most {MAX_EXPERTS}"), all)?;
        }
        for id in self.bos.iter().chain(&self.eos) {
            let vocab = format!("below vocab_size, which is {}", self.vocab_size);
            expect((*id as usize) < self.vocab_size, "bos_token_id or eos_token_id", &vocab, id)?;
        }
        self.parameters().map(|_| ()).ok_or_else(|| {
            Error::invalid_model(
                "the sizes of the model: expected a number of weights below 2^60, found more",
            )
        })
    }

    fn check_encoder(&self) -> Result<()> {
        let fits = |rows: usize, width: usize| rows.checked_mul(width).is_some_and(|size| size < 1 << 31);
        if let Some(PositionSpec { rows, first }) = self.input.positions {
            let expected = "embeddings with less than 2^31 weights";
            expect(fits(rows, self.hidden_size), "max_position_embeddings", expected, rows)?;
            let most = rows.saturating_sub(first);
            let expected = format!("at most {most}, the number of position embeddings");
            let found = self.max_position_embeddings;
            expect(found <= most, "max_position_embeddings", &expected, found)?;
        }
        let types = self.input.token_types.unwrap_or(1);
        expect_size("type_vocab_size", types)?;
        let expected = "embeddings with less than 2^31 weights";
        expect(fits(types, self.hidden_size), "type_vocab_size", expected, types)?;
        let plain =
            self.layers.iter().all(|layer| matches!(layer.mixer, MixerSpec::Attention(_)) && !layer.moe);
        expect(plain || !self.bidirectional, "layers of an encoder", "attention and MLPs", "others")?;
        let mut width = self.hidden_size;
        for dense in &self.dense_head {
            expect(dense.inputs == width, &dense.module, &format!("{width} inputs"), dense.inputs)?;
            width = dense.outputs;
            let few = width > 0 && fits(dense.inputs, width);
            expect(few, &dense.module, "some outputs, but less than 2^31 weights", width)?;
        }
        expect(self.scores.is_none() || width == 1, "number of labels", "1: a score", width)
    }

    fn check_heads(&self, HeadShape { num_key_value_heads, head_dim }: HeadShape) -> Result<()> {
        let heads = self.num_attention_heads;
        let divides = format!("a divisor of num_attention_heads, which is {heads}");
        let fits = num_key_value_heads > 0 && heads.is_multiple_of(num_key_value_heads);
        expect(fits, "num_key_value_heads", &divides, num_key_value_heads)?;
        expect(head_dim > 0 && head_dim.is_multiple_of(2), "head_dim", "an even number", head_dim)
    }

    /// Checks a layer's heads, its rotation, and the source of its keys.
    fn check_keys(&self, index: usize) -> Result<()> {
        let (layer, heads) = (&self.layers[index], self.heads(index));
        self.check_heads(heads)?;
        if let Some(RopeSpec { rotary_dim, inv_freq, .. }) = layer.rope.and_then(|rope| self.ropes.get(rope))
        {
            let fits = *rotary_dim <= heads.head_dim && inv_freq.len() * 2 == *rotary_dim;
            expect(fits, "rotary dimension", "an even number up to head_dim", rotary_dim)?;
        }
        let KeySource::Layer(source) = layer.keys else { return Ok(()) };
        let shares = |other: &LayerSpec| {
            let same = self.heads(source) == heads && other.window == layer.window;
            same && matches!(other.mixer, MixerSpec::Attention(_))
                && !matches!(other.keys, KeySource::Layer(_))
        };
        let found = self.layers[..index].get(source).is_some_and(shares);
        expect(found, "num_kv_shared_layers", "layers of the same kind before", "none")
    }

    fn check_mixers(&self) -> Result<()> {
        let mut checked: Vec<MixerSpec> = Vec::new();
        for LayerSpec { mixer, .. } in &self.layers {
            if !checked.contains(mixer) {
                mixer.check(self)?;
                checked.push(*mixer);
            }
        }
        let Some(inputs) = &self.per_layer_inputs else { return Ok(()) };
        expect_size("hidden_size_per_layer_input", inputs.size)?;
        let (vocab, found) = (self.vocab_size, inputs.vocab_size);
        let least = if inputs.partial { 1 } else { vocab };
        let which = if inputs.partial { String::new() } else { ", which is vocab_size".to_owned() };
        expect(found >= least, "vocab_size_per_layer_input", &format!("at least {least}{which}"), found)
    }

    /// Elements in all matrices; `None` if the number is absurd, or one matrix exceeds `usize`.
    fn parameters(&self) -> Option<u64> {
        let product = |a: usize, b: usize| a.checked_mul(b).map(|product| product as u64);
        let widest = (0..self.layers.len()).map(|layer| self.heads(layer).head_dim).max()?;
        let q = product(self.num_attention_heads, widest)?;
        // At most as many as the queries have.
        let kv = q;
        let hidden = self.hidden_size as u64;
        let attention = q.checked_add(kv)?.checked_mul(2)?.checked_mul(hidden)?;
        let widest = self.layers.iter().filter_map(|layer| layer.intermediate_size).max();
        let widest = widest.unwrap_or(0).max(self.intermediate_size);
        let mlp = product(widest, self.hidden_size)?.checked_mul(3)?;
        let experts = self.moe.map_or(Some(0), |moe| {
            let all = product(moe.num_experts, moe.intermediate_size)?;
            let shared = moe.shared.map_or(0, |shared| shared.intermediate_size as u64);
            all.checked_add(shared)?.checked_mul(3)?.checked_mul(hidden)
        })?;
        let layers =
            attention.checked_add(mlp)?.checked_add(experts)?.checked_mul(self.num_hidden_layers as u64)?;
        let inputs = self.per_layer_inputs.map_or(Some(0), |inputs| {
            let width = inputs.size.checked_mul(self.num_hidden_layers)?;
            product(width, inputs.vocab_size)?.checked_add(product(width, self.hidden_size)?.checked_mul(3)?)
        })?;
        let embeddings = product(self.vocab_size, self.hidden_size)?.checked_mul(2)?.checked_add(inputs)?;
        layers
            .checked_add(embeddings)?
            .checked_add(self.streams_parameters()?)
            .filter(|&total| total < 1 << 60)
    }
}

/// Most experts of a token: published models have up to 22, and time and memory of a pass grow with them.
const MAX_EXPERTS_PER_TOK: usize = 256;

impl MoeSpec {
    fn check(&self) -> Result<()> {
        let sizes = [
            ("num_experts", self.num_experts),
            ("num_experts_per_tok", self.num_experts_per_tok),
            ("moe_intermediate_size", self.intermediate_size),
            ("shared_expert_intermediate_size", self.shared.map_or(1, |shared| shared.intermediate_size)),
        ];
        for (key, size) in sizes {
            expect(size > 0, key, "a positive integer", size)?;
        }
        let (experts, chosen) = (self.num_experts, self.num_experts_per_tok);
        let at_most = format!("at most the number of experts, which is {experts}");
        expect(chosen <= experts, "num_experts_per_tok", &at_most, chosen)?;
        let at_most = format!("at most {MAX_EXPERTS_PER_TOK}");
        expect(chosen <= MAX_EXPERTS_PER_TOK, "num_experts_per_tok", &at_most, chosen)?;
        let factor = self.routed_scaling_factor;
        expect(factor.is_finite(), "routed_scaling_factor", "a finite number", factor)?;
        if let Some(ExpertGroups { n_group, topk_group }) = self.groups {
            let divides = format!("a divisor of the number of experts, which is {experts}");
            expect(n_group > 0 && experts.is_multiple_of(n_group), "n_group", &divides, n_group)?;
            let enough = format!("from 1 to {n_group}, with at least {chosen} experts in them");
            let fits = topk_group > 0 && topk_group <= n_group && experts / n_group * topk_group >= chosen;
            expect(fits, "topk_group", &enough, topk_group)?;
        }
        Ok(())
    }
}
