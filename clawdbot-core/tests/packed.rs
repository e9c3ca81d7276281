//! Packed model files: the same bits as from the source, and nothing worse than an error from a bad one.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod support;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use clawdbot_core::{
    AddGenerationPrompt, AddSpecialTokens, Chat, Error, ErrorKind, GenerateOptions, LogLevel, LogRecord,
    Model, ModelOptions, PackOptions, Prompt, Result, Runtime, RuntimeOptions, Source, WeightType,
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use support::child::{Limits, in_child};

const WEIGHTS: [WeightType; 5] =
    [WeightType::Int8, WeightType::Int4, WeightType::Int4Mixed, WeightType::Bf16, WeightType::F32];
const PROMPT: [u32; 5] = [1, 40, 50, 60, 70];

/// A temporary directory, removed in the end.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("clawdbot-packed-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Dir(path)
    }

    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // What cannot be removed is left to the system.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn runtime() -> Runtime {
    Runtime::new(&RuntimeOptions::default().threads(2)).unwrap()
}

fn pack(source: &Source, target: &Path, weights: WeightType) -> u64 {
    runtime().pack(source, target, &PackOptions::default().weights(weights).overwrite(true)).unwrap()
}

fn load(path: &Path, options: &ModelOptions) -> Result<Model> {
    runtime().load(&Source::from(path), options)
}

fn bits(model: &Model, tokens: &[u32]) -> Vec<u32> {
    model.logits(tokens).unwrap().iter().map(|x| x.to_bits()).collect()
}

#[test]
fn a_packed_file_is_the_whole_model() {
    let dir = Dir::new("whole");
    let path = dir.0.join("model.clawdbot");
    let families = ["llama", "llama3_rope", "llama_yarn", "mistral", "qwen2", "qwen3", "smollm3"];
    let families = families
        .iter()
        .map(|family| support::family(family))
        .map(Source::Path)
        // What a family cannot do yet, it cannot do packed either.
        .filter(|source| {
            !matches!(runtime().plan(source, &ModelOptions::default()), Err(error) if error.kind() == ErrorKind::UnsupportedModel)
        });
    for source in std::iter::once(Source::Builtin).chain(families) {
        for weights in WEIGHTS {
            let options = ModelOptions::default().weights(weights);
            let expected = runtime().load(&source, &options).unwrap();
            let size = pack(&source, &path, weights);
            assert_eq!(std::fs::metadata(&path).unwrap().len(), size);
            for options in [ModelOptions::default(), options.clone(), options.mmap(false).verify(true)] {
                let packed = load(&path, &options).unwrap();
                assert!(bits(&packed, &PROMPT) == bits(&expected, &PROMPT), "{source:?} {weights}");
                let (plan, of_source) = (&packed.info().plan, &expected.info().plan);
                assert!(plan.packed && !of_source.packed);
                assert_eq!((plan.weights, plan.load_bytes), (weights.name(), of_source.load_bytes));
                assert_eq!(plan.stored_dtype, of_source.stored_dtype);
                assert!(size >= plan.weights_bytes && plan.stored_bytes == size, "{plan:?}");
                assert_eq!(packed.info().eos_token_ids, expected.info().eos_token_ids);
                assert_eq!(packed.info().plan.has_chat_template, expected.info().plan.has_chat_template);
                let text = "Once upon a time";
                let encode =
                    |model: &Model| model.tokenizer().unwrap().encode(text, AddSpecialTokens::Yes).unwrap();
                assert_eq!(encode(&packed), encode(&expected));
            }
        }
    }
}

#[test]
fn generation_and_chat_are_the_same() {
    let dir = Dir::new("generate");
    let path = dir.0.join("m");
    pack(&Source::Builtin, &path, WeightType::Int8);
    let (packed, builtin) = (Model::from_pretrained(&path).unwrap(), Model::builtin().unwrap());
    let options = GenerateOptions::default().max_tokens(20_u32).seed(7_u64);
    let text = |model: &Model| model.generate("Once", &options).unwrap();
    assert_eq!(text(&packed).text, text(&builtin).text);
    assert_eq!(text(&packed).options, text(&builtin).options);
    let chat = Chat::new(json!([{"role": "user", "content": "Hi"}]));
    let render = |model: &Model| model.render_chat(&chat, AddGenerationPrompt::Yes).unwrap();
    assert_eq!(render(&packed), render(&builtin));
}

