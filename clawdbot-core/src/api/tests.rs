//! Configurations of both notations, good and bad, and the tensors they call for.

use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::error::{ErrorKind, Result};
use crate::forward::scratch::Scratch;
use crate::load::check::check_tensors;
use crate::load::quantization::{FileWeights, parse_spec};
use crate::load::source::Source;
use crate::options::{GenerationDefaults, ModelOptions, RuntimeOptions, WeightType};
use crate::runtime::Runtime;
use crate::spec::config::ModelConfig;
use crate::spec::registry::architectures;
use crate::spec::{Activation, DecoderSpec, NormSpec, generation};
use crate::tokenizer::AddGenerationPrompt;
use crate::weights::WeightSource;
use crate::weights::model_files::ModelFiles;
use crate::weights::testing::{TempDir, Tensor, check, safetensors};

#[path = "../../tests/support/mod.rs"]
pub(crate) mod support;

const INVALID: ErrorKind = ErrorKind::InvalidModel;
const UNSUPPORTED: ErrorKind = ErrorKind::UnsupportedModel;

fn open(dir: &Path, file: &str) -> Result<ModelConfig> {
    ModelConfig::open(&ModelFiles::Dir(dir.to_owned()), file)
}

fn config(value: &Value) -> ModelConfig {
    ModelConfig::parse(value.to_string().as_bytes(), "config.json").unwrap()
}

fn spec(value: &Value) -> Result<DecoderSpec> {
    parse_spec(&config(value))
}

/// A small Llama with the given settings changed; null removes one.
fn with(changes: Value) -> Value {
    let mut base = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "vocab_size": 32, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2,
    });
    let Value::Object(changes) = changes else { unreachable!() };
    for (key, value) in changes {
        base[key] = value;
    }
    base
}

fn refused(changes: Value, kind: ErrorKind, parts: &[&str]) {
    let error = spec(&with(changes)).unwrap_err();
    check(&error, kind, parts);
    check(&error, kind, &["config.json"]);
}

#[test]
fn llama_is_read_with_its_defaults() {
    let full = spec(&with(json!({}))).unwrap();
    assert_eq!((full.architecture, full.head_dim, full.num_key_value_heads), ("LlamaForCausalLM", 4, 2));
    assert_eq!((full.activation, full.rms_norm_eps, full.bos), (Activation::Silu, 1e-5, Some(1)));
    assert_eq!((full.eos.as_slice(), full.tie_word_embeddings, full.qk_norm), (&[2][..], false, None));
    assert!(!full.qkv_bias && !full.o_bias && !full.mlp_bias);
    assert!(full.layers.len() == 3 && full.layers.iter().all(|layer| layer.window.is_none()));

    let derived = spec(&with(json!({"head_dim": null, "num_key_value_heads": null}))).unwrap();
    assert_eq!((derived.head_dim, derived.num_key_value_heads), (2, 4));
    let biased = spec(&with(json!({"attention_bias": true, "mlp_bias": true}))).unwrap();
    assert!(biased.qkv_bias && biased.o_bias && biased.mlp_bias);
    let by_type = spec(&with(json!({"architectures": null}))).unwrap();
    assert_eq!(by_type, full);
    let ids = spec(&with(json!({"bos_token_id": [3], "eos_token_id": [4, 5]}))).unwrap();
    assert_eq!((ids.bos, ids.eos), (Some(3), vec![4, 5]));
    let none = spec(&with(json!({"bos_token_id": null, "eos_token_id": null}))).unwrap();
    assert_eq!((none.bos, none.eos), (None, vec![]));
}

