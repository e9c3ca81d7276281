//! Adapters against what PEFT defines (`tests/golden/adapters`), alone and in batches, merged, and what is refused.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::AdapterFiles;
use super::files::{CONFIG, Use};
use crate::api::model::Model;
use crate::api::plan::StoredMatrices;
use crate::api::session::Prompt;
use crate::api::tests::support;
use crate::error::{ErrorKind, Result};
use crate::event::Completion;
use crate::load::source::{Opened, Source};
use crate::options::{GenerateOptions, ModelOptions, PackOptions, RuntimeOptions, WeightType};
use crate::runtime::Runtime;
use crate::tokenizer::AddSpecialTokens;
use crate::weights::MatrixSize;
use crate::weights::testing::{TempDir, Tensor, bf16_bytes, check, f32_bytes, safetensors};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/adapters");
const TOKENIZER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/quantized/tokenizer.json");
const ADAPTERS: [&str; 2] = ["everything", "some"];

fn golden(name: &str) -> PathBuf {
    Path::new(GOLDEN).join(name)
}

/// The model of the fixtures, with the tokenizer that all fixtures share.
fn base() -> (TempDir, Source) {
    let dir = TempDir::new();
    for file in ["config.json", "model.safetensors"] {
        dir.write(file, std::fs::read(golden("base").join(file)).unwrap());
    }
    dir.write("tokenizer.json", std::fs::read(TOKENIZER).unwrap());
    let source = Source::Path(dir.path().to_owned());
    (dir, source)
}

fn runtime(threads: u32) -> Runtime {
    Runtime::new(&RuntimeOptions::default().threads(threads)).unwrap()
}

fn load(options: &ModelOptions) -> (TempDir, Model) {
    let (dir, source) = base();
    let model = runtime(2).load(&source, options).unwrap();
    (dir, model)
}

fn with_adapters(options: &ModelOptions) -> (TempDir, Model) {
    let (dir, model) = load(options);
    ADAPTERS.iter().for_each(|name| model.load_adapter(name, golden(name)).unwrap());
    (dir, model)
}

