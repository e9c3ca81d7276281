//! The same bits whatever the instruction set, the batch, the chunking and the number of threads.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod support;

use std::path::PathBuf;

use clawdbot_core::{
    GenerateOptions, KvType, Model, ModelOptions, Prompt, Runtime, RuntimeOptions, Source, WeightType,
};

const TYPES: [(WeightType, KvType); 5] = [
    (WeightType::Int8, KvType::Auto),
    (WeightType::Int8, KvType::Int8),
    (WeightType::Int4, KvType::Auto),
    (WeightType::Bf16, KvType::Auto),
    (WeightType::F32, KvType::Auto),
];

fn runtime(threads: u32, kernels: &str) -> Runtime {
    Runtime::new(&RuntimeOptions::default().threads(threads).kernels(kernels.to_owned())).unwrap()
}

/// The built-in model, and the conformance models where they are.
fn sources() -> Vec<Source> {
    let shared = [
        "llama_yarn",
        "mistral",
        "qwen2",
        "qwen3",
        "gemma2",
        "cohere2",
        "glm4",
        "olmo2",
        "qwen2_moe",
        "gpt_oss",
        "deepseek_v3",
        "lfm2",
        "qwen3_next",
    ]
    .iter()
    .filter_map(|name| support::shared(&format!("conformance/models/{name}")));
    std::iter::once(Source::Builtin).chain(shared.map(|dir: PathBuf| Source::Path(dir))).collect()
}

fn prompt(length: usize, salt: u32) -> Vec<u32> {
    (0..length as u32).map(|i| 3 + (i * 37 + salt * 101) % 500).collect()
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn every_instruction_set_and_thread_count() {
    for source in sources() {
        for (weights, kv) in TYPES {
            let logits = |kernels: &str, threads| {
                let model = runtime(threads, kernels)
                    .load(&source, &ModelOptions::default().weights(weights).kv(kv))
                    .unwrap();
                bits(&model.logits(&prompt(83, 1)).unwrap())
            };
            let expected = logits("scalar", 1);
            for kernels in Runtime::available_kernels() {
                for threads in [1, 2, 3] {
                    assert!(
                        logits(kernels, threads) == expected,
                        "{source:?} {weights} {kv} {kernels} x {threads}"
                    );
                }
            }
        }
    }
}

/// Logits at the end of the prompt by way of greedy log-probabilities, which go through the same sampler input.
fn greedy(model: &Model, prompts: &[Vec<u32>]) -> Vec<(Vec<u32>, Vec<u32>)> {
    let options =
        GenerateOptions::default().max_tokens(12_u32).temperature(0.0).ignore_eos(true).logprobs(5_u32);
    let prompts = prompts.iter().map(|prompt| Prompt::Tokens(prompt.clone())).collect();
    let completions = model.generate_batch(prompts, &options);
    let summary = |completion: clawdbot_core::Completion| {
        let logprobs = completion.logprobs.unwrap();
        let all = logprobs.iter().flat_map(|entry| entry.top.iter().map(|top| top.logprob.to_bits()));
        (completion.token_ids, all.collect())
    };
    completions.into_iter().map(|completion| summary(completion.unwrap())).collect()
}

#[test]
fn any_batch_and_any_chunk() {
    let prompts: Vec<Vec<u32>> = [1, 5, 17, 64, 65, 130, 200].iter().map(|&n| prompt(n, n as u32)).collect();
    for source in sources() {
        for (weights, kv) in TYPES {
            let load = |options: ModelOptions| {
                let runtime = Runtime::new(&RuntimeOptions::default().threads(2)).unwrap();
                runtime.load(&source, &options.weights(weights).kv(kv)).unwrap()
            };
            let model = load(ModelOptions::default());
            let alone: Vec<_> =
                prompts.iter().flat_map(|prompt| greedy(&model, std::slice::from_ref(prompt))).collect();
            assert!(greedy(&model, &prompts) == alone, "{source:?} {weights} {kv}: batch of seven");
            for chunk in [1_u32, 7, 64, 100] {
                let model = load(ModelOptions::default().prefill_chunk(chunk).max_batch(3_u32));
                assert!(greedy(&model, &prompts) == alone, "{source:?} {weights} {kv}: chunks of {chunk}");
            }
        }
    }
}

#[test]
fn a_session_continues_like_a_single_prompt() {
    let model =
        runtime(2, Runtime::available_kernels()[0]).load(&Source::Builtin, &ModelOptions::default()).unwrap();
    let options = GenerateOptions::default().max_tokens(20_u32).temperature(0.0).ignore_eos(true);
    let mut session = model.session().unwrap();
    session.append(prompt(70, 1), false).unwrap();
    let first = session.generate(&options).unwrap();
    session.append(prompt(9, 2), false).unwrap();
    let second = session.generate(&options).unwrap();
    assert_eq!(second.usage.cached_tokens, 70 + 19, "all but the last token were computed");

    let whole = [prompt(70, 1), first.token_ids.clone(), prompt(9, 2)].concat();
    assert_eq!(model.generate(whole.clone(), &options).unwrap().token_ids, second.token_ids);

    session.truncate(40).unwrap();
    session.append(&whole[40..], false).unwrap();
    assert_eq!(session.generate(&options).unwrap().token_ids, second.token_ids);
}
