//! ModernBERT: an encoder with rotary positions, gated MLPs without biases, and windows on two of three layers.
//! Source: transformers 5, `models/modernbert/configuration_modernbert.py` and `modeling_modernbert.py`.

use serde_json::json;

use super::llama::Keys;
use super::{Family, architecture, gelu_unless, labels, layer_types};
use crate::error::{Error, Result};
use crate::options::Pooling;
use crate::spec::config::ModelConfig;
use crate::spec::gguf::{self, CLASSIFIER, GgufFamily};
use crate::spec::names::{self, MlpModules, Names};
use crate::spec::rope_scaling::{Extras, LayerRope, RopeSpec};
use crate::spec::{DecoderSpec, DenseSpec, InputSpec, LayerSpec, NormKind};

pub(super) const FAMILY: Family = Family {
    architectures: &[
        architecture("ModernBertModel", "modernbert", parse),
        architecture("ModernBertForMaskedLM", "modernbert", parse),
        architecture("ModernBertForSequenceClassification", "modernbert", parse_classifier),
    ],
    gguf: &[GgufFamily {
        name: "modern-bert",
        architecture: "ModernBertModel",
        windowed: Some("ModernBertModel"),
        bidirectional: true,
        eps: ("attention.layer_norm_epsilon", "norm_eps"),
        names: GGUF_NAMES,
        keys: &[gguf::LOCAL_THETA, gguf::PATTERN, "hidden_activation"],
        fields: gguf_fields,
        ..GgufFamily::PLAIN
    }],
};

const NAMES: Names = Names {
    layers: "layers",
    embedding: "embeddings.tok_embeddings",
    embedding_norm: "embeddings.norm",
    input_norm: Some("attn_norm"),
    mlp_norm: Some("mlp_norm"),
    final_norm: Some("final_norm"),
    qkv: &["attn.Wqkv"],
    o: "attn.Wo",
    mlp: MlpModules { gate_up: &["mlp.Wi"], down: "mlp.Wo" },
    ..names::LLAMA
};
/// Default of the norms' epsilon, as in transformers.
const DEFAULT_EPS: f32 = 1e-5;
const DEFAULT_LOCAL: usize = 128;
const DEFAULT_PATTERN: usize = 3;
const GLOBAL: LayerRope = LayerRope {
    layer_type: "full_attention",
    theta_key: "global_rope_theta",
    default_theta: 160_000.0,
    scaled: true,
    extras: Extras::NONE,
};
const LOCAL: LayerRope = LayerRope {
    layer_type: "sliding_attention",
    theta_key: "local_rope_theta",
    default_theta: 10_000.0,
    scaled: true,
    extras: Extras::NONE,
};

fn parse(config: &ModelConfig) -> Result<DecoderSpec> {
    let keys =
        Keys { eps: "norm_eps", default_eps: Some(DEFAULT_EPS), activation: None, tied: true, ..Keys::LLAMA };
    let plain = DecoderSpec::with_keys(config, &keys)?;
    let activation = gelu_unless(config, "hidden_activation")?;
    let bias = config.bool_or("attention_bias", false)?;
    let local = config.opt_usize("local_attention")?.unwrap_or(DEFAULT_LOCAL);
    let layers = plain.num_hidden_layers;
    let pattern = config.opt_usize("global_attn_every_n_layers")?.unwrap_or(DEFAULT_PATTERN);
    if pattern == 0 {
        return Err(config.invalid("global_attn_every_n_layers", "a positive integer"));
    }
    let windowed: Vec<bool> = match layer_types(config, layers, &["full_attention", "sliding_attention"])? {
        Some(types) => types.into_iter().map(|kind| kind == "sliding_attention").collect(),
        None => (0..layers).map(|layer| layer % pattern != 0).collect(),
    };
    // Half of the window on each side, inclusive; rotation 1 is that of layers with a window.
    let layer = |(index, windowed): (usize, bool)| LayerSpec {
        window: windowed.then_some(local / 2 + 1),
        rope: Some(usize::from(windowed)),
        input_norm: index > 0,
        ..LayerSpec::default()
    };
    Ok(DecoderSpec {
        norm: NormKind::Layer { bias: config.bool_or("norm_bias", false)? },
        qkv_bias: bias,
        o_bias: bias,
        mlp_bias: config.bool_or("mlp_bias", false)?,
        activation,
        bidirectional: true,
        input: InputSpec { norm: true, ..InputSpec::default() },
        ropes: vec![
            RopeSpec::parse_layers(config, plain.head_dim, &GLOBAL)?,
            RopeSpec::parse_layers(config, plain.head_dim, &LOCAL)?,
        ],
        layers: windowed.into_iter().enumerate().map(layer).collect(),
        tie_word_embeddings: true,
        names: NAMES,
        ..plain
    })
}