fn difference(found: &[f32], expected: &[f32]) -> f32 {
    let largest = expected.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
    let last = &found[found.len() - expected.len()..];
    last.iter().zip(expected).fold(0.0_f32, |worst, (a, b)| worst.max((a - b).abs() / largest))
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// Keys and values depend on the adapter: nothing is taken from a request with another one.
#[test]
fn prefixes_are_those_of_the_same_adapter() {
    // Longer than a page.
    let (dir, source) = base();
    let mut config: Value =
        serde_json::from_slice(&std::fs::read(golden("base").join("config.json")).unwrap()).unwrap();
    config["max_position_embeddings"] = json!(256);
    dir.write("config.json", config.to_string());
    let load = |options: &ModelOptions| {
        let model = runtime(2).load(&source, options).unwrap();
        ADAPTERS.iter().for_each(|name| model.load_adapter(name, golden(name)).unwrap());
        model
    };
    let (cold, warm) = (load(&ModelOptions::default()), load(&ModelOptions::default().prefix_cache(true)));
    let prompt: Vec<u32> = (0..100).map(|i| 3 + i * 7 % 29).collect();
    for round in 0..2 {
        for name in [None, Some("everything"), Some("some")] {
            let options = GenerateOptions::default().max_tokens(6_u32).temperature(0.0).ignore_eos(true);
            let options = options.adapter(name.map(str::to_owned));
            let found = warm.generate(prompt.clone(), &options).unwrap();
            assert_eq!(
                found.token_ids,
                cold.generate(prompt.clone(), &options).unwrap().token_ids,
                "{name:?}"
            );
            assert_eq!(found.usage.cached_tokens, 99 * round, "{name:?}");
        }
    }
}

#[test]
fn adapters_compute_what_peft_computes() {
    let expected: Value = serde_json::from_slice(&std::fs::read(golden("expected.json")).unwrap()).unwrap();
    let tokens: Vec<u32> = serde_json::from_value(expected["tokens"].clone()).unwrap();
    for (weights, tolerance) in [(WeightType::F32, 1e-5), (WeightType::Bf16, 0.01), (WeightType::Int8, 0.05)]
    {
        let (_dir, model) = with_adapters(&ModelOptions::default().weights(weights));
        assert_eq!(model.adapters().unwrap(), ADAPTERS);
        for name in ["", "everything", "some"] {
            let logits: Vec<f32> = serde_json::from_value(expected["logits"][name].clone()).unwrap();
            let adapter = Some(name).filter(|name| !name.is_empty());
            let found = model.logits_with(&tokens, adapter).unwrap();
            let found = difference(&found, &logits);
            assert!(found < tolerance, "{name} with {weights}: {found}");
        }
        let (_dir, plain) = load(&ModelOptions::default().weights(weights));
        assert_eq!(bits(&model.logits(&tokens).unwrap()), bits(&plain.logits(&tokens).unwrap()), "{weights}");
    }
}

fn options(adapter: Option<&str>) -> GenerateOptions {
    let mut options =
        GenerateOptions::default().max_tokens(6_u32).temperature(0.0).ignore_eos(true).logprobs(8_u32);
    options.adapter = adapter.map(str::to_owned);
    options
}

/// Tokens and log-probabilities, bit for bit.
fn answer(completion: &Completion) -> Vec<(u32, u32)> {
    let logprobs = completion.logprobs.as_ref().unwrap();
    let all = logprobs.iter().flat_map(|report| std::iter::once(&report.chosen).chain(&report.top));
    all.map(|entry| (entry.id, entry.logprob.to_bits())).collect()
}

#[test]
fn sequences_of_a_batch_have_adapters_of_their_own() {
    let jobs = [None, Some("some"), Some("everything"), None, Some("some"), Some("everything"), Some("some")];
    for weights in [WeightType::F32, WeightType::Int8, WeightType::Int4, WeightType::Bf16] {
        // Prompts in chunks too, so that sequences that decode and those that read are together.
        let (_dir, model) = with_adapters(&ModelOptions::default().weights(weights).prefill_chunk(16_u32));
        let prompt = |job: usize| {
            Prompt::Tokens((0..5 + 4 * job as u32).map(|i| 3 + (i * 7 + job as u32) % 29).collect())
        };
        let alone: Vec<_> = jobs
            .iter()
            .enumerate()
            .map(|(job, adapter)| answer(&model.generate(prompt(job), &options(*adapter)).unwrap()))
            .collect();
        let streams: Vec<_> = jobs
            .iter()
            .enumerate()
            .map(|(job, adapter)| model.stream(prompt(job), &options(*adapter)).unwrap())
            .collect();
        let together: Vec<_> = streams.into_iter().map(|stream| answer(&stream.finish().unwrap())).collect();
        assert_eq!(together, alone, "{weights}");
        let same = |a: usize, b: usize| {
            let ask = |job: usize| answer(&model.generate(prompt(9), &options(jobs[job])).unwrap());
            ask(a) == ask(b)
        };
        assert!(same(1, 4) && !same(0, 1) && !same(1, 2) && !same(0, 2), "{weights}");
    }
}

#[test]
fn sessions_change_adapters_between_requests() {
    let (_dir, model) = with_adapters(&ModelOptions::default());
    let mut session = model.session().unwrap();
    session.append(Prompt::Tokens((3..23).collect()), AddSpecialTokens::No).unwrap();
    let (mut cached, mut answers) = (Vec::new(), Vec::new());
    for adapter in [None, Some("some"), Some("some"), None] {
        let completion = session.generate(&options(adapter)).unwrap();
        cached.push(completion.usage.cached_tokens);
        assert_eq!(completion.options["adapter"], json!(adapter));
        let tokens = session.tokens().unwrap();
        let prompt = Prompt::Tokens(tokens[..tokens.len() - 6].to_vec());
        let fresh = model.generate(prompt, &options(adapter)).unwrap();
        assert_eq!(answer(&completion), answer(&fresh), "{adapter:?}");
        answers.push(completion.token_ids);
    }
    // What another adapter computed is not gone on from.
    assert_eq!((cached[0], cached[1], cached[3]), (0, 0, 0));
    assert!(cached[2] > 20, "{cached:?}");
    let error = session.generate(&options(Some("other"))).unwrap_err();
    check(&error, ErrorKind::InvalidArgument, &["adapter", "everything, some", "other"]);
}

#[test]
fn adapters_count_in_the_budget_and_are_freed() {
    let (_dir, source) = base();
    let runtime = Runtime::new(&RuntimeOptions::default().threads(1).memory_budget(64_u64 << 20)).unwrap();
    let model = runtime.load(&source, &ModelOptions::default()).unwrap();
    let before = runtime.memory_used();
    model.load_adapter("a", golden("everything")).unwrap();
    let one = runtime.memory_used() - before;
    // 4 ranks of 7 projections in f32 panels of 16 columns.
    assert!(one > 4 * 4 * 1000, "{one}");
    check(
        &model.load_adapter("a", golden("some")).unwrap_err(),
        ErrorKind::InvalidArgument,
        &["already", "\"a\""],
    );
    check(
        &model.load_adapter("", golden("some")).unwrap_err(),
        ErrorKind::InvalidArgument,
        &["an empty text"],
    );
    let mut session = model.session().unwrap();
    session.append(Prompt::Tokens(vec![5, 6, 7]), AddSpecialTokens::No).unwrap();
    let first = session.generate(&options(Some("a"))).unwrap();
    model.unload_adapter("a").unwrap();
    check(&model.unload_adapter("a").unwrap_err(), ErrorKind::InvalidArgument, &["none", "\"a\""]);
    check(&session.generate(&options(Some("a"))).unwrap_err(), ErrorKind::InvalidArgument, &["\"a\""]);
    assert!(runtime.memory_used() > before, "the session holds it");
    drop(session);
    let pages = runtime.memory_used();
    assert!(pages < before + one, "{pages} {before} {one}");
    // Under its old name it is another one.
    model.load_adapter("a", golden("some")).unwrap();
    let second = model.generate(Prompt::Tokens(vec![5, 6, 7]), &options(Some("a"))).unwrap();
    assert_ne!(answer(&first), answer(&second));

    let left = runtime.memory_used();
    let tight = Runtime::new(&RuntimeOptions::default().threads(1).memory_budget(left)).unwrap();
    let model = tight.load(&source, &ModelOptions::default()).unwrap();
    let reserve = tight.budget().reserve(left - tight.memory_used(), "the rest").unwrap();
    let error = model.load_adapter("a", golden("everything")).unwrap_err();
    check(&error, ErrorKind::OutOfBudget, &["an adapter"]);
    drop(reserve);
    model.close();
    assert_eq!(model.load_adapter("b", golden("some")).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn merged_adapters_are_part_of_the_weights() {
    let (_dir, source) = base();
    let runtime = runtime(2);
    let tokens: Vec<u32> = (3..20).collect();
    let merge = |names: &[&str]| names.iter().map(|name| golden(name)).collect::<Vec<_>>();
    let (_other, model) = with_adapters(&ModelOptions::default().weights(WeightType::F32));
    for name in ADAPTERS {
        let options = ModelOptions::default().weights(WeightType::F32).merge_adapters(merge(&[name]));
        let merged = runtime.load(&source, &options).unwrap().logits(&tokens).unwrap();
        let found = difference(&merged, &model.logits_with(&tokens, Some(name)).unwrap());
        assert!(found < 1e-5, "{name}: {found}");
    }
    let both = ModelOptions::default().merge_adapters(merge(&ADAPTERS));
    let one_way = runtime.load(&source, &both).unwrap().logits(&tokens).unwrap();
    assert!(one_way != runtime.load(&source, &ModelOptions::default()).unwrap().logits(&tokens).unwrap());
    let dir = TempDir::new();
    let packed = dir.path().join("packed");
    runtime.pack(&source, &packed, &PackOptions::default().merge_adapters(merge(&ADAPTERS))).unwrap();
    let packed = Source::Path(packed);
    assert!(runtime.load(&packed, &ModelOptions::default()).unwrap().logits(&tokens).unwrap() == one_way);
    check(
        &runtime.load(&packed, &both).unwrap_err(),
        ErrorKind::InvalidArgument,
        &["merge_adapters", "packed"],
    );
    // Cached files of different adapters are different.
    let cached = |names: &[&str]| {
        let options = ModelOptions::default().cache(dir.path().join("cache")).merge_adapters(merge(names));
        runtime.load(&source, &options).unwrap().logits(&tokens).unwrap()
    };
    for _ in 0..2 {
        assert!(cached(&ADAPTERS) == one_way && cached(&["some"]) != one_way && cached(&[]) != one_way);
    }
    assert_eq!(std::fs::read_dir(dir.path().join("cache")).unwrap().count(), 3);
}

#[test]
fn merged_matrices_of_a_quantized_model_are_converted() {
    let dir = TempDir::new();
    let awq = Path::new(TOKENIZER).parent().unwrap().join("awq");
    for file in ["config.json", "model.safetensors"] {
        dir.write(file, std::fs::read(awq.join(file)).unwrap());
    }
    dir.write("tokenizer.json", std::fs::read(TOKENIZER).unwrap());
    let source = Source::Path(dir.path().to_owned());
    let options = ModelOptions::default().merge_adapters(vec![golden("some")]);
    let plan = runtime(1).plan(&source, &options).unwrap();
    let count = |own| {
        let of = |stored: &&StoredMatrices| stored.own_codes == own && stored.format.starts_with("AWQ");
        plan.stored.iter().filter(of).map(|stored| stored.matrices).sum::<u64>()
    };
    // q, v and up are changed, and the gate goes with up.
    assert_eq!((count(true), count(false)), (3, 4));
}

/// A directory with an adapter of `tensors`.
fn adapter(config: Value, tensors: &[Tensor<'_>]) -> TempDir {
    let dir = TempDir::new();
    let mut full =
        json!({"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 4, "bias": "none"});
    for (key, value) in config.as_object().unwrap() {
        full[key] = value.clone();
    }
    dir.write(CONFIG, full.to_string());
    dir.write("adapter_model.safetensors", safetensors("{}", tensors));
    dir
}

const A: &str = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
const B: &str = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight";

fn pair() -> Vec<Tensor<'static>> {
    vec![(A, "F32", &[2, 160], f32_bytes(&[0.5; 320])), (B, "BF16", &[32, 2], bf16_bytes(&[0.5; 64]))]
}

#[test]
fn other_adapters_are_refused_by_name() {
    let (_dir, model) = load(&ModelOptions::default());
    let (invalid, unsupported) = (ErrorKind::InvalidModel, ErrorKind::UnsupportedModel);
    let load = |config: Value, tensors: &[Tensor<'_>]| -> Result<()> {
        let dir = adapter(config, tensors);
        model.load_adapter("x", dir.path())?;
        model.unload_adapter("x")
    };
    load(json!({"something_new": null, "and_more": {}, "off": false}), &pair()).unwrap();
    for (config, kind, word) in [
        (json!({"peft_type": "LOHA"}), unsupported, "peft_type"),
        (json!({"task_type": "SEQ_CLS"}), unsupported, "task_type"),
        (json!({"use_dora": true}), unsupported, "use_dora"),
        (json!({"bias": "all"}), unsupported, "bias"),
        (json!({"lora_bias": true}), unsupported, "lora_bias"),
        (json!({"modules_to_save": ["lm_head"]}), unsupported, "modules_to_save"),
        (json!({"fan_in_fan_out": true}), unsupported, "fan_in_fan_out"),
        (json!({"layer_replication": [[0, 1]]}), unsupported, "layer_replication"),
        (json!({"trainable_token_indices": [1]}), unsupported, "trainable_token_indices"),
        (json!({"init_lora_weights": "pissa_niter_4"}), unsupported, "init_lora_weights"),
        (json!({"something_new": 3}), unsupported, "something_new"),
        (json!({"r": 0}), invalid, "r: expected a positive"),
        (json!({"r": null}), invalid, "r: expected"),
        (json!({"lora_alpha": null}), invalid, "lora_alpha"),
        (json!({"lora_alpha": 1e300}), invalid, "finite scale"),
        (json!({"r": 1 << 20}), invalid, "rank of at most"),
        (json!({"rank_pattern": {"(": 2}}), invalid, "rank_pattern"),
        (json!({"rank_pattern": {"q_proj": 0}}), invalid, "rank_pattern"),
        (json!({"alpha_pattern": {"q_proj": "x"}}), invalid, "alpha_pattern"),
        (json!({"rank_pattern": {"q_proj": 3}}), invalid, "[3, 160]"),
    ] {
        check(&load(config, &pair()).unwrap_err(), kind, &[word]);
    }
    let changed = |index: usize, name: &'static str| {
        let mut tensors = pair();
        tensors[index].0 = name;
        load(json!({}), &tensors).unwrap_err()
    };
    check(&changed(0, "model.layers.0.x"), unsupported, &["base_model.model."]);
    let magnitude = "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector";
    check(&changed(0, magnitude), unsupported, &["lora_magnitude_vector", "lora_A.weight"]);
    check(&changed(1, "base_model.model.lm_head.lora_B.weight"), unsupported, &["module \"lm_head\""]);
    check(&load(json!({}), &pair()[..1]).unwrap_err(), invalid, &["q_proj.lora_B.weight", "found none"]);
    check(&load(json!({}), &[]).unwrap_err(), invalid, &["expected tensors"]);
    // As in a checkpoint with more than text; under both names is once too often.
    const OTHER: &str = "base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_A.weight";
    const OTHER_B: &str = "base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_B.weight";
    let mut renamed = pair();
    renamed[0].0 = OTHER;
    load(json!({}), &renamed).unwrap();
    // Patterns are about the names in the files.
    let pattern =
        json!({"lora_alpha": 4, "r": 2, "alpha_pattern": {"language_model.layers.0.self_attn.q_proj": 16}});
    let mut both = pair();
    (both[0].0, both[1].0) = (OTHER, OTHER_B);
    let dir = adapter(pattern, &both);
    let names = Opened::open(&base().1).unwrap().spec.tensors();
    let files = AdapterFiles::open(dir.path(), &names, Use::Separate).unwrap();
    assert_eq!(files.pairs["model.layers.0.self_attn.q_proj"].scale, 8.0);
    renamed.push(pair().remove(0));
    check(&load(json!({}), &renamed).unwrap_err(), invalid, &["q_proj.lora_A.weight", "another name"]);
    let mut wide = pair();
    (wide[1].2, wide[1].3) = (&[33, 2], bf16_bytes(&[0.5; 66]));
    check(&load(json!({}), &wide).unwrap_err(), invalid, &["[32, 2]", "[33, 2]"]);
    let mut ints = pair();
    (ints[0].1, ints[0].3) = ("I8", vec![1; 320]);
    check(&load(json!({}), &ints).unwrap_err(), unsupported, &["I8"]);
    let missing = TempDir::new();
    check(&model.load_adapter("x", missing.path()).unwrap_err(), ErrorKind::NotFound, &[CONFIG]);
    missing.write(CONFIG, adapter_config());
    let error = model.load_adapter("x", missing.path()).unwrap_err();
    check(&error, ErrorKind::NotFound, &["adapter_model.safetensors"]);
}

fn adapter_config() -> Vec<u8> {
    std::fs::read(golden("some").join(CONFIG)).unwrap()
}

/// Numbers that look random.
fn noise(seed: &mut u64, len: usize, size: f32) -> Vec<f32> {
    let mut next = || {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((*seed >> 40) as f32 / (1 << 23) as f32 - 1.0) * size
    };
    (0..len).map(|_| next()).collect()
}

/// An adapter for every module of a model that can have one.
fn for_all_modules(source: &Source, used: Use) -> TempDir {
    let opened = Opened::open(source).unwrap();
    let names = opened.spec.tensors();
    let mut seed = 3;
    let mut tensors: Vec<(String, [usize; 2], Vec<u8>)> = Vec::new();
    let mut sizes: Vec<_> = crate::load::adapter::files::sizes(&names, used).into_iter().collect();
    sizes.sort_by(|(one, _), (other, _)| one.cmp(other));
    for (module, MatrixSize { n, k }) in sizes {
        let mut add = |suffix, shape: [usize; 2]| {
            let name = format!("base_model.model.{module}.lora_{suffix}.weight");
            tensors.push((name, shape, f32_bytes(&noise(&mut seed, shape[0] * shape[1], 0.2))));
        };
        add("A", [2, k]);
        add("B", [n, 2]);
    }
    let tensors: Vec<Tensor<'_>> =
        tensors.iter().map(|(name, shape, data)| (name.as_str(), "F32", &shape[..], data.clone())).collect();
    adapter(json!({}), &tensors)
}

#[test]
fn every_family_is_adapted_as_it_is_merged() {
    let runtime = runtime(2);
    let tokens: Vec<u32> = (3..40).collect();
    for family in [
        "llama",
        "qwen2",
        "qwen2_moe",
        "qwen3_moe",
        "gemma2",
        "phi3",
        "cohere2",
        "glm4",
        "olmo2",
        "deepseek_v3",
        "lfm2",
        "qwen3_next",
        "gemma4_moe",
        "granite4",
    ] {
        let dir = support::family(family);
        let source = Source::Path(dir);
        let adapter = for_all_modules(&source, Use::Separate);
        let plain = ModelOptions::default().weights(WeightType::F32);
        let model = runtime.load(&source, &plain).unwrap();
        model.load_adapter("all", adapter.path()).unwrap();
        let found = model.logits_with(&tokens, Some("all")).unwrap();
        let merged = plain.merge_adapters(vec![adapter.path().to_owned()]);
        let expected = runtime.load(&source, &merged).unwrap().logits(&tokens).unwrap();
        let error = difference(&found, &expected);
        assert!(error < 1e-4, "{family}: {error}");
        assert!(difference(&model.logits(&tokens).unwrap(), &expected) > 1e-2, "{family}: no effect");
    }
}

#[test]
fn experts_heads_and_encoders_are_merged() {
    let own = |path: &str| Source::Path(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(path));
    for (source, modules) in [
        (own("models/qwen3_5_moe"), &["lm_head", "model.layers.1.mlp.experts.3.down_proj"][..]),
        (
            own("golden/embeddings/bert"),
            &["encoder.layer.2.intermediate.dense", "encoder.layer.0.output.dense"],
        ),
    ] {
        let dir = for_all_modules(&source, Use::Merged);
        let plain = Opened::open(&source).unwrap();
        let names = plain.spec.tensors();
        let files = AdapterFiles::open(dir.path(), &names, Use::Merged).unwrap();
        let merged = Opened::open(&source).unwrap().merged(&[dir.path().to_owned()]).unwrap();
        let row = |opened: &Opened, matrix, row: usize| {
            let rows = opened.weights.matrix(matrix, &mut None).unwrap();
            let (mut stored, mut out) = (Vec::new(), vec![0.0; matrix.k]);
            rows.fetch(row..row + 1, &mut stored).unwrap();
            rows.read_row(row, &stored, &mut out);
            out
        };
        for module in modules {
            let matrix = names.matrices().find(|matrix| matrix.name == format!("{module}.weight")).unwrap();
            let pair = &files.pairs[*module];
            let (a, b) = (files.a(pair).unwrap(), files.b(pair).unwrap());
            for index in [0, matrix.n - 1] {
                let (before, after) = (row(&plain, matrix, index), row(&merged, matrix, index));
                for (at, (before, after)) in before.iter().zip(&after).enumerate() {
                    let product: f32 = (0..2).map(|rank| b[2 * index + rank] * a[rank * matrix.k + at]).sum();
                    let expected = before + product * pair.scale;
                    assert!((after - expected).abs() < 1e-5, "{module} {index} {at}: {after} {expected}");
                }
            }
            if *module == "lm_head" || module.contains("experts") {
                let error = AdapterFiles::open(dir.path(), &names, Use::Separate).unwrap_err();
                check(&error, ErrorKind::UnsupportedModel, &["can only be merged"]);
            }
        }
    }
}

proptest::proptest! {
    #[test]
    fn any_configuration_is_read_or_refused(
        keys in proptest::collection::vec(0_usize..12, 0..6),
        values in proptest::collection::vec(0_usize..10, 6),
    ) {
        const KEYS: [&str; 12] = [
            "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "bias", "use_dora", "target_modules",
            "init_lora_weights", "peft_type", "modules_to_save", "new",
        ];
        let options = [
            json!(2), json!(-1), json!(1e300), json!("LORA"), json!(true), json!({"q_proj": 2}), json!({"(": 2}),
            json!([1]), json!(null), json!({"a": {}}),
        ];
        let mut config = json!({});
        for (key, value) in keys.iter().zip(&values) {
            config[KEYS[*key]] = options[*value].clone();
        }
        let (_dir, source) = base();
        let names = Opened::open(&source).unwrap().spec.tensors();
        if let Err(error) = AdapterFiles::open(adapter(config, &pair()).path(), &names, Use::Separate) {
            let kind = error.kind();
            assert!(matches!(kind, ErrorKind::InvalidModel | ErrorKind::UnsupportedModel), "{error}");
        }
    }
}