#[test]
fn files_are_replaced_when_asked_and_nothing_is_left_of_what_fails() {
    let dir = Dir::new("overwrite");
    let path = dir.0.join("m");
    std::fs::write(&path, "mine").unwrap();
    let kind = |result: Result<u64>| result.unwrap_err().kind();
    let options = PackOptions::default();
    assert_eq!(kind(runtime().pack(&Source::Builtin, &path, &options)), ErrorKind::InvalidArgument);
    let overwrite = options.clone().overwrite(true);
    let cancelled = runtime().pack_with_progress(&Source::Builtin, &path, &overwrite, |now| {
        if now.done < now.total / 2 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    assert_eq!(kind(cancelled), ErrorKind::Cancelled);
    let tight = Runtime::new(&RuntimeOptions::default().memory_budget(1000_u64)).unwrap();
    assert_eq!(kind(tight.pack(&Source::Builtin, &path, &overwrite)), ErrorKind::OutOfBudget);
    let missing = Source::Path(dir.0.join("none"));
    assert_eq!(kind(runtime().pack(&missing, &path, &overwrite)), ErrorKind::NotFound);
    assert_eq!((std::fs::read(&path).unwrap(), dir.files().len()), (b"mine".to_vec(), 1));
    runtime().pack(&Source::Builtin, &path, &overwrite).unwrap();
    assert_eq!(dir.files(), ["m"]);
    // Packing is not idempotent by accident: what is packed says so.
    let again = dir.0.join("again");
    assert_eq!(kind(runtime().pack(&Source::Path(path), &again, &options)), ErrorKind::InvalidArgument);
    assert_eq!(dir.files(), ["m"]);
}

#[test]
fn weights_that_no_packing_made_are_not_replaced() {
    let dir = Dir::new("weights");
    let source = dir.0.join("source");
    std::fs::create_dir(&source).unwrap();
    let builtin = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/builtin");
    for entry in std::fs::read_dir(builtin).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, source.join(path.file_name().unwrap())).unwrap();
    }
    let elsewhere = [dir.0.join("m.gguf"), dir.0.join("m.safetensors")];
    std::fs::write(&elsewhere[0], b"GGUF, or its beginning").unwrap();
    std::fs::copy(source.join("model.safetensors"), &elsewhere[1]).unwrap();
    let overwrite = PackOptions::default().overwrite(true);
    let own = ["config.json", "model.safetensors"].map(|name| source.join(name));
    for target in own.iter().chain(&elsewhere) {
        let before = std::fs::read(target).unwrap();
        let error = runtime().pack(&Source::from(&*source), target, &overwrite).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert!(error.message().starts_with(&*target.to_string_lossy()), "{error}");
        assert!(std::fs::read(target).unwrap() == before);
    }
    for _ in 0..2 {
        runtime().pack(&Source::from(&*source), source.join("m.clawdbot"), &overwrite).unwrap();
    }
}