#[test]
fn wrong_values_are_named() {
    refused(json!({"hidden_size": null}), INVALID, &["hidden_size: expected an integer, found null"]);
    refused(json!({"hidden_size": -8}), INVALID, &["expected an integer from 0 to 1048576, found -8"]);
    refused(json!({"hidden_size": 8.5}), INVALID, &["found 8.5"]);
    refused(json!({"hidden_size": "8"}), INVALID, &["found \"8\""]);
    refused(json!({"hidden_size": (1 << 20) + 1}), INVALID, &["found 1048577"]);
    refused(json!({"num_hidden_layers": 4097}), INVALID, &["from 0 to 4096, found 4097"]);
    refused(json!({"vocab_size": u64::MAX}), INVALID, &["vocab_size"]);
    refused(json!({"vocab_size": vec![1; 500]}), INVALID, &["vocab_size", "1,1,1..."]);
    for key in ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "head_dim"] {
        refused(json!({key: 0}), INVALID, &[key, "positive integer, found 0"]);
    }
    refused(json!({"num_key_value_heads": 0}), INVALID, &["num_key_value_heads", "found 0"]);
    refused(
        json!({"num_key_value_heads": 3}),
        INVALID,
        &["divisor of num_attention_heads, which is 4", "found 3"],
    );
    refused(
        json!({"num_attention_heads": 3, "head_dim": null}),
        INVALID,
        &["divisor of hidden_size", "found 3"],
    );
    refused(
        json!({"num_attention_heads": 0, "head_dim": null}),
        INVALID,
        &["num_attention_heads", "found 0"],
    );
    refused(json!({"head_dim": 5}), INVALID, &["head_dim: expected an even number, found 5"]);
    refused(json!({"rms_norm_eps": -1.0}), INVALID, &["rms_norm_eps"]);
    refused(json!({"rms_norm_eps": 1e300}), INVALID, &["rms_norm_eps", "range of f32"]);
    refused(json!({"rms_norm_eps": null}), INVALID, &["rms_norm_eps: expected a number, found null"]);
    refused(json!({"bos_token_id": [1, 2]}), INVALID, &["bos_token_id: expected at most one"]);
    refused(json!({"eos_token_id": 32}), INVALID, &["below vocab_size, which is 32, found 32"]);
    refused(json!({"eos_token_id": [1, -1]}), INVALID, &["eos_token_id", "[1,-1]"]);
    refused(
        json!({"tie_word_embeddings": 1}),
        INVALID,
        &["tie_word_embeddings: expected true or false, found 1"],
    );
    let vast = json!({"vocab_size": 1 << 24, "hidden_size": 1 << 20, "intermediate_size": 1 << 22,
        "num_hidden_layers": 4096, "num_attention_heads": 1 << 16, "num_key_value_heads": 1 << 16,
        "head_dim": 1 << 16});
    refused(vast, INVALID, &["below 2^60"]);
}

#[test]
fn what_is_not_supported_is_named() {
    refused(
        json!({"architectures": ["MambaForCausalLM"]}),
        UNSUPPORTED,
        &["\"MambaForCausalLM\"", "LlamaForCausalLM, MistralForCausalLM, ", "Qwen3ForCausalLM"],
    );
    refused(json!({"architectures": null, "model_type": "mamba"}), UNSUPPORTED, &["model_type", "\"mamba\""]);
    refused(json!({"architectures": null, "model_type": null}), INVALID, &["model_type"]);
    refused(json!({"architectures": ["A", "B"]}), UNSUPPORTED, &["architectures: expected one name"]);
    refused(json!({"architectures": "A"}), INVALID, &["architectures: expected a list of strings"]);
    refused(json!({"hidden_act": "mish"}), UNSUPPORTED, &["hidden_act: expected one of silu", "\"mish\""]);
    refused(
        json!({"quantization_config": {"quant_method": "bitsandbytes"}}),
        UNSUPPORTED,
        &["quantization_config", "gptq", "bitsandbytes"],
    );
    refused(
        json!({"partial_rotary_factor": 0.5}),
        UNSUPPORTED,
        &["partial_rotary_factor: expected 1, found 0.5"],
    );
}

