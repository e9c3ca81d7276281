//! Models written as GGUF files: the same results as from where they came; what is refused.

use crate::error::{Error, ErrorKind};
use crate::load::source::{Opened, Source};
use crate::options::{ModelOptions, PackOptions, RuntimeOptions, WeightType};
use crate::runtime::Runtime;
use crate::weights::gguf_testing::{typed_f32, typed_string, typed_strings, typed_u32};
use crate::weights::testing::{TempDir, f32_bytes};
use crate::weights::{GgufWriter, TensorType};

/// The tensor in a file of one of Llama's kin: the older and the newer name have the same words in them.
fn stored_name(name: &str) -> String {
    let name = name.replace("model.layers.", "blk.").replace("post_attention_layernorm", "ffn_norm");
    let name = name.replace("input_layernorm", "attn_norm").replace("model.norm", "output_norm");
    let name = name.replace("self_attn.o_proj", "attn_output").replace("model.embed_tokens", "token_embd");
    let name = name.replace("self_attn.", "attn_").replace("mlp.", "ffn_").replace("lm_head", "output");
    name.replace("_proj.", ".")
}

/// The model of `source` with its weights as F32, `family` as the file names it. Rows of queries and keys in pairs where
/// the family has that.
fn written(source: &Source, family: &str) -> GgufWriter {
    let opened = Opened::open(source).unwrap();
    let spec = &opened.spec;
    let mut writer = GgufWriter::new().pair("general.architecture", typed_string(family));
    for (key, value) in [
        ("block_count", spec.num_hidden_layers),
        ("context_length", spec.max_position_embeddings),
        ("embedding_length", spec.hidden_size),
        ("feed_forward_length", spec.intermediate_size),
        ("attention.head_count", spec.num_attention_heads),
        ("attention.head_count_kv", spec.num_key_value_heads),
        ("attention.key_length", spec.head_dim),
        ("attention.value_length", spec.head_dim),
        ("rope.dimension_count", spec.head_dim),
    ] {
        writer = writer.pair(&format!("{family}.{key}"), typed_u32(value as u32));
    }
    let theta = 1.0 / f64::from(spec.ropes[0].inv_freq[1]).powf(spec.head_dim as f64 / 2.0);
    writer = writer
        .pair(&format!("{family}.attention.layer_norm_rms_epsilon"), typed_f32(spec.rms_norm_eps))
        .pair(&format!("{family}.rope.freq_base"), typed_f32(theta.round() as f32));
    let shuffled = |name: &str| family == "llama" && (name.contains("q_proj") || name.contains("k_proj"));
    // HF row `half * head/2 + i` of a head is row `2 i + half` of the file.
    let place = |name: &str, row: usize| {
        let (head, half) = (spec.head_dim, spec.head_dim / 2);
        let at = row % head;
        if shuffled(name) { row - at + at % half * 2 + at / half } else { row }
    };
    let names = spec.tensors();
    for matrix in names.matrices() {
        let rows = opened.weights.matrix(matrix, &mut None).unwrap();
        let mut data = vec![0.0; matrix.n * matrix.k];
        let mut stored = Vec::new();
        for row in 0..matrix.n {
            rows.fetch(row..row + 1, &mut stored).unwrap();
            rows.read_row(row, &stored, &mut data[place(&matrix.name, row) * matrix.k..][..matrix.k]);
        }
        let dims = [matrix.k as u64, matrix.n as u64];
        writer = writer.tensor(&stored_name(&matrix.name), 0, &dims, f32_bytes(&data));
    }
    for vector in names.vectors() {
        let values = opened.weights.vector(vector).unwrap();
        let mut data = vec![0.0; values.len()];
        for (row, value) in values.into_iter().enumerate() {
            data[place(&vector.name, row)] = value;
        }
        writer = writer.tensor(&stored_name(&vector.name), 0, &[vector.len as u64], f32_bytes(&data));
    }
    writer
}

pub(super) fn logits(source: &Source, weights: WeightType) -> Vec<u32> {
    let runtime = Runtime::new(&RuntimeOptions::default().threads(2)).unwrap();
    let model = runtime.load(source, &ModelOptions::default().weights(weights)).unwrap();
    let vocab = model.info().vocab_size as u32;
    let prompt: Vec<u32> = (0..20).map(|i| (i * 37 + 5) % vocab).collect();
    model.logits(&prompt).unwrap().into_iter().map(f32::to_bits).collect()
}

pub(super) fn save(dir: &TempDir, name: &str, writer: &GgufWriter) -> Source {
    dir.write(name, writer.bytes());
    Source::Path(dir.path().join(name))
}

#[test]
fn a_model_computes_what_it_does_from_safetensors() {
    let dir = TempDir::new();
    let builtin = save(&dir, "builtin.gguf", &written(&Source::Builtin, "llama"));
    for weights in [WeightType::F32, WeightType::Bf16] {
        assert_eq!(logits(&builtin, weights), logits(&Source::Builtin, weights), "{weights}");
    }
}

fn open(writer: &GgufWriter) -> Result<Opened, Error> {
    let dir = TempDir::new();
    Opened::open(&save(&dir, "m.gguf", writer))
}