#[test]
fn progress_cancellation_and_budget_are_as_for_a_directory() {
    let dir = Dir::new("budget");
    let path = dir.0.join("m");
    pack(&Source::Builtin, &path, WeightType::Int8);
    let source = Source::Path(path);
    let mut calls = Vec::new();
    runtime()
        .load_with_progress(&source, &ModelOptions::default(), |now| {
            calls.push((now.done, now.total));
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(calls.is_sorted() && calls.len() > 2 && calls.iter().all(|&(done, total)| done <= total));
    assert_eq!(calls.last().unwrap().0, calls[0].1);
    let cancelled =
        runtime().load_with_progress(&source, &ModelOptions::default(), |_| ControlFlow::Break(()));
    assert_eq!(cancelled.unwrap_err().kind(), ErrorKind::Cancelled);
    let plan = runtime().plan(&source, &ModelOptions::default()).unwrap();
    let with_budget = |bytes: u64| {
        let runtime = Runtime::new(&RuntimeOptions::default().memory_budget(bytes)).unwrap();
        runtime.load(&source, &ModelOptions::default())
    };
    assert_eq!(with_budget(plan.load_bytes - 1).unwrap_err().kind(), ErrorKind::OutOfBudget);
    let model = with_budget(plan.load_bytes).unwrap();
    assert!(model.runtime().memory_used() >= plan.weights_bytes, "mapped weights count");
}

#[test]
fn another_weight_type_is_an_error() {
    let dir = Dir::new("type");
    let path = dir.0.join("m");
    pack(&Source::Builtin, &path, WeightType::Bf16);
    let error = load(&path, &ModelOptions::default().weights(WeightType::Int8)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.message().contains("packed as bf16") && error.message().contains("int8"), "{error}");
}

#[test]
fn only_packed_files_can_be_verified() {
    let error = runtime().load(&Source::Builtin, &ModelOptions::default().verify(true)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.message().contains("verify"), "{error}");
}

#[test]
fn other_files_are_refused_by_what_they_are() {
    let dir = Dir::new("other");
    let assets = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/builtin"));
    std::fs::write(dir.0.join("empty"), "").unwrap();
    for (path, word) in [
        (assets.join("model.safetensors"), "directory"),
        (assets.join("config.json"), "packed model file"),
        (dir.0.join("empty"), "packed model file"),
    ] {
        let error = load(&path, &ModelOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert!(
            error.message().contains(word) && error.message().contains(path.to_str().unwrap()),
            "{error}"
        );
    }
}

/// The weights are not copied: the kernels read the pages of the file.
#[cfg(target_os = "linux")]
#[test]
fn mapped_weights_stay_in_the_file() {
    let dir = Dir::new("mapped");
    let path = dir.0.join("model-that-is-mapped");
    pack(&Source::Builtin, &path, WeightType::F32);
    // Resident kilobytes of mappings of the file.
    let resident = || {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut lines = smaps.lines();
        let mut sum = None;
        while let Some(line) = lines.next() {
            if line.ends_with("model-that-is-mapped") {
                let rss = lines.by_ref().find_map(|line| line.strip_prefix("Rss:")).unwrap();
                *sum.get_or_insert(0) += rss.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap();
            }
        }
        sum
    };
    let model = load(&path, &ModelOptions::default()).unwrap();
    bits(&model, &PROMPT);
    let weights = model.info().plan.weights_bytes / 1024;
    let per_pass = model.info().plan.weights_bytes_per_pass / 1024;
    let mapped = resident().unwrap();
    assert!(mapped >= per_pass * 9 / 10, "{mapped} KiB of {weights} KiB are resident in the mapping");
    drop(model);
    assert_eq!(resident(), None, "and the mapping ends with the model");
    let model = load(&path, &ModelOptions::default().mmap(false)).unwrap();
    bits(&model, &PROMPT);
    assert_eq!(resident(), None);
}

/// A packed file in parts, to be changed.
struct Parts {
    header: Map<String, Value>,
    data: Vec<u8>,
}

impl Parts {
    fn of(bytes: &[u8]) -> Self {
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        Parts { header, data: bytes[8 + length..].to_vec() }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut json = Value::Object(self.header.clone()).to_string().into_bytes();
        json.resize((8 + json.len()).next_multiple_of(4096) - 8, b' ');
        [&(json.len() as u64).to_le_bytes(), json.as_slice(), &self.data].concat()
    }

    /// The bytes of a tensor.
    fn tensor(&mut self, name: &str) -> &mut [u8] {
        let [begin, end] = [0, 1].map(|i| self.header[name]["data_offsets"][i].as_u64().unwrap() as usize);
        &mut self.data[begin..end]
    }
}

/// A small model, so that many files of it can be tried.
fn small(dir: &Dir, weights: WeightType) -> Vec<u8> {
    let source = support::Copy::of(
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/builtin")),
        dir.0.file_name().unwrap().to_str().unwrap(),
    );
    let path = dir.0.join("small");
    pack(&Source::Path(source.path().to_owned()), &path, weights);
    std::fs::read(path).unwrap()
}

const EMBEDDING: &str = "model.embed_tokens.weight";

#[test]
fn hostile_headers_are_errors() {
    in_child(Limits { cpu: 20, ..Limits::default() }, || {
        hostile_headers();
    });
}

fn hostile_headers() {
    let dir = Dir::new("hostile");
    let good = small(&dir, WeightType::Int8);
    let path = dir.0.join("bad");
    let refused = |what: &str, bytes: &[u8], kind: ErrorKind, words: &[&str]| {
        std::fs::write(&path, bytes).unwrap();
        for mmap in [true, false] {
            let error = load(&path, &ModelOptions::default().mmap(mmap)).expect_err(what);
            assert_eq!(error.kind(), kind, "{what}: {error}");
            for word in words {
                assert!(error.message().contains(word), "{what}: {word:?} is not in: {error}");
            }
        }
    };
    std::fs::write(&path, Parts::of(&good).bytes()).unwrap();
    load(&path, &ModelOptions::default()).expect("what is taken apart can be put together");

    let (invalid, unsupported) = (ErrorKind::InvalidModel, ErrorKind::UnsupportedModel);
    for length in [9, 100, 5000, good.len() / 2, good.len() - 1] {
        refused("truncated", &good[..length], invalid, &["bad"]);
    }
    refused("longer", &[&good[..], &[0]].concat(), invalid, &["belong to no tensor"]);
    let changed = |change: &dyn Fn(&mut Parts)| {
        let mut parts = Parts::of(&good);
        change(&mut parts);
        parts.bytes()
    };
    let metadata = |key: &str, value: Value| {
        changed(&|parts| {
            parts.header["__metadata__"][key] = value.clone();
        })
    };
    refused("format", &metadata("format", json!("pt")), ErrorKind::InvalidArgument, &["packed model file"]);
    refused(
        "version",
        &metadata("format_version", json!("3")),
        unsupported,
        &["format_version: expected 2, found \"3\""],
    );
    refused("weights", &metadata("weights", json!("int3")), unsupported, &["int3"]);
    refused("group", &metadata("group_size", json!("33")), unsupported, &["group_size", "33"]);
    refused("group", &metadata("group_size", json!("32")), invalid, &["scales", "expected"]);
    refused("group", &metadata("group_size", json!("-1")), invalid, &["group_size", "-1"]);
    refused("checksum", &metadata("data_sha256", json!("zz")), invalid, &["data_sha256", "64 hex digits"]);
    refused("tokenizer", &metadata("tokenizer", json!("maybe")), invalid, &["tokenizer", "maybe"]);
    refused("unknown key", &metadata("more", json!("x")), invalid, &["\"more\""]);
    let missing = changed(&|parts| {
        parts.header["__metadata__"].as_object_mut().unwrap().remove("source");
    });
    refused("missing key", &missing, invalid, &["expected source"]);

    let renamed = |from: &str, to: &str| {
        changed(&|parts| {
            let entry = parts.header.remove(from).unwrap();
            parts.header.insert(to.to_owned(), entry);
        })
    };
    refused("missing matrix", &renamed(EMBEDDING, "x"), invalid, &[EMBEDDING, "found none"]);
    refused(
        "missing scales",
        &renamed(&format!("{EMBEDDING}.scales"), "x"),
        invalid,
        &["scales", "found none"],
    );
    refused("missing norm", &renamed("model.norm.weight", "x"), invalid, &["model.norm.weight"]);
    refused("unknown file", &renamed("files/generation_config.json", "files/x"), invalid, &["files/x"]);
    refused("no config", &renamed("files/config.json", "padding.7"), ErrorKind::NotFound, &["config.json"]);
    refused(
        "no tokenizer",
        &renamed("files/tokenizer.json", "padding.7"),
        ErrorKind::NotFound,
        &["tokenizer.json"],
    );

    let field = |name: &str, field: &str, value: Value| {
        changed(&|parts| {
            parts.header[name][field] = value.clone();
        })
    };
    refused(
        "dtype",
        &field(EMBEDDING, "dtype", json!("U8")),
        invalid,
        &[EMBEDDING, "expected I8", "found U8"],
    );
    let shape = Parts::of(&good).header[EMBEDDING]["shape"].clone();
    let size: u64 = shape.as_array().unwrap().iter().map(|dim| dim.as_u64().unwrap()).product();
    refused("shape", &field(EMBEDDING, "shape", json!([size])), invalid, &[EMBEDDING, &size.to_string()]);
    refused("absurd", &field(EMBEDDING, "shape", json!([1_u64 << 40, 1_u64 << 40])), invalid, &["overflows"]);
    refused("absurd", &field(EMBEDDING, "data_offsets", json!([0, u64::MAX])), invalid, &[EMBEDDING]);
    refused("file dtype", &field("files/config.json", "dtype", json!("I8")), invalid, &["files/config.json"]);
    let overlapping = changed(&|parts| {
        parts.header["model.norm.weight"]["data_offsets"] =
            parts.header["model.layers.0.input_layernorm.weight"]["data_offsets"].clone();
    });
    refused("overlap", &overlapping, invalid, &["overlaps"]);
    // All data moves by four bytes, and nothing is aligned any more.
    let misaligned = changed(&|parts| {
        for (name, entry) in &mut parts.header {
            if name != "__metadata__" {
                for i in 0..2 {
                    entry["data_offsets"][i] = json!(entry["data_offsets"][i].as_u64().unwrap() + 4);
                }
            }
        }
        let padding = json!({"dtype": "U8", "shape": [4], "data_offsets": [0, 4]});
        parts.header.insert("padding.x".into(), padding);
        parts.data.splice(0..0, [0; 4]);
    });
    refused("misaligned", &misaligned, invalid, &["multiple of 64"]);
    // The configuration asks for a larger model than the file holds.
    let config = changed(&|parts| {
        let config = parts.tensor("files/config.json");
        let text = std::str::from_utf8(config)
            .unwrap()
            .replace("\"num_hidden_layers\": ", "\"num_hidden_layers\":9");
        assert_eq!(text.len(), config.len());
        config.copy_from_slice(text.as_bytes());
    });
    refused("configuration", &config, invalid, &["expected it, found none"]);
}

#[test]
fn the_checksum_of_a_damaged_file_comes_first() {
    let dir = Dir::new("damaged");
    let path = dir.0.join("bad");
    let good = small(&dir, WeightType::Int8);
    for (file, kind) in
        [("padding.tables", ErrorKind::InvalidTokenizer), ("config.json", ErrorKind::InvalidModel)]
    {
        let mut parts = Parts::of(&good);
        let name = parts.header.keys().find(|name| name.ends_with(file)).unwrap().clone();
        parts.tensor(&name)[0] = b'?';
        std::fs::write(&path, parts.bytes()).unwrap();
        let error = load(&path, &ModelOptions::default()).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        let options = ModelOptions::default().verify(true);
        let source = Source::Path(path.clone());
        for error in [load(&path, &options).unwrap_err(), runtime().plan(&source, &options).unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::InvalidModel, "{error}");
            assert!(error.message().contains("SHA-256"), "{error}");
        }
    }
}

/// The tokenizer's tables are a copy of `tokenizer.json`: files without them, or with those of another version, open too.
#[test]
fn tables_are_used_if_they_are_known() {
    let dir = Dir::new("tables");
    let path = dir.0.join("model");
    let good = small(&dir, WeightType::Int8);
    let opened = |change: &dyn Fn(&mut Parts)| {
        let mut parts = Parts::of(&good);
        change(&mut parts);
        std::fs::write(&path, parts.bytes()).unwrap();
        let plan = runtime().plan(&Source::Path(path.clone()), &ModelOptions::default());
        load(&path, &ModelOptions::default()).map(|model| (model, plan.unwrap().warnings))
    };
    let text = "Once upon a time, 12 caf\u{e9}s said: hello!";
    let tokens = |model: &Model| model.tokenizer().unwrap().encode(text, AddSpecialTokens::Yes).unwrap();
    let expected = tokens(&Model::builtin().unwrap());
    let file = "files/tokenizer.json";
    let unread = |parts: &mut Parts| parts.tensor(file).fill(b' ');
    let (model, warnings) = opened(&|parts| unread(parts)).expect("tokenizer.json is not read");
    assert_eq!((tokens(&model), warnings), (expected.clone(), Vec::<String>::new()));
    let without = |parts: &mut Parts| {
        let entry = parts.header.remove("padding.tables").unwrap();
        parts.header.insert("padding.99".to_owned(), entry);
    };
    let (model, warnings) = opened(&|parts| without(parts)).unwrap();
    assert_eq!((tokens(&model), warnings), (expected.clone(), Vec::<String>::new()));
    let later = |parts: &mut Parts| parts.tensor("padding.tables")[16] = 200;
    let (model, warnings) = opened(&|parts| later(parts)).unwrap();
    assert_eq!(tokens(&model), expected);
    assert!(warnings.len() == 1 && warnings[0].contains("version 200"), "{warnings:?}");
    // Without the tables, the file is what counts.
    for change in [without as fn(&mut Parts), later] {
        let error = opened(&|parts| {
            change(parts);
            unread(parts);
        });
        assert_eq!(error.err().unwrap().kind(), ErrorKind::InvalidTokenizer);
    }
    for (what, at, word) in [
        ("magic", 0, "clawdbot-tables"),
        ("json", 24, "a tokenizer.json of"),
        ("length", 47, "Rest: expected at most"),
    ] {
        let error = opened(&|parts| parts.tensor("padding.tables")[at] ^= 0x55).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidTokenizer, "{what}: {error}");
        assert!(
            error.message().contains("tokenizer tables: ") && error.message().contains(word),
            "{what}: {error}"
        );
    }
    let error = opened(&|parts| parts.header["padding.tables"]["dtype"] = json!("I8")).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidModel, "{error}");
}