fn parse_classifier(config: &ModelConfig) -> Result<DecoderSpec> {
    let spec = parse(config)?;
    labels(config)?;
    const POOLING: &str = "classifier_pooling";
    let pooling = match config.opt_str(POOLING)? {
        None | Some("cls") => Pooling::Cls,
        Some("mean") => Pooling::Mean,
        Some(_) => return Err(config.unsupported(POOLING, "cls or mean")),
    };
    let hidden = spec.hidden_size;
    let dense = DenseSpec {
        module: "head.dense".to_owned(),
        inputs: hidden,
        outputs: hidden,
        bias: config.bool_or("classifier_bias", false)?,
        activation: Some(gelu_unless(config, "classifier_activation")?),
        norm: Some("head.norm"),
    };
    let classifier = DenseSpec {
        module: "classifier".to_owned(),
        outputs: 1,
        bias: true,
        activation: None,
        norm: None,
        ..dense.clone()
    };
    Ok(DecoderSpec { dense_head: vec![dense, classifier], scores: Some(pooling), ..spec })
}

/// Names of modules in GGUF files.
const GGUF_NAMES: &[(&str, &str)] = &[
    ("embeddings.tok_embeddings", "token_embd"),
    ("embeddings.norm", "token_embd_norm"),
    ("final_norm", "output_norm"),
    ("attn_norm", "attn_norm"),
    ("attn.Wqkv", "attn_qkv"),
    ("attn.Wo", "attn_output"),
    ("mlp_norm", "ffn_norm"),
    ("mlp.Wi", "ffn_up"),
    ("mlp.Wo", "ffn_down"),
];

fn gguf_fields(keys: &gguf::Keys<'_>, config: &mut gguf::Config) -> Result<()> {
    if keys.has(&format!("{CLASSIFIER}.weight")) {
        // Files do not say whether the first token or the mean is pooled.
        let message =
            format!("tensor {CLASSIFIER}.weight: expected none in a modern-bert model, found a classifier");
        return Err(Error::unsupported_model(message));
    }
    gguf::two_rotations(keys, config, gguf::DefaultThetas { global: 160_000.0, local: 10_000.0 })?;
    let window = keys.opt_u64(gguf::WINDOW)?.filter(|&window| window > 0);
    let mut every = 3;
    match keys.per_layer(gguf::PATTERN)?.as_deref() {
        _ if window.is_none() => every = 1,
        None => {}
        Some([number]) => every = *number,
        Some(marks) => {
            let kind = |&mark: &u64| if mark == 0 { "full_attention" } else { "sliding_attention" };
            config.insert("layer_types".to_owned(), marks.iter().map(kind).collect());
        }
    }
    config.remove("hidden_act");
    gguf::extend(
        config,
        json!({
            "hidden_activation": keys.opt_str("hidden_activation")?.unwrap_or("gelu"),
            "local_attention": window,
            "global_attn_every_n_layers": every,
            "norm_bias": keys.has("output_norm.bias"),
            "attention_bias": keys.some(".attn_qkv.bias"),
            "mlp_bias": keys.some(".ffn_up.bias"),
        }),
    );
    gguf::dense(keys, config)
}