#[test]
fn malformed_files_are_refused() {
    let parse = |text: &str| ModelConfig::parse(text.as_bytes(), "config.json").unwrap_err();
    check(&parse("{\"NaN\": x}"), INVALID, &["config.json: malformed JSON"]);
    check(&parse("[1]"), INVALID, &["expected an object, found [1]"]);
    check(&parse(""), INVALID, &["malformed JSON"]);
    let dir = TempDir::new();
    let error = open(dir.path(), "config.json").unwrap_err();
    check(&error, ErrorKind::NotFound, &["config.json"]);
    // Python's numbers are read, and refused where they are used.
    let config = ModelConfig::parse(b"{\"a\": -Infinity, \"b\": {\"c\": NaN}}", "config.json").unwrap();
    check(
        &config.opt_f32("a").unwrap_err(),
        INVALID,
        &["config.json: a: expected a finite number, found -Infinity"],
    );
    check(&config.object("a").unwrap_err(), INVALID, &["a: expected an object or null, found -Infinity"]);
    let inner = config.object("b").unwrap().unwrap();
    check(&inner.opt_usize("c").unwrap_err(), INVALID, &["b.c: expected an integer", "found NaN"]);
    dir.write("config.json", vec![b' '; (16 << 20) + 1]);
    check(&open(dir.path(), "config.json").unwrap_err(), INVALID, &["at most 16777216 bytes"]);
}

#[test]
fn dtype_has_an_old_and_a_new_name() {
    assert_eq!(config(&json!({"torch_dtype": "bfloat16"})).dtype().unwrap(), Some("bfloat16"));
    assert_eq!(
        config(&json!({"dtype": "float32", "torch_dtype": "float32"})).dtype().unwrap(),
        Some("float32")
    );
    assert_eq!(config(&json!({})).dtype().unwrap(), None);
    let both = config(&json!({"dtype": "float32", "torch_dtype": "float16"}));
    check(
        &both.dtype().unwrap_err(),
        INVALID,
        &["torch_dtype", "expected \"float32\", the value of dtype", "\"float16\""],
    );
}

fn windows(changes: Value) -> Vec<Option<usize>> {
    spec(&with(changes)).unwrap().layers.iter().map(|layer| layer.window).collect()
}

#[test]
fn mistral_has_its_window_on_every_layer() {
    let arch = json!(["MistralForCausalLM"]);
    assert_eq!(windows(json!({"architectures": arch, "sliding_window": 16})), [Some(16); 3]);
    assert_eq!(windows(json!({"architectures": arch, "sliding_window": null})), [None; 3]);
    let same =
        json!({"architectures": arch, "sliding_window": 16, "layer_types": vec!["sliding_attention"; 3]});
    assert_eq!(windows(same), [Some(16); 3]);
    let other =
        json!({"architectures": arch, "sliding_window": 16, "layer_types": vec!["full_attention"; 3]});
    refused(other, UNSUPPORTED, &["layer_types"]);
    refused(json!({"architectures": arch, "sliding_window": 0}), INVALID, &["sliding_window", "found 0"]);
}

#[test]
fn qwen_has_windows_where_it_says_so() {
    for arch in ["Qwen2ForCausalLM", "Qwen3ForCausalLM"] {
        let qwen = |mut changes: Value| {
            changes["architectures"] = json!([arch]);
            changes
        };
        assert_eq!(windows(qwen(json!({"sliding_window": 8, "max_window_layers": 0}))), [None; 3]);
        let upper = json!({"use_sliding_window": true, "sliding_window": 8, "max_window_layers": 2});
        assert_eq!(windows(qwen(upper)), [None, None, Some(8)]);
        let default = json!({"use_sliding_window": true, "sliding_window": 8});
        assert_eq!(windows(qwen(default)), [None; 3]);
        let absent = json!({"use_sliding_window": true, "max_window_layers": 2});
        assert_eq!(windows(qwen(absent)), [None, None, Some(4096)]);
        let null = json!({"use_sliding_window": true, "sliding_window": null, "max_window_layers": 0});
        assert_eq!(windows(qwen(null)), [None; 3]);
        let types = json!(["sliding_attention", "full_attention", "sliding_attention"]);
        let listed = json!({"use_sliding_window": true, "sliding_window": 8, "max_window_layers": 0,
            "layer_types": types});
        assert_eq!(windows(qwen(listed)), [Some(8), None, Some(8)]);
        refused(qwen(json!({"sliding_window": 8, "layer_types": types})), INVALID, &["use_sliding_window"]);
        refused(
            qwen(json!({"layer_types": ["full_attention"]})),
            INVALID,
            &["layer_types: expected 3 entries"],
        );
        refused(
            qwen(json!({"layer_types": ["conv", "conv", "conv"]})),
            UNSUPPORTED,
            &["layer_types", "conv"],
        );
    }
}