#[test]
fn hostile_weights_are_safe_and_verifying_finds_them() {
    in_child(Limits { cpu: 60, ..Limits::default() }, || {
        hostile_weights();
    });
}

fn hostile_weights() {
    let dir = Dir::new("values");
    let path = dir.0.join("bad");
    let mut parts = Parts::of(&small(&dir, WeightType::Int8));
    let scales = format!("{EMBEDDING}.scales");
    let verify = |parts: &Parts| -> Result<(), Error> {
        std::fs::write(&path, parts.bytes()).unwrap();
        load(&path, &ModelOptions::default().verify(true)).map(|_| ())
    };
    verify(&parts).unwrap();
    let plan = |verify| {
        runtime().plan(&Source::Path(path.clone()), &ModelOptions::default().verify(verify)).unwrap()
    };
    assert!(plan(true).verified && !plan(false).verified);
    // A changed bit.
    parts.tensor(EMBEDDING)[12345] ^= 1;
    let error = verify(&parts).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidModel);
    assert!(error.message().contains("SHA-256"), "{error}");
    // Every code is one that quantizing does not give.
    let names: Vec<String> = parts.header.keys().cloned().collect();
    for name in names.iter().filter(|name| name.contains("weight") && !name.contains("norm")) {
        if parts.header[name]["dtype"] == "I8" {
            parts.tensor(name).fill(0x80);
        }
    }
    assert!(verify(&parts).unwrap_err().message().contains("SHA-256"));
    let logits = |expected: &dyn Fn(Result<Vec<f32>>)| {
        for kernels in Runtime::available_kernels() {
            let runtime =
                Runtime::new(&RuntimeOptions::default().threads(2).kernels(kernels.to_owned())).unwrap();
            let model = runtime.load(&Source::Path(path.clone()), &ModelOptions::default()).unwrap();
            expected(model.logits(&PROMPT));
            expected(model.logits(&PROMPT.repeat(20)));
            // Whatever it says, it ends.
            let options = GenerateOptions::default().max_tokens(4_u32).temperature(0.0);
            let _ = model.generate(Prompt::Tokens(PROMPT.to_vec()), &options);
        }
    };
    logits(&|logits| assert!(logits.is_ok_and(|logits| !logits.is_empty())));
    for (bad, index) in [(0x7fc0_u16, 0), (0x7f80, 1), (0xbf80, 2)] {
        let bytes = parts.tensor(&scales);
        bytes[2 * index..2 * index + 2].copy_from_slice(&bad.to_le_bytes());
    }
    for name in names.iter().filter(|name| name.ends_with(".scales")) {
        parts.tensor(name).as_chunks_mut::<2>().0.fill(0x7fc0_u16.to_le_bytes());
    }
    for name in names.iter().filter(|name| name.contains("proj") && !name.ends_with(".scales")) {
        parts.tensor(name).fill(1);
    }
    parts.tensor(EMBEDDING).fill(1);
    assert!(verify(&parts).unwrap_err().message().contains("finite scales"));
    let model = load(&path, &ModelOptions::default()).unwrap();
    let options = GenerateOptions::default().max_tokens(4_u32);
    let error = model.generate(Prompt::Tokens(PROMPT.to_vec()), &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NonFinite);
    logits(&|logits| assert!(logits.is_ok_and(|logits| logits.iter().all(|x| x.is_nan()))));
}

