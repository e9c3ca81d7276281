//! How likely continuations are: to the bit what the logits of all tokens say.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use clawdbot_core::{
    AddSpecialTokens, CancelHandle, Completion, ContinuationScore, Driver, ErrorKind, GenerateOptions, Model,
    ModelOptions, Prompt, Runtime, RuntimeOptions, Source,
};

fn load(source: &Source, driver: Driver, budget: Option<u64>) -> Model {
    let runtime = RuntimeOptions::default().threads(2_u32).driver(driver).memory_budget(budget);
    Runtime::new(&runtime).unwrap().load(source, &ModelOptions::default()).unwrap()
}

fn tokens(length: u32, salt: u32) -> Vec<u32> {
    (0..length).map(|i| 3 + (i * 37 + salt * 101) % 400).collect()
}

/// Log-probability, and whether it is the first of the most likely ones, of each token from `first` on.
fn by_logits(model: &Model, all: &[u32], first: usize) -> Vec<(f32, bool)> {
    let vocab = model.info().vocab_size;
    let logits = model.logits(all).unwrap();
    let of = |at: usize| {
        let row = &logits[(at - 1) * vocab..at * vocab];
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|&x| libm::exp(f64::from(x) - f64::from(largest))).sum();
        let logprob = f64::from(row[all[at] as usize]) - (f64::from(largest) + libm::log(sum));
        let greedy = row.iter().position(|&x| x == largest) == Some(all[at] as usize);
        (logprob as f32, greedy)
    };
    (first..all.len()).map(of).collect()
}

fn check(model: &Model, prompt: &[u32], next: &[u32], found: &ContinuationScore) {
    let expected = by_logits(model, &[prompt, next].concat(), prompt.len());
    assert_eq!(found.token_ids, next);
    let bits: Vec<u32> = found.logprobs.iter().map(|x| x.to_bits()).collect();
    assert_eq!(bits, expected.iter().map(|(logprob, _)| logprob.to_bits()).collect::<Vec<_>>());
    assert_eq!(found.greedy, expected.iter().map(|(_, greedy)| *greedy).collect::<Vec<_>>());
    let sum: f64 = expected.iter().map(|(logprob, _)| f64::from(*logprob)).sum();
    assert_eq!(found.logprob.to_bits(), sum.to_bits());
    assert_eq!(found.is_greedy, expected.iter().all(|(_, greedy)| *greedy));
}

#[test]
fn scores_are_those_of_the_logits() {
    for family in ["", "gemma3", "qwen3_5", "granite4", "deepseek_v2", "lfm2"] {
        let source = match family {
            "" => Source::Builtin,
            family => Source::Path(support::family(family)),
        };
        for driver in [Driver::Caller, Driver::Thread] {
            let model = load(&source, driver, None);
            for length in [1, 2, 64, 65, 130] {
                let prompt = tokens(length, 1);
                let mut all = [1, 2, 3, 70].map(|length| tokens(length, length + 5)).to_vec();
                // What greedy sampling gives.
                let options = clawdbot_core::GenerateOptions::default().temperature(0.0).max_tokens(5_u32);
                all.push(model.generate(prompt.clone(), &options).unwrap().token_ids);
                let asked: Vec<Prompt> = all.iter().cloned().map(Prompt::Tokens).collect();
                let found = model.score(prompt.clone(), &asked).unwrap();
                assert_eq!(found.len(), all.len());
                for (next, found) in all.iter().zip(&found) {
                    check(&model, &prompt, next, found);
                }
                assert!(found.last().unwrap().is_greedy, "{family} {driver} {length}");
            }
        }
    }
}

#[test]
fn the_prompt_is_computed_once() {
    let model = load(&Source::Builtin, Driver::Caller, None);
    let asked: Vec<Prompt> = (0..8).map(|salt| Prompt::Tokens(tokens(2, salt))).collect();
    model.score(tokens(200, 1), &asked).unwrap();
    // 199 tokens of the prompt; then its last token and the first of each continuation.
    assert_eq!(model.runtime().metrics().models[0].computed_tokens, 199 + 8 * 2);
}