#[track_caller]
fn refused(writer: &GgufWriter, kind: ErrorKind, parts: &[&str]) {
    let error = open(writer).err().unwrap();
    assert_eq!(error.kind(), kind, "{error}");
    for part in parts {
        assert!(error.message().contains(part), "{error:?} should contain {part:?}");
    }
}

#[test]
fn what_would_change_the_results_unseen_is_refused() {
    use ErrorKind::{InvalidModel, UnsupportedModel};
    let good = written(&Source::Builtin, "llama");
    assert!(open(&good).unwrap().text.is_none());
    let changed = |key: &str, value: Vec<u8>| {
        let mut writer = good.clone();
        writer.remove(key);
        writer.pair(key, value)
    };
    refused(
        &changed("general.architecture", typed_string("rwkv")),
        UnsupportedModel,
        &["one of llama", "rwkv"],
    );
    refused(&changed("llama.wheels", typed_u32(4)), UnsupportedModel, &["\"llama.wheels\"", "no such key"]);
    refused(&changed("llama.expert_count", typed_u32(8)), InvalidModel, &["llama.expert_used_count"]);
    refused(&changed("llama.block_count", typed_string("4")), InvalidModel, &["llama.block_count", "\"4\""]);
    refused(
        &changed("llama.block_count", typed_u32(5)),
        InvalidModel,
        &["blk.4.attn_q.weight", "found none"],
    );
    refused(&changed("llama.block_count", typed_u32(u32::MAX)), InvalidModel, &["num_hidden_layers"]);
    refused(&changed("llama.rope.dimension_count", typed_u32(32)), UnsupportedModel, &["all of a head"]);
    refused(&changed("llama.attention.value_length", typed_u32(32)), UnsupportedModel, &["as keys have"]);
    refused(&changed("llama.attention.head_count", typed_u32(0)), InvalidModel, &["num_attention_heads"]);
    refused(
        &changed("llama.embedding_length", typed_u32(128)),
        InvalidModel,
        &["token_embd.weight", "[1024, 256]"],
    );
    let scaling = changed("llama.rope.scaling.type", typed_string("longrope"));
    refused(&scaling, InvalidModel, &["rope_factors_short.weight", "found none"]);
    let scaling = changed("llama.rope.scaling.type", typed_string("ntk"));
    refused(&scaling, UnsupportedModel, &["none, linear, yarn or longrope", "ntk"]);
    let scaling = changed("llama.rope.scaling.type", typed_string("linear"));
    refused(&scaling, InvalidModel, &["llama.rope.scaling.factor", "found nothing"]);
    refused(
        &good.clone().tensor("rope_freqs.weight", 0, &[4], f32_bytes(&[1.0; 4])),
        InvalidModel,
        &["32 positive"],
    );
    let mut tokens = good.clone();
    tokens.remove("none");
    let tokens = tokens
        .pair("tokenizer.ggml.model", typed_string("gpt2"))
        .pair("tokenizer.ggml.pre", typed_string("gpt-2"))
        .pair("tokenizer.ggml.merges", typed_strings(&[]));
    let names: Vec<String> = (0..1025).map(|i| format!("t{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let tokens = tokens.pair("tokenizer.ggml.tokens", typed_strings(&names));
    assert!(
        open(&tokens).unwrap().text.is_some(),
        "a token beyond the rows is an error of the prompt that has it"
    );
    let window = open(&changed("llama.attention.sliding_window", typed_u32(128))).unwrap();
    assert_eq!((window.spec.architecture, window.spec.layers[0].window), ("MistralForCausalLM", Some(128)));
}

#[test]
fn factors_divide_the_frequencies() {
    let factors: Vec<f32> = (1..=32).map(|i| i as f32).collect();
    let plain = &open(&written(&Source::Builtin, "llama")).unwrap().spec.ropes[0].inv_freq;
    let writer =
        written(&Source::Builtin, "llama").tensor("rope_freqs.weight", 0, &[32], f32_bytes(&factors));
    let opened = open(&writer).unwrap();
    assert!(opened.unused.is_empty(), "{:?}", opened.unused);
    for (i, (found, plain)) in opened.spec.ropes[0].inv_freq.iter().zip(plain).enumerate() {
        assert!((found - plain / factors[i]).abs() <= 1e-7 * plain, "{i}: {found} {plain}");
    }
}

#[test]
fn parts_of_a_split_model_must_be_there_and_fit() {
    let dir = TempDir::new();
    let whole = written(&Source::Builtin, "llama");
    let parts = whole.split(3);
    let expected = logits(&save(&dir, "whole.gguf", &whole), WeightType::F32);
    let path = |number: usize| format!("m-{number:05}-of-00003.gguf");
    for (number, part) in parts.iter().enumerate() {
        save(&dir, &path(number + 1), part);
    }
    let first = Source::Path(dir.path().join(path(1)));
    assert_eq!(logits(&first, WeightType::F32), expected);
    let fails = |source: &Source, kind: ErrorKind, part: &str| {
        let error = Opened::open(source).err().unwrap();
        assert!(error.kind() == kind && error.message().contains(part), "{error}");
    };
    let second = Source::Path(dir.path().join(path(2)));
    fails(&second, ErrorKind::InvalidArgument, "m-00001-of-00003.gguf");
    save(&dir, "renamed.gguf", &parts[0]);
    let renamed = Source::Path(dir.path().join("renamed.gguf"));
    fails(&renamed, ErrorKind::InvalidModel, "-00001-of-00003.gguf, as it has 3 parts");
    save(&dir, &path(2), &parts[2]);
    fails(&first, ErrorKind::InvalidModel, "\"split.no\": expected 1, found 2");
    std::fs::remove_file(dir.path().join(path(3))).unwrap();
    fails(&first, ErrorKind::NotFound, "m-00003-of-00003.gguf");
}

/// The cosine similarity of two lists of logits.
fn cosine(a: &[u32], b: &[u32]) -> f64 {
    let dot = |a: &[u32], b: &[u32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(f32::from_bits(*a)) * f64::from(f32::from_bits(*b))).sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Every format as the only one of a model's matrices, random blocks. Of the weights nothing is rounded again, so only
/// the activations' rounding tells the results from those in f32.
#[test]
fn every_format_is_computed_from_its_own_codes() {
    let dir = TempDir::new();
    let plain = written(&Source::Builtin, "llama");
    let runtime = Runtime::new(&RuntimeOptions::default()).unwrap();
    for &kind in TensorType::ALL {
        let source = save(&dir, "m.gguf", &plain.requantized(kind, |_| true));
        let plan = runtime.plan(&source, &ModelOptions::default()).unwrap();
        assert_eq!(plan.weights, "stored");
        assert!(plan.stored_dtype.unwrap().contains(kind.name()));
        let stored = plan.stored.iter().find(|stored| stored.format == kind.name()).unwrap();
        assert_eq!(stored.own_codes, kind.compute_format().is_some(), "{stored:?}");
        let found = logits(&source, WeightType::Stored);
        let similarity = cosine(&found, &logits(&source, WeightType::F32));
        assert!(similarity > 0.995, "{}: {similarity}", kind.name());
        // As floats they are what any other model's weights are.
        if kind == TensorType::F32 {
            assert_eq!(found, logits(&source, WeightType::Int8));
            assert!(!stored.own_codes);
        }
    }
}

#[test]
fn formats_may_be_mixed_and_packed() {
    let dir = TempDir::new();
    let mixed = written(&Source::Builtin, "llama")
        .requantized(TensorType::Q4K, |_| true)
        .requantized(TensorType::Q6K, |name| name.contains("attn_v") || name.contains("token_embd"))
        .requantized(TensorType::Q8_0, |name| name.contains("blk.2.attn_k") || name.contains("blk.1.ffn_up"))
        .requantized(TensorType::Mxfp4, |name| name.contains("blk.3.ffn_down"));
    let source = save(&dir, "m.gguf", &mixed);
    let runtime = Runtime::new(&RuntimeOptions::default()).unwrap();
    let plan = runtime.plan(&source, &ModelOptions::default()).unwrap();
    let own: Vec<(&str, bool)> =
        plan.stored.iter().map(|stored| (stored.format.as_str(), stored.own_codes)).collect();
    for format in ["Q4_K", "Q6_K", "Q8_0", "MXFP4"] {
        assert!(own.contains(&(format, true)), "{format}: {own:?}");
    }
    // 640 columns are no multiple of 256.
    assert!(own.contains(&("F32", false)), "{own:?}");
    let expected = logits(&source, WeightType::Stored);
    let similarity = cosine(&expected, &logits(&source, WeightType::F32));
    assert!(similarity > 0.995, "{similarity}");

    let packed = dir.path().join("m.clawdbot");
    runtime.pack(&source, &packed, &PackOptions::default()).unwrap();
    let packed = Source::Path(packed);
    let again = runtime.plan(&packed, &ModelOptions::default()).unwrap();
    assert_eq!((again.weights, again.weights_bytes), ("stored", plan.weights_bytes));
    // Packed, a matrix has the name of what it is computed as.
    for stored in plan.stored.iter().filter(|stored| stored.own_codes) {
        let found = again.stored.iter().find(|packed| packed.format == stored.computed).unwrap();
        assert!(found.own_codes && found.computed == stored.computed && found.matrices >= stored.matrices);
    }
    assert_eq!(logits(&packed, WeightType::Stored), expected);
    let model = runtime.load(&packed, &ModelOptions::default().mmap(false).verify(true)).unwrap();
    assert_eq!(model.info().plan.weights, "stored");
    let error =
        runtime.load(&packed, &ModelOptions::default().weights(WeightType::Int8)).map(|_| ()).unwrap_err();
    assert!(error.message().contains("is packed as stored"), "{error}");

    let cached = ModelOptions::default().cache(dir.path().join("cache"));
    for _ in 0..2 {
        let model = runtime.load(&source, &cached).unwrap();
        assert_eq!(model.info().plan.weights, "stored");
    }
    assert_eq!(std::fs::read_dir(dir.path().join("cache")).unwrap().count(), 1);
}