/// Loads `bytes`; what loads must compute, or say why not.
fn try_out(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap();
    if let Ok(model) = load(path, &ModelOptions::default()) {
        let _ = model.logits(&PROMPT);
    }
}

#[test]
fn mutated_files_never_panic() {
    in_child(Limits { cpu: 60, ..Limits::default() }, || {
        mutated_files();
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    fn mutated_files(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..4),
    ) {
        static GOOD: std::sync::LazyLock<(Dir, Vec<u8>)> = std::sync::LazyLock::new(|| {
            let dir = Dir::new("mutated");
            let bytes = small(&dir, WeightType::Int8);
            (dir, bytes)
        });
        let mut bytes = GOOD.1.clone();
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize + 8;
        let text = bytes[..header].iter().rposition(|&byte| byte == b'}').unwrap() + 1;
        for (at, value, digit) in edits {
            // Mostly digits for digits, so that the JSON stays what it is and the checks after it are reached.
            let at = at.index(text);
            let digits = (0..text).cycle().skip(at).find(|&at| at >= 8 && bytes[at].is_ascii_digit()).unwrap();
            match digit {
                true => bytes[digits] = b'0' + value % 10,
                false => bytes[at] = value,
            }
        }
        try_out(&GOOD.0.0.join("bad"), &bytes);
    }
}

#[test]
fn loading_a_directory_can_leave_a_packed_file_behind() {
    let dir = Dir::new("cache");
    let cache = dir.0.join("below").join("cache");
    let assets = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/builtin"));
    let source = support::Copy::of(assets, "cached");
    let expected = bits(&Model::builtin().unwrap(), &PROMPT);
    let messages = Arc::new(Mutex::new(Vec::new()));
    let load = |options: ModelOptions| {
        let sink = Arc::clone(&messages);
        let log = move |record: &LogRecord| {
            if record.level == LogLevel::Warning {
                sink.lock().unwrap().push(record.message.clone());
            }
        };
        let runtime = Runtime::with_log(&RuntimeOptions::default().threads(2), log).unwrap();
        runtime.load(&Source::Path(source.path().to_owned()), &options).unwrap()
    };
    let warnings = || std::mem::take(&mut *messages.lock().unwrap());
    let cached = ModelOptions::default().cache(cache.clone());
    let files = || -> Vec<PathBuf> {
        let mut files: Vec<_> =
            std::fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    };
    load(ModelOptions::default());
    assert!(!cache.exists(), "not unless asked for");
    let first = load(cached.clone());
    assert!(bits(&first, &PROMPT) == expected && !first.info().plan.packed);
    assert_eq!(files().len(), 1);
    // The next load takes the weights from the file: what is changed there shows.
    let [file] = &files()[..] else { unreachable!() };
    let written = std::fs::metadata(file).unwrap().modified().unwrap();
    assert!(bits(&load(cached.clone().verify(true)), &PROMPT) == expected);
    let good = std::fs::read(file).unwrap();
    let mut parts = Parts::of(&good);
    parts.tensor("model.norm.weight")[..4].copy_from_slice(&1e6_f32.to_le_bytes());
    drop(first);
    std::fs::write(file, parts.bytes()).unwrap();
    assert!(bits(&load(cached.clone()), &PROMPT) != expected);
    std::fs::write(file, &good).unwrap();
    assert!(written <= std::fs::metadata(file).unwrap().modified().unwrap() && warnings().is_empty());
    // Another weight type and changed files have packed files of their own.
    load(cached.clone().weights(WeightType::Bf16));
    assert_eq!(files().len(), 2);
    source.edit("generation_config.json", |json| json["top_k"] = 7.into());
    load(cached.clone());
    assert_eq!(files().len(), 3);
    let weights = source.path().join("model.safetensors");
    let later = std::fs::metadata(&weights).unwrap().modified().unwrap() + std::time::Duration::from_secs(5);
    std::fs::File::options().append(true).open(&weights).unwrap().set_modified(later).unwrap();
    load(cached.clone());
    assert_eq!(files().len(), 4, "weights that were written again are other weights");
    // And those of the same size whose time of writing was set back.
    let mut other = std::fs::read(&weights).unwrap();
    let end = other.len();
    // -128 is no code.
    let flip = |bytes: &mut [u8]| {
        let codes = bytes.iter_mut().step_by(2).filter(|byte| **byte >> 1 != 0x40);
        codes.for_each(|byte| *byte ^= 1);
    };
    flip(&mut other[end / 2..]);
    std::fs::write(&weights, &other).unwrap();
    std::fs::File::options().append(true).open(&weights).unwrap().set_modified(later).unwrap();
    assert!(bits(&load(cached.clone()), &PROMPT) != expected);
    assert_eq!(files().len(), 5, "weights of the same time are other weights");
    flip(&mut other[end / 2..]);
    std::fs::write(&weights, &other).unwrap();
    load(cached.clone());
    assert_eq!(files().len(), 6);
    assert!(warnings().is_empty());
    // A file that is broken, or of another model, is written again.
    for file in files() {
        std::fs::write(file, &good[..good.len() / 2]).unwrap();
    }
    assert!(bits(&load(cached.clone()), &PROMPT) == expected);
    assert!(warnings()[0].contains("cache"));
    assert!(bits(&load(cached), &PROMPT) == expected && warnings().is_empty());
    // A cache that cannot be written is no reason not to load.
    let occupied = dir.0.join("occupied");
    std::fs::write(&occupied, "").unwrap();
    assert!(bits(&load(ModelOptions::default().cache(occupied)), &PROMPT) == expected);
    assert!(warnings()[0].contains("occupied"));
}

#[test]
fn two_loads_at_once_share_a_cache() {
    let dir = Dir::new("cache-race");
    let assets = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/builtin"));
    let source = support::Copy::of(assets, "cached-race");
    let expected = bits(&Model::builtin().unwrap(), &PROMPT);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let model = load(source.path(), &ModelOptions::default().cache(dir.0.clone())).unwrap();
                assert!(bits(&model, &PROMPT) == expected);
            });
        }
    });
    assert_eq!(dir.files().len(), 1);
    let model = load(&dir.0.join(&dir.files()[0]), &ModelOptions::default().verify(true)).unwrap();
    assert!(bits(&model, &PROMPT) == expected);
}
