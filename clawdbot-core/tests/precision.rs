//! What lower precision of weights and KV cache costs in accuracy, against f32: KL divergence and top-1 agreement.
//!
//! `cargo test -p clawdbot-core --test precision -- --nocapture` prints the table of `docs/numerics.md`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod support;

use clawdbot_core::{
    GenerateOptions, KvType, Model, ModelOptions, Runtime, RuntimeOptions, Source, WeightType,
};

fn load(source: &Source, weights: WeightType, kv: KvType) -> Model {
    let runtime = Runtime::new(&RuntimeOptions::default().threads(2)).unwrap();
    runtime.load(source, &ModelOptions::default().weights(weights).kv(kv)).unwrap()
}

/// Probabilities of a row of logits.
fn softmax(row: &[f32]) -> Vec<f64> {
    let max = row.iter().copied().fold(f32::MIN, f32::max);
    let weights: Vec<f64> = row.iter().map(|&x| f64::from(x - max).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|w| w / sum).collect()
}

fn argmax(row: &[f32]) -> usize {
    (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best })
}

/// Mean KL(reference || other) in nats, and the share of positions with the same most likely token.
fn compare(reference: &[f32], other: &[f32], vocab: usize) -> (f64, f64) {
    let rows = reference.chunks_exact(vocab).zip(other.chunks_exact(vocab));
    let count = reference.len() as f64 / vocab as f64;
    rows.fold((0.0, 0.0), |(kl, same), (a, b)| {
        let terms =
            softmax(a).into_iter().zip(softmax(b)).map(|(p, q)| if p > 0.0 { p * (p / q).ln() } else { 0.0 });
        (kl + terms.sum::<f64>() / count, same + f64::from(u8::from(argmax(a) == argmax(b))) / count)
    })
}

/// Weights and KV cache, all judged against f32 and f32.
const TYPES: [(WeightType, KvType); 5] = [
    (WeightType::Bf16, KvType::Bf16),
    (WeightType::Int8, KvType::Bf16),
    (WeightType::Int8, KvType::Int8),
    (WeightType::F32, KvType::Int8),
    (WeightType::Int4, KvType::Bf16),
];

struct Row {
    name: String,
    kl: [f64; 5],
    top1: [f64; 5],
}

fn measure(name: &str, source: &Source, tokens: Option<Vec<u32>>) -> Row {
    let exact = load(source, WeightType::F32, KvType::F32);
    let vocab = exact.info().vocab_size;
    // A trained model is judged on text it writes itself.
    let tokens = tokens.unwrap_or_else(|| {
        let options =
            GenerateOptions::default().temperature(1.0).seed(7).max_tokens(400_u32).ignore_eos(true);
        let mut session = exact.session().unwrap();
        session.generate(&options).unwrap();
        session.tokens().unwrap()
    });
    let reference = exact.logits(&tokens).unwrap();
    let mut row = Row { name: name.to_owned(), kl: [0.0; 5], top1: [0.0; 5] };
    for (i, (weights, kv)) in TYPES.into_iter().enumerate() {
        (row.kl[i], row.top1[i]) =
            compare(&reference, &load(source, weights, kv).logits(&tokens).unwrap(), vocab);
    }
    row
}

#[test]
fn lower_precision_stays_close_to_f32() {
    let mut rows = vec![measure("builtin (stored as int8)", &Source::Builtin, None)];
    if let Some(dir) = support::shared("real-models/stories260k") {
        rows.push(measure("stories260k", &Source::Path(dir), None));
    }
    for family in ["llama", "llama3_rope", "llama_yarn", "mistral", "qwen2", "qwen3"] {
        let tokens = (0..300_u32).map(|i| 3 + (i * 37 + i * i * 11) % 500).collect();
        let source = Source::Path(support::family(family));
        rows.push(measure(&format!("{family} (random)"), &source, Some(tokens)));
    }
    println!(
        "| model | bf16, bf16 | int8, bf16 | int8, int8 | f32, int8 | int4, bf16 |\n|---|--:|--:|--:|--:|--:|"
    );
    for Row { name, kl, top1 } in &rows {
        let cells = kl.iter().zip(top1).map(|(kl, top1)| format!("{kl:.1e}, {:.1} %", 100.0 * top1));
        println!("| {name} | {} |", cells.collect::<Vec<_>>().join(" | "));
        assert!(kl[0] < 2e-3 && kl[1] < 1e-2 && kl[2] < 1.5e-2 && kl[3] < 2e-3, "{name}");
        assert!(kl[4] < 0.2, "{name}");
        // Random models have many tokens that are almost equally likely.
        assert!(top1[4] > if name.ends_with("(random)") { 0.3 } else { 0.8 }, "{name}");
        assert!(top1[0] > 0.93 && top1[1] > 0.85 && top1[2] > 0.85 && top1[3] > 0.93, "{name}");
    }
}

/// How far files are from f32 on texts: of `CLAWDBOT_MODEL`, on the first 1000 tokens of each of `CLAWDBOT_TEXTS`; int8, int4,
/// and the files in `CLAWDBOT_FILES`. Lists have commas between paths. `CLAWDBOT_TEXTS=... cargo test -p clawdbot-core
/// --release --test precision -- --ignored --nocapture` prints rows of the table in `docs/numerics.md`, calibrated int4.
#[test]
#[ignore = "needs a model, packed files of it, and texts"]
fn files_on_texts() {
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    let list = |text: String| -> Vec<String> {
        text.split(',').filter(|path| !path.is_empty()).map(str::to_owned).collect()
    };
    let source = Source::Path(variable("CLAWDBOT_MODEL").into());
    let texts = list(variable("CLAWDBOT_TEXTS"));
    let exact = load(&source, WeightType::F32, KvType::F32);
    let vocab = exact.info().vocab_size;
    let references: Vec<(Vec<u32>, Vec<f32>)> = texts
        .iter()
        .map(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            let add = clawdbot_core::AddSpecialTokens::Yes;
            let mut tokens = exact.tokenizer().unwrap().encode(&text, add).unwrap();
            tokens.truncate(1000);
            let logits = exact.logits(&tokens).unwrap();
            (tokens, logits)
        })
        .collect();
    drop(exact);
    let names: Vec<String> = texts
        .iter()
        .zip(&references)
        .map(|(path, (tokens, _))| format!("{path}, {} tokens", tokens.len()))
        .collect();
    println!("| weights | {} |\n|---|{}", names.join(" | "), "--:|".repeat(texts.len()));
    let print = |name: &str, model: Model| {
        let cells = references.iter().map(|(tokens, reference)| {
            let (kl, top1) = compare(reference, &model.logits(tokens).unwrap(), vocab);
            format!("{kl:.3e}, {:.1} %", 100.0 * top1)
        });
        println!("| {name} | {} |", cells.collect::<Vec<_>>().join(" | "));
    };
    for weights in [WeightType::Int8, WeightType::Int4] {
        print(weights.name(), load(&source, weights, KvType::Bf16));
    }
    for file in list(std::env::var("CLAWDBOT_FILES").unwrap_or_default()) {
        let runtime = Runtime::new(&RuntimeOptions::default().threads(2)).unwrap();
        let options = ModelOptions::default().kv(KvType::Bf16);
        print(&file, runtime.load(&Source::Path((&file).into()), &options).unwrap());
    }
}
