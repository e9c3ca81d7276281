//! BERT, RoBERTa, XLM-RoBERTa, CamemBERT and DistilBERT: encoders with learned positions and a LayerNorm after each sum.
//! Source: transformers 5, `models/{bert,roberta,xlm_roberta,distilbert}/configuration_*.py` and `modeling_*.py`.

use serde_json::json;

use super::llama::Keys;
use super::{Family, architecture, gelu_unless, labels, only};
use crate::error::Result;
use crate::options::Pooling;
use crate::spec::config::ModelConfig;
use crate::spec::gguf::{self, CLASSIFIER, GgufFamily};
use crate::spec::names::{self, MlpModules, Names};
use crate::spec::{Activation, DecoderSpec, DenseSpec, InputSpec, LayerSpec, NormKind, PositionSpec};

pub(super) const FAMILY: Family = Family {
    architectures: &[
        architecture("BertModel", "bert", parse),
        architecture("BertForMaskedLM", "bert", parse),
        architecture("BertForSequenceClassification", "bert", parse_classifier),
        architecture("RobertaModel", "roberta", parse_roberta),
        architecture("RobertaForMaskedLM", "roberta", parse_roberta),
        architecture("RobertaForSequenceClassification", "roberta", parse_roberta_classifier),
        architecture("XLMRobertaModel", "xlm-roberta", parse_roberta),
        architecture("XLMRobertaForMaskedLM", "xlm-roberta", parse_roberta),
        architecture("XLMRobertaForSequenceClassification", "xlm-roberta", parse_roberta_classifier),
        architecture("CamembertModel", "camembert", parse_roberta),
        architecture("CamembertForMaskedLM", "camembert", parse_roberta),
        architecture("DistilBertModel", "distilbert", parse_distilbert),
        architecture("DistilBertForMaskedLM", "distilbert", parse_distilbert),
        architecture("DistilBertForSequenceClassification", "distilbert", parse_distilbert_classifier),
    ],
    gguf: &[GgufFamily {
        name: "bert",
        architecture: "BertModel",
        bidirectional: true,
        eps: ("attention.layer_norm_epsilon", "layer_norm_eps"),
        names: GGUF_NAMES,
        keys: &["classifier.output_labels"],
        fields: gguf_fields,
        ..GgufFamily::PLAIN
    }],
};

const BERT: Names = Names {
    layers: "encoder.layer",
    embedding: "embeddings.word_embeddings",
    input_norm: None,
    attention_sum_norm: Some("attention.output.LayerNorm"),
    mlp_norm: None,
    mlp_sum_norm: Some("output.LayerNorm"),
    final_norm: None,
    qkv: &["attention.self.query", "attention.self.key", "attention.self.value"],
    o: "attention.output.dense",
    mlp: MlpModules { gate_up: &["intermediate.dense"], down: "output.dense" },
    ..names::LLAMA
};
const DISTILBERT: Names = Names {
    layers: "transformer.layer",
    attention_sum_norm: Some("sa_layer_norm"),
    mlp_sum_norm: Some("output_layer_norm"),
    qkv: &["attention.q_lin", "attention.k_lin", "attention.v_lin"],
    o: "attention.out_lin",
    mlp: MlpModules { gate_up: &["ffn.lin1"], down: "ffn.lin2" },
    ..BERT
};
/// Default of the norms' epsilon, as in transformers.
const DEFAULT_EPS: f32 = 1e-12;
const DEFAULT_PADDING: usize = 1;
const BERT_KEYS: Keys = Keys {
    eps: "layer_norm_eps",
    default_eps: Some(DEFAULT_EPS),
    activation: None,
    tied: true,
    ..Keys::LLAMA
};
const DISTILBERT_KEYS: Keys = Keys {
    hidden_size: "dim",
    num_hidden_layers: "n_layers",
    num_attention_heads: "n_heads",
    intermediate_size: &["hidden_dim"],
    ..BERT_KEYS
};

fn parse(config: &ModelConfig) -> Result<DecoderSpec> {
    let types = config.opt_usize("type_vocab_size")?.unwrap_or(2);
    // GGUF files of DistilBERT have none; otherwise they are BERT's.
    let tables = Tables { token_types: Some(types).filter(|&types| types > 0), first_position: 0 };
    encoder(config, &BERT_KEYS, "hidden_act", tables)
}

fn parse_classifier(config: &ModelConfig) -> Result<DecoderSpec> {
    scorer(config, parse(config)?, "pooler.dense", "classifier", Activation::Tanh)
}