#[test]
fn many_continuations_share_little_memory() {
    let alone = load(&Source::Builtin, Driver::Caller, None);
    let (prompt, count) = (tokens(200, 1), 40);
    let all: Vec<Vec<u32>> = (0..count).map(|salt| tokens(30 + salt % 7, salt)).collect();
    let asked: Vec<Prompt> = all.iter().cloned().map(Prompt::Tokens).collect();
    let expected = alone.score(prompt.clone(), &asked).unwrap();
    let fixed = alone.runtime().memory_used();
    let budget = fixed + 3 * 320 * alone.info().plan.kv_bytes_per_token + (256 << 10);
    let tight = load(&Source::Builtin, Driver::Caller, Some(budget));
    assert_eq!(tight.score(prompt, &asked).unwrap(), expected);
}

#[test]
fn texts_are_tokenized_together() {
    let model = Model::builtin().unwrap();
    let tokenizer = model.tokenizer().unwrap();
    let prompt = "Once upon a time there was";
    let next = [" a little dog", " a cat.", "n't"];
    let asked: Vec<Prompt> = next.iter().map(|&text| text.into()).collect();
    let found = model.score(prompt, &asked).unwrap();
    for (next, found) in next.iter().zip(&found) {
        let all = tokenizer.encode(&format!("{prompt}{next}"), AddSpecialTokens::Yes).unwrap();
        let first = all.len() - found.token_ids.len();
        check(&model, &all[..first], &all[first..], found);
    }
    // Tokens, where either is tokens.
    let ids = tokenizer.encode(prompt, AddSpecialTokens::Yes).unwrap();
    let found = model.score(ids.clone(), &[" a cat".into(), vec![5, 6].into()]).unwrap();
    check(&model, &ids, &tokenizer.encode(" a cat", AddSpecialTokens::No).unwrap(), &found[0]);
    check(&model, &ids, &[5, 6], &found[1]);
    assert_eq!(model.score(prompt, &[vec![5, 6].into()]).unwrap()[0].logprobs, found[1].logprobs);
    assert_eq!(model.score(prompt, &[]).unwrap(), []);
    // Classes: their probabilities are in the proportions of the sums, and add up to 1.
    let classes = model.score(prompt, &[" cat".into(), " dog".into(), " car".into()]).unwrap();
    let sum: f64 = classes.iter().map(|class| class.probability).sum();
    let ratio = classes[0].probability / classes[1].probability;
    assert!((sum - 1.0).abs() < 1e-12);
    assert!((ratio - libm::exp(classes[0].logprob - classes[1].logprob)).abs() < 1e-9 * ratio);
}

