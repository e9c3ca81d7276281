//! The same bits whatever the instruction set, the batch, the chunking and the number of threads.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod support;

use std::path::PathBuf;

use clawdbot_core::{
    AddSpecialTokens, GenerateOptions, KvType, Model, ModelOptions, Prompt, Runtime, RuntimeOptions, Source,
    WeightType,
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

/// The built-in model, and small ones of families that differ.
fn sources() -> Vec<Source> {
    let families = [
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
        "qwen3_5_moe",
        "ministral3",
        "granite4",
        "gemma3n",
        "gemma4",
        "gemma4_moe",
        "phi2",
        "gpt2",
        "apertus",
        "hunyuan",
        "nemotron_h",
        "nemotron_h_moe",
        "llama4",
    ]
    .into_iter()
    .map(support::family);
    std::iter::once(Source::Builtin).chain(families.map(|dir: PathBuf| Source::Path(dir))).collect()
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

/// Every prompt alone, all together, and in chunks.
fn check_batches_and_chunks(source: &Source, weights: WeightType, kv: KvType, kernels: &str) {
    let prompts: Vec<Vec<u32>> = [1, 5, 17, 64, 65, 130, 200].iter().map(|&n| prompt(n, n as u32)).collect();
    let load =
        |options: ModelOptions| runtime(2, kernels).load(source, &options.weights(weights).kv(kv)).unwrap();
    let model = load(ModelOptions::default());
    let alone: Vec<_> =
        prompts.iter().flat_map(|prompt| greedy(&model, std::slice::from_ref(prompt))).collect();
    assert!(greedy(&model, &prompts) == alone, "{source:?} {weights} {kv} {kernels}: batch of seven");
    for chunk in [1_u32, 7, 64, 100] {
        let model = load(ModelOptions::default().prefill_chunk(chunk).max_batch(3_u32));
        assert!(greedy(&model, &prompts) == alone, "{source:?} {weights} {kv} {kernels}: chunks of {chunk}");
    }
}

#[test]
fn any_batch_and_any_chunk() {
    let kernels = Runtime::new(&RuntimeOptions::default()).unwrap().kernels();
    for source in sources() {
        for (weights, kv) in TYPES {
            check_batches_and_chunks(&source, weights, kv, kernels);
        }
    }
}

#[test]
fn tiers_with_numerics_of_their_own() {
    for kernels in Runtime::named_kernels() {
        for source in sources() {
            check_batches_and_chunks(&source, WeightType::Bf16, KvType::Auto, kernels);
            let load = |kernels: &str, weights, threads| {
                runtime(threads, kernels).load(&source, &ModelOptions::default().weights(weights)).unwrap()
            };
            let logits = |kernels: &str, weights, threads| {
                load(kernels, weights, threads).logits(&prompt(83, 1)).unwrap()
            };
            let one = logits(kernels, WeightType::Bf16, 1);
            assert!(
                bits(&logits(kernels, WeightType::Bf16, 3)) == bits(&one),
                "{source:?} {kernels}: threads"
            );
            let (rounded, exact) = (load(kernels, WeightType::Bf16, 2), load("scalar", WeightType::Bf16, 2));
            let mut errors = Vec::new();
            for seed in 1..=9 {
                let prompt = prompt(20 + seed as usize, seed);
                let (one, other) = (rounded.logits(&prompt).unwrap(), exact.logits(&prompt).unwrap());
                assert!(bits(&one) != bits(&other), "{source:?} {kernels}: activations are rounded");
                let range = other.iter().fold(0.0_f32, |range, x| range.max(x.abs()));
                let error = one.iter().zip(&other).fold(0.0_f32, |error, (a, b)| error.max((a - b).abs()));
                errors.push(error / range);
            }
            // Not the largest, since a rounded router may choose another expert: then much is different.
            errors.sort_by(f32::total_cmp);
            assert!(errors[2] < 0.05, "{source:?} {kernels}: off by {errors:?} of the range");
            // All but bf16 weights is as everywhere.
            for weights in [WeightType::Int8, WeightType::F32] {
                assert!(
                    bits(&logits(kernels, weights, 2)) == bits(&logits("scalar", weights, 1)),
                    "{source:?} {kernels} {weights}"
                );
            }
        }
    }
}

/// Both parts of a conversation that was forked, each with the bits of one that never was.
#[test]
fn forks_go_on_like_single_prompts() {
    let options =
        GenerateOptions::default().max_tokens(9_u32).temperature(0.0).ignore_eos(true).logprobs(5_u32);
    let bits = |completion: &clawdbot_core::Completion| -> Vec<u32> {
        let logprobs = completion.logprobs.as_ref().unwrap();
        logprobs.iter().flat_map(|entry| entry.top.iter().map(|top| top.logprob.to_bits())).collect()
    };
    for source in sources() {
        for kv in [KvType::Auto, KvType::Int8] {
            let load = |options: ModelOptions| {
                runtime(2, Runtime::available_kernels()[0]).load(&source, &options.kv(kv)).unwrap()
            };
            let model = load(ModelOptions::default());
            // In the middle of a page, at its end, and after the window of those that have one.
            for length in [40, 64, 150] {
                let mut session = model.session().unwrap();
                session.append(prompt(length, 1), AddSpecialTokens::No).unwrap();
                let first = session.generate(&options).unwrap();
                let mut forks: Vec<_> = (0..3).map(|_| session.fork().unwrap()).collect();
                assert_eq!(forks[0].tokens().unwrap(), session.tokens().unwrap());
                forks.push(session);
                for (salt, fork) in (2..).zip(&mut forks) {
                    fork.append(prompt(70, salt), AddSpecialTokens::No).unwrap();
                }
                let mut streams: Vec<_> =
                    forks.iter_mut().map(|fork| fork.stream(&options).unwrap()).collect();
                streams[0].next_event().unwrap();
                for (salt, stream) in (2..).zip(streams) {
                    let found = stream.finish().unwrap();
                    let whole = [prompt(length, 1), first.token_ids.clone(), prompt(70, salt)].concat();
                    let expected = load(ModelOptions::default()).generate(whole, &options).unwrap();
                    let what = format!("{source:?} {kv} {length}");
                    assert_eq!(found.token_ids, expected.token_ids, "{what}");
                    assert!(bits(&found) == bits(&expected), "{what}");
                    assert!(found.usage.cached_tokens >= length - 1, "{what}: {}", found.usage.cached_tokens);
                }
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
    session.append(prompt(70, 1), AddSpecialTokens::No).unwrap();
    let first = session.generate(&options).unwrap();
    session.append(prompt(9, 2), AddSpecialTokens::No).unwrap();
    let second = session.generate(&options).unwrap();
    assert_eq!(second.usage.cached_tokens, 70 + 19, "all but the last token were computed");

    let whole = [prompt(70, 1), first.token_ids.clone(), prompt(9, 2)].concat();
    assert_eq!(model.generate(whole.clone(), &options).unwrap().token_ids, second.token_ids);

    session.truncate(40).unwrap();
    session.append(&whole[40..], AddSpecialTokens::No).unwrap();
    assert_eq!(session.generate(&options).unwrap().token_ids, second.token_ids);
}