/// RoBERTa numbers positions from after the padding token's id.
fn parse_roberta(config: &ModelConfig) -> Result<DecoderSpec> {
    let types = config.opt_usize("type_vocab_size")?.unwrap_or(2);
    let padding = config.opt_usize("pad_token_id")?.unwrap_or(DEFAULT_PADDING);
    let tables = Tables { token_types: Some(types), first_position: padding.saturating_add(1) };
    encoder(config, &BERT_KEYS, "hidden_act", tables)
}

fn parse_roberta_classifier(config: &ModelConfig) -> Result<DecoderSpec> {
    let spec = parse_roberta(config)?;
    scorer(config, spec, "classifier.dense", "classifier.out_proj", Activation::Tanh)
}

fn parse_distilbert(config: &ModelConfig) -> Result<DecoderSpec> {
    let spec =
        encoder(config, &DISTILBERT_KEYS, "activation", Tables { token_types: None, first_position: 0 })?;
    Ok(DecoderSpec { names: DISTILBERT, ..spec })
}

fn parse_distilbert_classifier(config: &ModelConfig) -> Result<DecoderSpec> {
    scorer(config, parse_distilbert(config)?, "pre_classifier", "classifier", Activation::Relu)
}

/// Embeddings added to that of the tokens.
struct Tables {
    /// Number of token types; `None`: no such table.
    token_types: Option<usize>,
    /// Row of position 0 in the table of positions.
    first_position: usize,
}

fn encoder(
    config: &ModelConfig,
    keys: &Keys,
    activation: &str,
    Tables { token_types, first_position: first }: Tables,
) -> Result<DecoderSpec> {
    only(config, "is_decoder", false)?;
    only(config, "add_cross_attention", false)?;
    const POSITIONS: &str = "position_embedding_type";
    if config.opt_str(POSITIONS)?.is_some_and(|kind| kind != "absolute") {
        return Err(config.unsupported(POSITIONS, "absolute"));
    }
    let activation = gelu_unless(config, activation)?;
    let plain = DecoderSpec::with_keys(config, keys)?;
    let rows = plain.max_position_embeddings;
    Ok(DecoderSpec {
        norm: NormKind::Layer { bias: true },
        qkv_bias: true,
        o_bias: true,
        mlp_bias: true,
        mlp_gate: false,
        activation,
        bidirectional: true,
        input: InputSpec { positions: Some(PositionSpec { rows, first }), token_types, norm: true },
        layers: vec![LayerSpec { rope: None, ..LayerSpec::default() }; plain.num_hidden_layers],
        tie_word_embeddings: true,
        max_position_embeddings: rows.saturating_sub(first),
        names: BERT,
        ..plain
    })
}

/// Adds a dense head of two layers on the first token's state; the second gives a score.
fn scorer(
    config: &ModelConfig,
    spec: DecoderSpec,
    dense: &str,
    classifier: &str,
    activation: Activation,
) -> Result<DecoderSpec> {
    labels(config)?;
    let hidden = spec.hidden_size;
    let layer = |module: &str, outputs, activation| DenseSpec {
        module: module.to_owned(),
        inputs: hidden,
        outputs,
        bias: true,
        activation,
        norm: None,
    };
    let dense_head = vec![layer(dense, hidden, Some(activation)), layer(classifier, 1, None)];
    Ok(DecoderSpec { dense_head, scores: Some(Pooling::Cls), ..spec })
}

/// Names of modules in GGUF files.
const GGUF_NAMES: &[(&str, &str)] = &[
    ("embeddings.word_embeddings", "token_embd"),
    ("embeddings.position_embeddings", "position_embd"),
    ("embeddings.token_type_embeddings", "token_types"),
    ("embeddings.LayerNorm", "token_embd_norm"),
    ("attention.self.query", "attn_q"),
    ("attention.self.key", "attn_k"),
    ("attention.self.value", "attn_v"),
    ("attention.output.dense", "attn_output"),
    ("attention.output.LayerNorm", "attn_output_norm"),
    ("intermediate.dense", "ffn_up"),
    ("output.dense", "ffn_down"),
    ("output.LayerNorm", "layer_output_norm"),
    ("pooler.dense", "cls"),
    ("classifier", CLASSIFIER),
];

/// Position embeddings in GGUF files begin with that of the first token, also for RoBERTa.
fn gguf_fields(keys: &gguf::Keys<'_>, config: &mut gguf::Config) -> Result<()> {
    gguf::extend(
        config,
        json!({
            "hidden_act": "gelu",
            "type_vocab_size": keys.shape("token_types.weight").first().copied().unwrap_or(0),
        }),
    );
    if let Some(&labels) = keys.shape(&format!("{CLASSIFIER}.weight")).first() {
        gguf::extend(
            config,
            json!({"architectures": ["BertForSequenceClassification"], "num_labels": labels}),
        );
    }
    gguf::dense(keys, config)
}