#[test]
fn qwens_differ_from_llama_in_biases_and_head_norms() {
    let llama = spec(&with(json!({}))).unwrap();
    let qwen2 = spec(&with(json!({"architectures": ["Qwen2ForCausalLM"]}))).unwrap();
    let expected = DecoderSpec { architecture: "Qwen2ForCausalLM", qkv_bias: true, ..llama.clone() };
    assert_eq!(qwen2, expected);
    let qwen3 = spec(&with(json!({"architectures": ["Qwen3ForCausalLM"]}))).unwrap();
    let qk_norm = Some(NormSpec::of_heads(1e-5));
    assert_eq!(qwen3, DecoderSpec { architecture: "Qwen3ForCausalLM", qk_norm, ..llama });
    refused(json!({"architectures": ["Qwen3ForCausalLM"], "head_dim": null}), INVALID, &["head_dim"]);
}

#[test]
fn generation_defaults_are_typed() {
    let parse = |value: Value| generation::parse(&config(&value));
    let some = parse(
        json!({"do_sample": true, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0, "typical_p": 0.9,
        "repetition_penalty": 1.1, "eos_token_id": [1, 2], "bos_token_id": 3, "pad_token_id": 4,
        "max_new_tokens": 99, "transformers_version": "5", "num_beams": 1, "anything": {"else": []}}),
    );
    let expected = GenerationDefaults {
        do_sample: Some(true),
        temperature: Some(0.6),
        top_k: Some(20),
        top_p: Some(0.95),
        min_p: Some(0.0),
        typical_p: Some(0.9),
        repetition_penalty: Some(1.1),
        eos_token_id: vec![1, 2],
        bos_token_id: Some(3),
        pad_token_id: Some(4),
        max_new_tokens: Some(99),
        ..GenerationDefaults::default()
    };
    assert_eq!(some.unwrap(), expected);
    let none = parse(json!({"pad_token_id": -1, "temperature": null, "eos_token_id": null}));
    assert_eq!(none.unwrap(), GenerationDefaults::default());
    for (key, bad) in [
        ("do_sample", json!("yes")),
        ("temperature", json!(-0.1)),
        ("temperature", json!("hot")),
        ("top_k", json!(-1)),
        ("top_p", json!(1.5)),
        ("min_p", json!(-0.5)),
        ("typical_p", json!(0)),
        ("repetition_penalty", json!(0)),
        ("eos_token_id", json!("</s>")),
        ("bos_token_id", json!([1, 2])),
        ("pad_token_id", json!(-2)),
        ("max_new_tokens", json!(1.5)),
    ] {
        check(&parse(json!({key: bad})).unwrap_err(), INVALID, &["config.json", key, &bad.to_string()]);
    }
}