#[test]
fn an_error_names_its_continuation() {
    let model = Model::builtin().unwrap();
    let most = model.info().plan.max_context;
    for (bad, kind) in [
        (Prompt::Tokens(Vec::new()), ErrorKind::EmptyPrompt),
        (Prompt::Text(String::new()), ErrorKind::EmptyPrompt),
        (Prompt::Tokens(vec![u32::MAX]), ErrorKind::InvalidArgument),
        (Prompt::Tokens(vec![5; most]), ErrorKind::ContextOverflow),
    ] {
        let error = model.score("Once upon a time", &["a".into(), bad]).unwrap_err();
        assert_eq!((error.kind(), &error.detail()["continuation"]), (kind, &1.into()), "{error}");
        assert!(error.message().starts_with("continuations[1]: "), "{error}");
    }
    let cancel = CancelHandle::default();
    cancel.cancel();
    let error = model.score_until("Once", &["a".into()], None, &cancel).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    let error = model.score_until("Once", &["a".into()], Some("none"), &CancelHandle::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    model.close();
    assert_eq!(model.score("Once", &["a".into()]).unwrap_err().kind(), ErrorKind::Closed);
}

fn check_prompt(model: &Model, prompt: &[u32], top: usize, found: &Completion) {
    let scores = found.prompt_logprobs.as_ref().unwrap();
    let expected = by_logits(model, prompt, 1);
    assert_eq!(scores.len(), prompt.len() - 1);
    for (at, (score, (logprob, greedy))) in scores.iter().zip(expected).enumerate() {
        assert_eq!((score.chosen.id, score.chosen.logprob.to_bits()), (prompt[at + 1], logprob.to_bits()));
        assert_eq!(score.top.len(), top);
        assert!(score.top.is_sorted_by(|a, b| a.logprob >= b.logprob));
        if let Some(first) = score.top.first() {
            assert_eq!(first.id == prompt[at + 1], greedy);
        }
    }
    assert_eq!(found.options["prompt_logprobs"], top);
    assert_eq!(found.usage.cached_tokens, 0);
}

/// A request that tells how likely its prompt is, and generates as others do.
#[test]
fn prompts_are_scored_to_the_bit() {
    let families = ["llama", "gemma3", "qwen3_5"].map(|family| Source::Path(support::family(family)));
    for source in [Source::Builtin].into_iter().chain(families) {
        for driver in [Driver::Caller, Driver::Thread] {
            let model = load(&source, driver, None);
            let plain = GenerateOptions::default().temperature(0.0).ignore_eos(true).max_tokens(20_u32);
            for length in [1, 2, 64, 65, 150] {
                let prompt = tokens(length, 1);
                // What the first one leaves in the cache is computed again.
                let expected = model.generate(prompt.clone(), &plain).unwrap();
                assert_eq!(expected.prompt_logprobs, None);
                for top in [0, 3] {
                    let options = plain.clone().prompt_logprobs(top);
                    let found = model.generate(prompt.clone(), &options).unwrap();
                    assert_eq!(found.token_ids, expected.token_ids);
                    check_prompt(&model, &prompt, top as usize, &found);
                    let several = model.generate(prompt.clone(), &options.n(3_u32)).unwrap();
                    assert_eq!((several.token_ids.clone(), several.alternatives.len()), (found.token_ids, 2));
                    check_prompt(&model, &prompt, top as usize, &several);
                    assert!(several.alternatives.iter().all(|one| one.prompt_logprobs.is_none()));
                }
            }
            let mut session = model.session().unwrap();
            session.append(tokens(40, 2), AddSpecialTokens::No).unwrap();
            session.generate(&plain).unwrap();
            session.append(tokens(30, 3), AddSpecialTokens::No).unwrap();
            let prompt = session.tokens().unwrap();
            let found = session.generate(&plain.clone().prompt_logprobs(1_u32)).unwrap();
            check_prompt(&model, &prompt, 1, &found);
            assert_eq!(model.generate(prompt, &plain).unwrap().token_ids, found.token_ids);
        }
    }
}

/// Requests that lose their pages while their prompts are scored.
#[test]
fn prompts_are_scored_in_a_tight_budget() {
    let plan = load(&Source::Builtin, Driver::Caller, None).info().plan.clone();
    let budget = plan.weights_bytes + plan.scratch_bytes + 6 * plan.kv_bytes_per_token * 64;
    let model = load(&Source::Builtin, Driver::Caller, Some(budget));
    let options = GenerateOptions::default()
        .temperature(0.0)
        .ignore_eos(true)
        .max_tokens(150_u32)
        .prompt_logprobs(2_u32);
    let prompts: Vec<Vec<u32>> = (0..6).map(|salt| tokens(100 + salt, salt)).collect();
    let found = model.generate_batch(prompts.iter().cloned().map(Prompt::from).collect(), &options);
    for (prompt, found) in prompts.iter().zip(found) {
        check_prompt(&model, prompt, 2, &found.unwrap());
    }
}
