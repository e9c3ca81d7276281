//! Gemma 3n, text: four residual streams, one of them active in the layers, low-rank blocks next to attention, per-layer
//! embeddings, gates of MLPs that few elements pass, and last layers without keys and values of their own.
//! Source: transformers 5, `models/gemma3n/configuration_gemma3n.py` and `modeling_gemma3n.py`.

use serde_json::{Value, json};

use super::gemma::{GLOBAL, LOCAL, SANDWICH, activation, cap};
use super::llama::Keys;
use super::{Family, architecture, share_keys, text_of, windows_by_pattern};
use crate::error::Result;
use crate::spec::config::ModelConfig;
use crate::spec::gguf::{self, GgufFamily};
use crate::spec::rope_scaling::RopeSpec;
use crate::spec::{AttentionSpec, DecoderSpec, LayerSpec, NormSpec, PerLayerSpec, StreamsSpec};

pub(super) const FAMILY: Family = Family {
    architectures: &[
        architecture("Gemma3nForCausalLM", "gemma3n_text", parse),
        text_of("Gemma3nForConditionalGeneration", "gemma3n", parse),
    ],
    gguf: &[GgufFamily {
        name: "gemma3n",
        architecture: "Gemma3nForCausalLM",
        windowed: Some("Gemma3nForCausalLM"),
        uneven: true,
        names: GGUF_NAMES,
        keys: &[
            gguf::PATTERN,
            gguf::LOCAL_THETA,
            gguf::SHARED_KEYS,
            gguf::LAYER_INPUT,
            CUTOFFS,
            "altup.active_idx",
            "altup.num_inputs",
            "final_logit_softcapping",
        ],
        fields: gguf_fields,
        ..GgufFamily::PLAIN
    }],
};

/// Defaults of transformers.
const DEFAULT_INPUTS: PerLayerSpec = PerLayerSpec { vocab_size: 262_144, size: 256, partial: true };
const DEFAULT_STREAMS: StreamsSpec = StreamsSpec { count: 4, active: 0, scaled: true };
const DEFAULT_RANK: usize = 64;
const DEFAULT_SHARED: usize = 15;
const DEFAULT_CAP: f32 = 30.0;
/// Models with more layers than these have sparse gates in the first ones, by default.
const DEFAULT_SPARSE_LAYERS: usize = 10;
const DEFAULT_SPARSITY: f64 = 0.95;

fn parse(config: &ModelConfig) -> Result<DecoderSpec> {
    // The defaults of these differ from other families.
    for key in ["head_dim", "num_key_value_heads", "sliding_window"] {
        config.usize(key)?;
    }
    // The size of MLPs is read below: there may be one for each layer.
    let keys = Keys {
        activation: None,
        tied: true,
        intermediate_size: &[],
        intermediate_multiple: Some(1),
        ..Keys::LLAMA
    };
    let plain = DecoderSpec::with_keys(config, &keys)?;
    let sizes = sizes(config, plain.num_hidden_layers)?;
    let bias = config.bool_or("attention_bias", false)?;
    Ok(DecoderSpec {
        intermediate_size: sizes.first().copied().unwrap_or(0),
        qk_norm: Some(NormSpec::of_heads(plain.rms_norm_eps)),
        value_norm: true,
        qkv_bias: bias,
        o_bias: bias,
        activation: activation(config)?,
        attention: AttentionSpec { divisor: 1.0, ..plain.attention },
        ropes: vec![
            RopeSpec::parse_layers(config, plain.head_dim, &GLOBAL)?,
            RopeSpec::parse_layers(config, plain.head_dim, &LOCAL)?,
        ],
        layers: layers(config, &sizes)?,
        embedding_multiplier: libm::sqrt(plain.hidden_size as f64) as f32,
        final_logit_softcapping: cap(config, "final_logit_softcapping", Some(DEFAULT_CAP))?,
        per_layer_inputs: Some(PerLayerSpec {
            vocab_size: config.opt_usize("vocab_size_per_layer_input")?.unwrap_or(DEFAULT_INPUTS.vocab_size),
            size: config.opt_usize("hidden_size_per_layer_input")?.unwrap_or(DEFAULT_INPUTS.size),
            ..DEFAULT_INPUTS
        }),
        streams: Some(StreamsSpec {
            count: config.opt_usize("altup_num_inputs")?.unwrap_or(DEFAULT_STREAMS.count),
            active: config.opt_usize("altup_active_idx")?.unwrap_or(DEFAULT_STREAMS.active),
            scaled: config.bool_or("altup_correct_scale", DEFAULT_STREAMS.scaled)?,
        }),
        low_rank: Some(config.opt_usize("laurel_rank")?.unwrap_or(DEFAULT_RANK)),
        names: SANDWICH,
        ..plain
    })
}

/// Elements between the projections of each layer's MLP: a list, or a number for all.
fn sizes(config: &ModelConfig, layers: usize) -> Result<Vec<usize>> {
    const KEY: &str = "intermediate_size";
    if !config.get(KEY).is_some_and(Value::is_array) {
        return Ok(vec![config.usize(KEY)?; layers]);
    }
    let sizes = config.opt_usizes(KEY)?.unwrap_or_default();
    match sizes.len() == layers {
        true => Ok(sizes),
        false => Err(config.invalid(KEY, &format!("an integer, or {layers}, one per layer"))),
    }
}