/// As transformers 5.24 chooses among them.
#[test]
fn templates_in_files_stand_in_place_of_those_of_the_configuration() {
    use crate::load::source::Opened;
    use crate::load::text::open_text;
    use crate::weights::model_files::{ModelFiles, TEMPLATE, TOOL_TEMPLATE};
    let tokenizer = Opened::open(&Source::Builtin).unwrap().files.require("tokenizer.json").unwrap();
    let render = |files: &[(&'static str, &'static str)], tools: bool| -> Result<String> {
        let mut all = vec![("tokenizer.json", tokenizer.clone())];
        all.extend(files.iter().map(|&(name, text)| (name, text.as_bytes().into())));
        let text = open_text(&ModelFiles::Memory("m".into(), all))?;
        text.templates?.unwrap().select(tools.then_some(&Value::Null))?.render(
            &json!([]),
            None,
            AddGenerationPrompt::Yes,
            &serde_json::Map::new(),
        )
    };
    let config = ("tokenizer_config.json", r#"{"chat_template": "config"}"#);
    assert_eq!(render(&[config], true).unwrap(), "config");
    let both = [config, (TEMPLATE, "file"), (TOOL_TEMPLATE, "tools")];
    assert_eq!([render(&both, false).unwrap(), render(&both, true).unwrap()], ["file", "tools"]);
    assert_eq!(render(&both[..2], true).unwrap(), "file");
    let tools = [config, (TOOL_TEMPLATE, "tools")];
    assert_eq!(render(&tools, true).unwrap(), "tools");
    assert_eq!(render(&tools, false).unwrap_err().kind(), ErrorKind::MissingTemplate);
}

/// Weights of the right names and shapes for `spec`, but for `change`.
fn weights_for(spec: &DecoderSpec, change: impl Fn(&mut Vec<Tensor<'_>>)) -> FileWeights {
    let names = spec.tensors();
    let shapes: Vec<(String, Vec<usize>)> = names
        .matrices()
        .map(|m| (m.name.clone(), vec![m.n, m.k]))
        .chain(names.vectors().map(|v| (v.name.clone(), vec![v.len])))
        .collect();
    let mut tensors: Vec<Tensor<'_>> = Vec::new();
    for (name, shape) in &shapes {
        tensors.push((name, "BF16", shape, vec![0; 2 * shape.iter().product::<usize>()]));
    }
    change(&mut tensors);
    WeightSource::from_static(safetensors("{}", &tensors).leak(), "test").unwrap().into()
}

#[test]
fn tensors_are_checked_before_use() {
    let all = json!({"architectures": ["Qwen3ForCausalLM"], "attention_bias": true});
    let spec = spec(&with(all)).unwrap();
    assert_eq!(check_tensors(&spec, &weights_for(&spec, |_| ())).unwrap(), [""; 0]);
    // Per layer: 7 matrices, 2 norms, 2 head norms, 4 biases.
    let names = spec.tensors();
    assert_eq!((names.matrices().count(), names.vectors().count()), (3 * 7 + 2, 3 * 8 + 1));

    let extra = |tensors: &mut Vec<Tensor<'_>>| {
        tensors.push(("model.layers.0.self_attn.rotary_emb.inv_freq", "F32", &[1], vec![0; 4]));
        tensors.push(("model.layers.0.mlp.up_proj.bias", "F32", &[1], vec![0; 4]));
    };
    let unused = check_tensors(&spec, &weights_for(&spec, extra)).unwrap();
    assert_eq!(unused, ["model.layers.0.mlp.up_proj.bias"]);

    let count = names.matrices().count() + names.vectors().count();
    for i in 0..count {
        let source = weights_for(&spec, |tensors| {
            tensors.remove(i);
        });
        let error = check_tensors(&spec, &source).unwrap_err();
        let name = error.detail()["tensor"].as_str().unwrap();
        check(&error, INVALID, &["found none", name]);
        let source = weights_for(&spec, |tensors| tensors[i].1 = "U16");
        check(&check_tensors(&spec, &source).unwrap_err(), UNSUPPORTED, &["found U16", name]);
    }
}

#[test]
fn a_tied_head_is_neither_needed_nor_in_the_way() {
    let tied = spec(&with(json!({"tie_word_embeddings": true}))).unwrap();
    let untied = spec(&with(json!({}))).unwrap();
    assert_eq!(check_tensors(&tied, &weights_for(&tied, |_| ())).unwrap(), [""; 0]);
    assert_eq!(check_tensors(&tied, &weights_for(&untied, |_| ())).unwrap(), [""; 0]);
    let error = check_tensors(&untied, &weights_for(&tied, |_| ())).unwrap_err();
    check(&error, INVALID, &["lm_head.weight", "found none"]);
}

/// The same configuration as transformers 4 wrote it.
fn older(config: &Value, type_key: &str) -> Value {
    let mut map = config.as_object().unwrap().clone();
    let Some(Value::Object(mut rope)) = map.shift_remove("rope_parameters") else { panic!("{config}") };
    map.insert("rope_theta".into(), rope.shift_remove("rope_theta").unwrap());
    let rope_type = rope.shift_remove("rope_type").unwrap();
    let scaling = if rope_type == "default" {
        Value::Null
    } else {
        rope.insert(type_key.into(), rope_type);
        Value::Object(rope)
    };
    map.insert("rope_scaling".into(), scaling);
    let dtype = map.shift_remove("dtype").unwrap();
    map.insert("torch_dtype".into(), dtype);
    map.shift_remove("layer_types");
    Value::Object(map)
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn conformance_models_load_in_both_notations() {
    for model in ["llama", "llama3_rope", "llama_yarn", "mistral", "qwen2", "qwen3"] {
        let dir = support::family(model);
        let spec = parse_spec(&open(&dir, "config.json").unwrap()).unwrap();
        let value = read_json(&dir.join("config.json"));
        for type_key in ["type", "rope_type"] {
            let older = config(&older(&value, type_key));
            assert_eq!(parse_spec(&older).unwrap(), spec, "{model}");
            assert_eq!(older.dtype().unwrap(), Some("bfloat16"));
        }
        let weights = WeightSource::open_dir(&dir).unwrap().into();
        assert_eq!(check_tensors(&spec, &weights).unwrap(), [""; 0], "{model}");
    }
}

#[test]
fn the_real_model_is_read() {
    let Some(dir) = support::shared("real-models/stories260k") else { return };
    let spec = parse_spec(&open(&dir, "config.json").unwrap()).unwrap();
    assert_eq!((spec.num_hidden_layers, spec.head_dim, spec.tie_word_embeddings), (5, 8, true));
    assert_eq!(check_tensors(&spec, &WeightSource::open_dir(&dir).unwrap().into()).unwrap(), [""; 0]);
}

/// `gpt_oss` with experts of coarse values, in MXFP4 as published, or the same in f32.
fn gpt_oss(fixture: &Path, mxfp4: bool) -> TempDir {
    const CODES: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
    let source = WeightSource::open_dir(fixture).unwrap();
    let mut tensors: Vec<(String, &str, Vec<usize>, Vec<u8>)> = Vec::new();
    for name in source.names() {
        let view = source.tensor(name).unwrap();
        let (shape, stored) = (view.shape.to_vec(), view.read().unwrap());
        // bf16 is the upper half of f32.
        let mut bytes: Vec<u8> = stored.chunks_exact(2).flat_map(|half| [0, 0, half[0], half[1]]).collect();
        if !name.ends_with("experts.gate_up_proj") && !name.ends_with("experts.down_proj") {
            tensors.push((name.to_owned(), "F32", shape, bytes));
            continue;
        }
        // `[experts, inputs, outputs]`; blocks are of the inputs of an output.
        let [experts, k, n] = shape[..] else { panic!("{shape:?}") };
        let (mut blocks, mut scales) = (vec![0_u8; experts * n * k / 2], vec![0_u8; experts * n * k / 32]);
        for index in 0..experts * k * n {
            let (expert, input, output) = (index / (k * n), index / n % k, index % n);
            let value = f32::from_le_bytes(bytes[4 * index..][..4].try_into().unwrap());
            let row = expert * n + output;
            let exponent = 121 + (row + input / 32) % 3;
            scales[row * k / 32 + input / 32] = exponent as u8;
            let scale = f32::from_bits((exponent as u32) << 23);
            let code = CODES.iter().rposition(|code| code * scale <= value.abs()).unwrap();
            let sign = usize::from(value < 0.0) * 8;
            blocks[(row * k + input) / 2] |= ((sign | code) << (4 * (input % 2))) as u8;
            let rounded = if value < 0.0 { -CODES[code] * scale } else { CODES[code] * scale };
            bytes[4 * index..][..4].copy_from_slice(&rounded.to_le_bytes());
        }
        if mxfp4 {
            tensors.push((format!("{name}_blocks"), "U8", vec![experts, n, k / 32, 16], blocks));
            tensors.push((format!("{name}_scales"), "U8", vec![experts, n, k / 32], scales));
        } else {
            tensors.push((name.to_owned(), "F32", shape, bytes));
        }
    }
    let dir = TempDir::new();
    let tensors: Vec<Tensor<'_>> = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| (name.as_str(), *dtype, shape.as_slice(), bytes.clone()))
        .collect();
    dir.write("model.safetensors", safetensors("{}", &tensors));
    let mut config = read_json(&fixture.join("config.json"));
    if mxfp4 {
        config["quantization_config"] = json!({"quant_method": "mxfp4"});
    }
    dir.write("config.json", config.to_string());
    dir.write("tokenizer.json", std::fs::read(fixture.join("tokenizer.json")).unwrap());
    dir
}

#[test]
fn mxfp4_experts_are_what_they_stand_for() {
    let fixture = support::family("gpt_oss");
    let logits = |mxfp4: bool, weights: WeightType| {
        let dir = gpt_oss(&fixture, mxfp4);
        let runtime = Runtime::new(&RuntimeOptions::default()).unwrap();
        let options = ModelOptions::default().weights(weights);
        let model = runtime.load(&Source::Path(dir.path().to_owned()), &options).unwrap();
        model.logits(&[5, 9, 100, 33, 7, 250]).unwrap()
    };
    for weights in [WeightType::F32, WeightType::Int8] {
        let (joined, blocks) = (logits(false, weights), logits(true, weights));
        assert!(joined == blocks && joined.iter().all(|x| x.is_finite()), "{weights}");
    }
}

/// Values that a hostile or careless file may have.
fn any_value() -> impl Strategy<Value = Value> {
    let number = prop_oneof![Just(0_i64), Just(-1), Just(i64::MAX), 1_i64..70, any::<i64>()];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number.prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec!["silu", "yarn", "llama3", "linear", "default", "sliding_attention", "x"])
            .prop_map(Value::from),
    ];
    let keys = prop::sample::select(vec![
        "type",
        "rope_type",
        "rope_theta",
        "factor",
        "beta_fast",
        "beta_slow",
        "mscale",
        "mscale_all_dim",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
    ]);
    let keys = keys.prop_map(str::to_owned);
    let object = prop::collection::btree_map(keys, leaf.clone(), 0..6);
    let object = object.prop_map(|map| Value::Object(map.into_iter().collect()));
    prop_oneof![4 => leaf.clone(), 1 => prop::collection::vec(leaf, 0..4).prop_map(Value::from), 2 => object]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_values_give_a_sound_spec_or_an_error(
        architecture in prop::sample::select(architectures().map(|a| a.name).collect::<Vec<_>>()),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any_value()), 1..4),
    ) {
        let mut value = with(json!({"architectures": [architecture], "rope_theta": 1e4, "rope_scaling": null,
            "rope_parameters": null, "sliding_window": null, "use_sliding_window": true, "layer_types": null,
            "max_window_layers": 1, "attention_bias": false, "tie_word_embeddings": false}));
        let of_families = json!({
            "layer_norm_eps": 1e-5, "norm_eps": 1e-5, "num_experts": 4, "num_local_experts": 4,
            "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 4,
            "shared_expert_intermediate_size": 4, "n_shared_experts": 1, "n_group": 2, "topk_group": 1,
            "first_k_dense_replace": 1, "q_lora_rank": 4, "kv_lora_rank": 4, "qk_nope_head_dim": 4,
            "qk_rope_head_dim": 4, "v_head_dim": 4, "conv_L_cache": 3, "full_attn_idxs": null,
            "linear_conv_kernel_dim": 4, "linear_key_head_dim": 4, "linear_value_head_dim": 4,
            "linear_num_key_heads": 1, "linear_num_value_heads": 2, "partial_rotary_factor": null,
            "logit_scale": 1.0, "embedding_multiplier": 1.0, "attn_logit_softcapping": null,
            "query_pre_attn_scalar": 4, "no_rope_layers": null, "sliding_window_pattern": 2,
            "mlp_only_layers": null, "swiglu_limit": 7.0, "block_multiple_of": 4});
        let of_encoders = json!({"dim": 8, "n_layers": 3,
            "n_heads": 4, "hidden_dim": 12, "type_vocab_size": 2, "pad_token_id": 1, "local_attention": 6,
            "global_attn_every_n_layers": 2, "norm_bias": false, "classifier_pooling": null, "num_labels": 1,
            "id2label": {"0": "x"}, "use_bidirectional_attention": false});
        let of_others = json!({
            "shared_intermediate_size": 4, "mamba_n_heads": 2, "mamba_d_head": null, "mamba_d_state": 4,
            "mamba_n_groups": 1, "mamba_expand": 2, "mamba_d_conv": 4, "position_embedding_type": "rope",
            "attention_k_eq_v": false, "num_global_key_value_heads": null, "num_kv_shared_layers": 1,
            "global_head_dim": null, "per_layer_config": null, "use_double_wide_mlp": true,
            "hidden_size_per_layer_input": 4, "vocab_size_per_layer_input": null, "enable_moe_block": true,
            "top_k_experts": 2, "text_config": null, "altup_num_inputs": 3, "altup_active_idx": 1,
            "altup_correct_scale": true, "laurel_rank": 4, "activation_sparsity_pattern": null});
        if architecture.starts_with("Gemma4") {
            value["rope_parameters"] = json!({"full_attention": {"rope_theta": 1e6, "rope_type": "proportional"},
                "sliding_attention": {"rope_theta": 1e4}});
        } else if architecture.starts_with("Gemma3n") {
            value["sliding_window"] = json!(4);
        } else if architecture.starts_with("Ministral3") {
            value["rope_parameters"] = json!({"rope_type": "yarn", "factor": 2.0, "llama_4_scaling_beta": 0.1});
        }
        // Of several models in one, the settings are those of one of them.
        let nested = architectures().any(|a| a.name == architecture && a.text_defaults.is_some());
        let settings = [&of_families, &of_others, &of_encoders].map(|settings| settings.as_object().unwrap());
        for (key, setting) in settings.into_iter().flatten() {
            value[key] = setting.clone();
        }
        let keys: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
        for (key, change) in changes {
            value[key.get(&keys)] = change;
        }
        if nested {
            value = json!({"architectures": [architecture], "text_config": value});
        }
        match spec(&value) {
            Ok(spec) => {
                prop_assert_eq!(spec.layers.len(), spec.num_hidden_layers);
                prop_assert!(spec.ropes.iter().flat_map(|rope| &rope.inv_freq).all(|freq| freq.is_finite()));
                prop_assert!(spec.num_attention_heads.is_multiple_of(spec.num_key_value_heads));
                prop_assert_eq!(spec.layer_states().len(), spec.layers.len());
                prop_assert!(<Scratch>::bytes(&spec, 512, 8, 2).is_ok_and(|bytes| bytes > 0));
                prop_assert!(spec.tensors().matrices().all(|m| m.n > 0 && m.k > 0));
                prop_assert!(spec.tensors().vectors().all(|vector| vector.len > 0));
                prop_assert!(spec.pooled_size() > 0 && (spec.scores.is_none() || spec.pooled_size() == 1));
            }
            Err(error) => prop_assert!(matches!(error.kind(), INVALID | UNSUPPORTED), "{}", error),
        }
    }
}