fn layers(config: &ModelConfig, sizes: &[usize]) -> Result<Vec<LayerSpec>> {
    let cutoffs = cutoffs(config, sizes.len())?;
    let mut layers = windows_by_pattern(config, sizes.len(), 5)?;
    for ((layer, &size), cutoff) in layers.iter_mut().zip(sizes).zip(cutoffs) {
        layer.rope = Some(usize::from(layer.window.is_some()));
        layer.intermediate_size = (size != sizes[0]).then_some(size);
        layer.cutoff = cutoff;
    }
    share_keys(config, &mut layers, DEFAULT_SHARED)?;
    Ok(layers)
}

/// How many standard deviations above the mean elements of each layer's gate pass. The configuration has the part of normally
/// distributed numbers that does not; 0 means that all pass.
fn cutoffs(config: &ModelConfig, layers: usize) -> Result<Vec<Option<f32>>> {
    const KEY: &str = "activation_sparsity_pattern";
    let pattern = config.opt_f64s(KEY)?.unwrap_or_else(|| {
        let sparse = |layer| {
            if layers > DEFAULT_SPARSE_LAYERS && layer < DEFAULT_SPARSE_LAYERS {
                DEFAULT_SPARSITY
            } else {
                0.0
            }
        };
        (0..layers).map(sparse).collect()
    });
    if pattern.len() != layers || pattern.iter().any(|part| !(0.0..1.0).contains(part)) {
        return Err(config.invalid(KEY, &format!("{layers} numbers from 0 to below 1, one per layer")));
    }
    Ok(pattern.into_iter().map(|part| (part > 0.0).then(|| quantile(part) as f32)).collect())
}

/// The part of normally distributed numbers that is below `x`, in standard deviations.
fn part_below(x: f64) -> f64 {
    libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2) / 2.0
}

/// The inverse of [`part_below`] for parts from 0 to below 1, by bisection.
fn quantile(part: f64) -> f64 {
    let (mut low, mut high) = (-40.0, 40.0);
    loop {
        let middle = (low + high) / 2.0;
        if middle <= low || middle >= high {
            return high;
        }
        if part_below(middle) < part { low = middle } else { high = middle }
    }
}

/// Names of modules in GGUF files.
const GGUF_NAMES: &[(&str, &str)] = &[
    ("model.embed_tokens_per_layer", "per_layer_token_embd"),
    ("model.per_layer_model_projection", "per_layer_model_proj"),
    ("model.per_layer_projection_norm", "per_layer_proj_norm"),
    ("post_attention_layernorm", "post_attention_norm"),
    ("per_layer_input_gate", "inp_gate"),
    ("per_layer_projection", "proj"),
    ("post_per_layer_input_norm", "post_norm"),
    ("altup.correction_coefs", "altup_correct_coef"),
    ("altup.prediction_coefs", "altup_predict_coef"),
    ("altup.modality_router", "altup_router"),
    ("altup.router_norm", "altup_router_norm"),
    ("laurel.linear_left", "laurel_l"),
    ("laurel.linear_right", "laurel_r"),
    ("laurel.post_laurel_norm", "laurel_post_norm"),
];
/// Key of what [`cutoffs`] returns; minus infinity where all elements pass.
const CUTOFFS: &str = "activation_sparsity_scale";
/// Layers with keys and values of their own where files do not say how many share them, as in llama.cpp.
const GGUF_OWN_KEYS: u64 = 20;

fn gguf_fields(keys: &gguf::Keys<'_>, config: &mut gguf::Config) -> Result<()> {
    gguf::dense(keys, config)?;
    gguf::two_rotations(keys, config, gguf::DefaultThetas { global: 1e6, local: 1e4 })?;
    gguf::pattern(keys, config, 5)?;
    config.remove("hidden_act");
    let layers = keys.u64("block_count")?;
    let sparsity =
        keys.numbers(CUTOFFS)?.map(|cutoffs| cutoffs.into_iter().map(part_below).collect::<Vec<_>>());
    let sizes = keys.per_layer(gguf::FEED_FORWARD)?.unwrap_or_default();
    if sizes.len() > 1 {
        config.insert("intermediate_size".to_owned(), sizes.into());
    }
    gguf::extend(
        config,
        json!({
            "hidden_activation": "gelu_pytorch_tanh",
            "hidden_size_per_layer_input": keys.u64(gguf::LAYER_INPUT)?,
            // Files may have rows of zeros for the tokens that the table lacks.
            "vocab_size_per_layer_input": keys.shape("per_layer_token_embd.weight").first(),
            "laurel_rank": keys.shape("blk.0.laurel_l.weight").first(),
            "altup_num_inputs": keys.opt_u64("altup.num_inputs")?,
            "altup_active_idx": keys.opt_u64("altup.active_idx")?,
            "num_kv_shared_layers": keys.opt_u64(gguf::SHARED_KEYS)?.unwrap_or(layers.saturating_sub(GGUF_OWN_KEYS)),
            "activation_sparsity_pattern": sparsity,
            "final_logit_softcapping": keys.opt_f64("final_logit_softcapping")?.unwrap_or(DEFAULT_CAP.into()),
        }),
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_normal_distribution() {
        for (part, expected) in [(0.5, 0.0), (0.95, 1.644_853_626_951_472_2), (0.3, -0.524_400_512_708_040_8)]
        {
            assert!((quantile(part) - expected).abs() < 1e-14, "{part}: {}", quantile(part));
        }
        // The way to GGUF files and back.
        for part in [1e-12, 0.05, 0.8, 0.999_999] {
            let cutoff = quantile(part) as f32;
            assert_eq!(quantile(part_below(cutoff.into())) as f32, cutoff);
        }
        assert!(quantile(1.0 - f64::EPSILON / 2.0).is_finite());
    }
}
