use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::options::{GenerateOptions, GenerationDefaults, ResolveContext, Speculation};

fn resolved(options: GenerateOptions) -> Resolved {
    let defaults = GenerationDefaults::default();
    Resolved::new(
        &options,
        &ResolveContext {
            defaults: &defaults,
            eos: &[],
            vocab_size: 1000,
            prompt: 0,
            room: 10,
            speculation: Speculation::None,
        },
    )
    .unwrap()
}

/// A token, without a state that was there before.
fn sample(
    logits: &mut [f32],
    drawable: &Drawable,
    options: &Resolved,
    history: &History<'_>,
) -> Result<Sampled> {
    super::sample(logits, drawable, options, history, &mut State::default(), Rules::default())
}

const NONE: History<'static> = History { prompt: &[], output: &[] };
static ALL: LazyLock<Drawable> = LazyLock::new(|| Drawable::all(1000));

/// Relative frequencies of ids over many draws.
fn frequencies(logits: &[f32], options: &GenerateOptions) -> Vec<f64> {
    let draws = 20_000;
    let mut counts = vec![0.0; logits.len()];
    for seed in 0..draws {
        let options = resolved(options.clone().seed(seed));
        let id = sample(&mut logits.to_vec(), &ALL, &options, &NONE).unwrap().id;
        counts[id as usize] += 1.0 / draws as f64;
    }
    counts
}

#[test]
fn greedy_takes_the_first_of_equal_logits() {
    let options = resolved(GenerateOptions::default().temperature(0.0));
    let sampled = sample(&mut [1.0, 3.0, 3.0], &ALL, &options, &NONE).unwrap();
    assert_eq!(sampled, Sampled { id: 1, logprobs: None });
}

#[test]
fn draws_follow_the_distribution() {
    let logits = [0.0, 1.0, 2.0, -1.0];
    let options = GenerateOptions::default().temperature(0.8);
    let weights: Vec<f64> = logits.iter().map(|&x: &f32| (f64::from(x) / 0.8).exp()).collect();
    let total: f64 = weights.iter().sum();
    for (found, weight) in frequencies(&logits, &options).iter().zip(&weights) {
        assert!((found - weight / total).abs() < 0.012, "{found} {}", weight / total);
    }
}

#[test]
fn filters_keep_the_expected_tokens() {
    let logits = [0.0, 1.0, 2.0, -1.0, 1.9];
    let support = |options: GenerateOptions| -> Vec<usize> {
        let found = frequencies(&logits, &options.temperature(1.0));
        (0..logits.len()).filter(|&i| found[i] > 0.0).collect()
    };
    assert_eq!(support(GenerateOptions::default().top_k(2_u32)), [2, 4]);
    // Probabilities, descending: 0.415, 0.376, 0.153, 0.056, 0.021.
    assert_eq!(support(GenerateOptions::default().top_p(0.5)), [2, 4]);
    assert_eq!(support(GenerateOptions::default().top_p(0.4)), [2]);
    assert_eq!(support(GenerateOptions::default().top_p(0.8)), [1, 2, 4]);
    assert_eq!(support(GenerateOptions::default().min_p(0.3)), [1, 2, 4]);
    assert_eq!(support(GenerateOptions::default().min_p(0.3).top_p(0.99).top_k(2_u32)), [2, 4]);
    // Distances from the entropy, 1.257: 0.357, 0.257, 0.643, 1.643, 2.643.
    assert_eq!(support(GenerateOptions::default().typical_p(0.3)), [4]);
    assert_eq!(support(GenerateOptions::default().typical_p(0.5)), [2, 4]);
    assert_eq!(support(GenerateOptions::default().typical_p(0.85)), [1, 2, 4]);
}

#[test]
fn penalties_and_bias() {
    let history = History { prompt: &[0], output: &[1, 1, 2] };
    let options = GenerateOptions::default().temperature(0.0).repetition_penalty(2.0).presence_penalty(0.5);
    let mut logits = vec![4.0, -1.0, 8.0, 0.0];
    penalize(&mut logits, &resolved(options.clone().frequency_penalty(0.25)), &history);
    assert_eq!(logits, [2.0, -3.0, 3.25, 0.0]);
    let options = options.logit_bias([(3, 100.0)]);
    let sampled = sample(&mut [4.0, -1.0, 8.0, 0.0], &ALL, &resolved(options), &history).unwrap();
    assert_eq!(sampled.id, 3);
}

#[test]
fn logprobs_ignore_bias_and_temperature() {
    let options = GenerateOptions::default().temperature(0.0).logit_bias([(0, 50.0)]).logprobs(2_u32);
    let Sampled { id, logprobs } = sample(&mut [0.0, 0.0, 1.0], &ALL, &resolved(options), &NONE).unwrap();
    let logprobs = logprobs.unwrap();
    assert_eq!(id, 0);
    assert!((f64::from(logprobs.chosen.logprob).exp() - 0.211_941_6).abs() < 1e-6);
    assert_eq!(logprobs.top.iter().map(|t| t.id).collect::<Vec<_>>(), [2, 0]);
}

#[test]
fn non_finite_logits_are_an_error() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let options = resolved(GenerateOptions::default().temperature(1.0));
        assert_eq!(sample(&mut [0.0, bad], &ALL, &options, &NONE).unwrap_err().kind(), ErrorKind::NonFinite);
    }
}

/// The unmasked ids among the first ten.
fn allowed(options: GenerateOptions, history: &History<'_>) -> Vec<u32> {
    let mut logits = [0.0; 10];
    masks::mask(&mut logits, &ALL, &resolved(options), history, None);
    (0..10).filter(|&id| logits[id as usize] == 0.0).collect()
}

/// Compared with the logits processors of transformers on the same histories.
#[test]
fn masks_agree_with_transformers() {
    let history = History { prompt: &[1, 2, 3, 1], output: &[2, 5, 1, 2] };
    let options = GenerateOptions::default;
    let without = |ids: &[u32]| -> Vec<u32> { (0..10).filter(|id| !ids.contains(id)).collect() };
    assert_eq!(allowed(options().suppress_tokens(vec![4, 7]), &history), without(&[4, 7]));
    let first = options().begin_suppress_tokens(vec![4]);
    assert_eq!(allowed(first.clone(), &history), without(&[]));
    assert_eq!(allowed(first, &History { output: &[], ..history }), without(&[4]));
    // 1 2 was followed by 3 and 5, 2 by the same, and 5 1 2 by nothing.
    assert_eq!(allowed(options().no_repeat_ngram_size(3), &history), without(&[3, 5]));
    assert_eq!(allowed(options().no_repeat_ngram_size(2), &history), without(&[3, 5]));
    assert_eq!(allowed(options().no_repeat_ngram_size(4), &history), without(&[]));
    assert_eq!(allowed(options().no_repeat_ngram_size(1), &history), without(&[1, 2, 3, 5]));
    assert_eq!(allowed(options().no_repeat_ngram_size(u32::MAX), &history), without(&[]));
    assert_eq!(allowed(options().no_repeat_ngram_size(0), &history), without(&[]));
    let again = History { prompt: &[], output: &[4, 4, 4] };
    assert_eq!(allowed(options().no_repeat_ngram_size(2), &again), without(&[4]));
    assert_eq!(allowed(options().no_repeat_ngram_size(4), &again), without(&[]));
    // The last token of a sequence is masked if the ones before it have just been generated.
    let words = vec![vec![9], vec![2, 6], vec![1, 2, 8], vec![3, 2, 7], vec![0, 1, 2, 3, 1, 2, 5, 1, 2, 0]];
    assert_eq!(allowed(options().bad_words_ids(words), &history), without(&[9, 6, 8]));
    let early = options().stop_token_ids(vec![3]).min_tokens(5);
    assert_eq!(allowed(early.clone(), &history), without(&[3]));
    assert_eq!(allowed(early.min_tokens(4), &history), without(&[]));
}

#[test]
fn masked_tokens_are_never_drawn() {
    for temperature in [0.0, 1.0] {
        for top_p in [1.0, 0.9] {
            let options = GenerateOptions::default().temperature(temperature).top_p(top_p);
            let drawn = |options: GenerateOptions, seed: u64| {
                sample(&mut [0.0, 3.0, 9.0, 1.0], &ALL, &resolved(options.seed(seed)), &NONE).unwrap().id
            };
            for seed in 0..200 {
                let id = drawn(options.clone().suppress_tokens(vec![2, 3]), seed);
                assert!(id < 2, "{id}");
                assert!(temperature > 0.0 || id == 1);
            }
            let none = resolved(options.suppress_tokens(vec![0, 1, 2, 3]));
            let error = sample(&mut [0.0, 3.0, 9.0, 1.0], &ALL, &none, &NONE).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        }
    }
}

#[test]
fn padding_ids_are_never_drawn() {
    let json =
        br#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 3}, "merges": []}}"#;
    let tokenizer = crate::tokenizer::Tokenizer::from_bytes(json).unwrap();
    let drawable = Drawable::of(&tokenizer, 6);
    assert_eq!((0..6).filter(|&id| drawable.has(id)).collect::<Vec<_>>(), [0, 1, 3]);
    let logits = [1.0, 2.0, 9.0, 0.5, 8.0, 7.0];
    for seed in 0..100 {
        let options = resolved(GenerateOptions::default().temperature(2.0).seed(seed).logprobs(4_u32));
        let Sampled { id, logprobs } = sample(&mut logits.to_vec(), &drawable, &options, &NONE).unwrap();
        assert!(drawable.has(id), "{id}");
        let top: Vec<u32> = logprobs.unwrap().top.iter().map(|entry| entry.id).collect();
        assert_eq!(top, [1, 0, 3]);
    }
    // Neither a bias nor a padding token in the prompt changes that.
    let greedy = GenerateOptions::default().temperature(0.0).logit_bias([(4, 100.0), (2, 9.0)]);
    let greedy = resolved(greedy.repetition_penalty(1.5).presence_penalty(1.0));
    let history = History { prompt: &[5, 4], output: &[5] };
    assert_eq!(sample(&mut logits.to_vec(), &drawable, &greedy, &history).unwrap().id, 1);
    // A model without a tokenizer, and one whose vocabulary is smaller than the tokenizer's.
    assert_eq!(sample(&mut logits.to_vec(), &Drawable::all(6), &greedy, &NONE).unwrap().id, 4);
    assert_eq!(Drawable::of(&tokenizer, 2), Drawable::all(2));
    let all = crate::api::model::Model::builtin().unwrap();
    let size = all.info().vocab_size;
    assert_eq!(Drawable::of(&all.tokenizer().unwrap(), size), Drawable::all(size));
}

proptest! {
    /// The fast selection agrees with sorting everything, for any combination of filters.
    #[test]
    fn draw_agrees_with_the_plain_definition(
        logits in proptest::collection::vec(-5.0_f32..5.0, 1..60),
        top_k in 0_u32..70, top_p in 0.05_f32..1.0, min_p in 0.0_f32..0.5, temperature in 0.1_f32..2.0, seed: u64,
    ) {
        let options = GenerateOptions::default().top_k(top_k).top_p(top_p).min_p(min_p).temperature(temperature);
        let options = resolved(options.seed(seed));
        let id = sample(&mut logits.clone(), &ALL, &options, &NONE).unwrap().id;

        let mut ranked: Vec<(f64, u32)> = (0..logits.len()).map(|i| (f64::from(logits[i]), i as u32)).collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        if top_k > 0 {
            ranked.truncate(top_k as usize);
        }
        let max = ranked[0].0;
        ranked.iter_mut().for_each(|r| r.0 = ((r.0 - max) / f64::from(temperature)).exp());
        let total: f64 = ranked.iter().map(|r| r.0).sum();
        let mut sum = 0.0;
        let kept: Vec<u32> = ranked
            .iter()
            .take_while(|r| { let before = sum; sum += r.0; before < f64::from(top_p) * total * (1.0 + 1e-9) })
            .filter(|r| r.0 >= f64::from(min_p) * (1.0 - 1e-9))
            .map(|r| r.1)
            .collect();
        prop_assert!(kept.contains(&id), "{id} not in {kept:?}");
    }

    /// Against the definition that transformers' `TypicalLogitsWarper` computes, after top-k.
    #[test]
    fn typical_draws_agree_with_the_plain_definition(
        logits in proptest::collection::vec((-20_i8..20).prop_map(|x| f32::from(x) / 4.0), 1..60),
        top_k in 0_usize..70, typical_p in 0.05_f32..1.0, temperature in 0.1_f32..2.0, seed: u64,
    ) {
        let options = GenerateOptions::default().top_k(top_k as u32).typical_p(typical_p).temperature(temperature);
        let id = sample(&mut logits.clone(), &ALL, &resolved(options.seed(seed)), &NONE).unwrap().id;

        let mut ids: Vec<usize> = (0..logits.len()).collect();
        ids.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
        ids.truncate(if top_k == 0 { ids.len() } else { top_k });
        let exps: Vec<f64> = logits.iter().map(|&x| (f64::from(x) / f64::from(temperature)).exp()).collect();
        let total: f64 = ids.iter().map(|&id| exps[id]).sum();
        let p = |id: usize| exps[id] / total;
        let entropy: f64 = ids.iter().map(|&id| -p(id) * p(id).ln()).sum();
        let shifted = |id: usize| (-p(id).ln() - entropy).abs();
        ids.sort_by(|&a, &b| shifted(a).total_cmp(&shifted(b)));
        let mut before = 0.0;
        let last = ids.iter().take_while(|&&id| { let less = before < f64::from(typical_p) + 1e-9; before += p(id); less });
        let farthest = shifted(*last.last().unwrap());
        prop_assert!(shifted(id as usize) <= farthest + 1e-9, "{id}: {} beyond {farthest}", shifted(id as usize));
    }
}

/// The ids that are drawn, of many seeds.
fn support(logits: &[f32], options: &GenerateOptions) -> Vec<u32> {
    let drawn = |seed| {
        let options = resolved(options.clone().seed(seed));
        sample(&mut logits.to_vec(), &ALL, &options, &NONE).unwrap().id
    };
    let mut found: Vec<u32> = (0..400).map(drawn).collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[test]
fn further_filters_keep_the_expected_tokens() {
    // Mean 2.5, sigma sqrt(1.25) = 1.118: thresholds 2.882 and 1.764.
    let logits = [1.0, 2.0, 3.0, 4.0];
    let options = || GenerateOptions::default().temperature(1.0);
    assert_eq!(support(&logits, &options().top_n_sigma(1.0)), [2, 3]);
    assert_eq!(support(&logits, &options().top_n_sigma(2.0)), [1, 2, 3]);
    // The temperature changes nothing about it, and masked tokens are no part of it: mean 2, sigma 0.816 of the first three.
    assert_eq!(support(&logits, &options().temperature(5.0).top_n_sigma(1.0)), [2, 3]);
    assert_eq!(support(&logits, &options().top_n_sigma(1.0).suppress_tokens(vec![3])), [2]);
    // Probabilities: 0.032, 0.087, 0.237, 0.644.
    assert_eq!(support(&logits, &options().xtc_probability(1.0).xtc_threshold(0.2)), [0, 1, 2]);
    assert_eq!(support(&logits, &options().xtc_probability(1.0).xtc_threshold(0.05)), [0, 1]);
    assert_eq!(support(&logits, &options().xtc_probability(1.0).xtc_threshold(0.5)), [0, 1, 2, 3]);
    assert_eq!(support(&[1.0; 4], &options().xtc_probability(1.0).xtc_threshold(0.2)), [3]);
    assert_eq!(support(&logits, &options().xtc_probability(0.5).xtc_threshold(0.05)), [0, 1, 2, 3]);
    assert_eq!(support(&logits, &options().allowed_token_ids(vec![2, 0, 2, 999])), [0, 2]);
    let greedy = GenerateOptions::default().temperature(0.0);
    assert_eq!(support(&logits, &greedy.clone().allowed_token_ids(vec![0, 1])), [1]);
    let none = resolved(greedy.allowed_token_ids(vec![3]).suppress_tokens(vec![3]));
    let error = sample(&mut logits.to_vec(), &ALL, &none, &NONE).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.message().contains("allowed_token_ids"), "{error}");
}

#[test]
fn samplers_are_taken_in_their_order() {
    use crate::options::Sampler::{MinP, Temperature, TopK, TopP, Xtc};
    // At temperature 1: 0.644, 0.237, 0.087, 0.032. At 4: 0.367, 0.286, 0.223, 0.124.
    let logits = [4.0, 3.0, 2.0, 1.0];
    let options =
        |samplers: &[crate::options::Sampler]| GenerateOptions::default().samplers(samplers.to_vec());
    let hot = |samplers: &[crate::options::Sampler]| options(samplers).temperature(4.0);
    assert_eq!(support(&logits, &hot(&[Temperature, TopP]).top_p(0.6)), [0, 1]);
    assert_eq!(support(&logits, &hot(&[TopP, Temperature]).top_p(0.6)), [0]);
    // Exclusion leaves out the first two; what min-p compares with is then the third.
    let both = |samplers| options(samplers).xtc_probability(1.0).min_p(0.36);
    assert_eq!(support(&logits, &both(&[Xtc, MinP]).xtc_threshold(0.08)), [2, 3]);
    assert_eq!(support(&logits, &both(&[MinP, Xtc]).xtc_threshold(0.08)), [1]);
    assert_eq!(support(&logits, &options(&[TopK]).top_k(2_u32)), [0, 1]);
    // Without any, what the model says is drawn at temperature 1.
    assert_eq!(support(&logits, &options(&[])), [0, 1, 2, 3]);
    let penalized = GenerateOptions::default().temperature(0.0);
    let history = History { prompt: &[0], output: &[] };
    let id = |options: GenerateOptions| {
        sample(&mut logits.to_vec(), &ALL, &resolved(options), &history).unwrap().id
    };
    assert_eq!((id(penalized.clone()), id(penalized.repetition_penalty(2.0))), (0, 1));
}

#[test]
fn a_dynamic_temperature_follows_the_entropy() {
    // Two equal tokens: entropy 1, so the highest temperature; a certain one: the lowest.
    let options = GenerateOptions::default().temperature(1.0).dynatemp_range(1.0);
    assert_eq!(support(&[0.0, 0.0], &options), [0, 1]);
    assert_eq!(support(&[0.0, -80.0], &options), [0]);
    // p = 0.731, 0.269: entropy 0.582, divided by ln 2 0.840; squared 0.706, so 0.5 + 1 * 0.706 = 1.206.
    let options = GenerateOptions::default().temperature(1.0).dynatemp_range(0.5).dynatemp_exponent(2.0);
    let expected = 1.0 / (1.0 + (-1.0_f64 / 1.2057).exp());
    let found = frequencies(&[1.0, 0.0], &options)[0];
    assert!((found - expected).abs() < 0.012, "{found} {expected}");
}

#[test]
fn mirostat_adapts_its_threshold() {
    // Surprisals of 1, 2, 3 and 3 bits.
    let logits = [0.5_f32, 0.25, 0.125, 0.125].map(f32::ln);
    let mirostat = GenerateOptions::default().temperature(1.0).mirostat_tau(1.05).mirostat_eta(0.5);
    // From mu = 2.1 on, the first two are kept, with 0.585 and 1.585 bits: mu = 2.1 - 0.5 (observed - 1.05).
    for seed in 0..50 {
        let (options, mut state) = (resolved(mirostat.clone().seed(seed)), State::default());
        let mut draw = |step: usize| {
            let output = vec![0; step];
            let history = History { prompt: &[], output: &output };
            let id =
                super::sample(&mut logits.to_vec(), &ALL, &options, &history, &mut state, Rules::default())
                    .unwrap()
                    .id;
            (id, state.mirostat_mu.unwrap())
        };
        let (first, mu) = draw(0);
        let expected = [2.3325, 1.8325][first as usize];
        assert!((mu - expected).abs() < 1e-4, "{first} {mu}");
        let (second, after) = draw(1);
        match first {
            // 2.3 bits: the same two.
            0 => assert!((after - mu - [0.2325, -0.2675][second as usize]).abs() < 1e-4, "{after}"),
            // 1.8 bits: the first alone, which is then no surprise.
            _ => assert!(second == 0 && (after - mu - 0.525).abs() < 1e-4, "{second} {after}"),
        }
    }
    // Greedy sampling leaves it as it is.
    let mut state = State::default();
    let greedy = resolved(GenerateOptions::default().temperature(0.0));
    super::sample(&mut logits.to_vec(), &ALL, &greedy, &NONE, &mut state, Rules::default()).unwrap();
    assert_eq!(state, State::default());
}

proptest! {
    /// Whatever the options, a token that may be drawn is drawn, and the same one every time.
    #[test]
    fn there_is_always_a_token(
        logits in proptest::collection::vec(prop_oneof![-5.0_f32..5.0, Just(f32::MIN), Just(f32::MAX), Just(0.0)], 1..40),
        (temperature, range, exponent) in (prop_oneof![Just(1e-30_f32), 0.1_f32..3.0], 0.0_f32..4.0, 0.1_f32..3.0),
        (top_k, top_p, min_p, typical_p) in (0_u32..9, 0.01_f32..=1.0, 0.0_f32..=1.0, 0.01_f32..=1.0),
        (sigma, xtc, threshold, mu) in (0.0_f32..3.0, 0.0_f32..=1.0, 0.01_f32..=1.0, -9.0_f64..20.0),
        (mask, mirostat, seed) in (0_u32..40, any::<bool>(), any::<u64>()),
        mut order in Just(crate::options::Sampler::ALL[2..].to_vec()).prop_shuffle(),
        count in 0_usize..8,
    ) {
        let mut options = GenerateOptions::default().temperature(temperature).dynatemp_range(range).seed(seed);
        options = options.dynatemp_exponent(exponent).allowed_token_ids((mask % logits.len() as u32..40).collect::<Vec<_>>());
        if mirostat {
            options = options.mirostat_tau(3.0).mirostat_eta(0.5);
        } else {
            options = options.top_k(top_k).top_p(top_p).min_p(min_p).typical_p(typical_p).top_n_sigma(sigma);
            options = options.xtc_probability(xtc).xtc_threshold(threshold);
        }
        let mut resolved = resolved(options);
        if !mirostat {
            order.truncate(count);
            resolved.samplers = order;
        }
        let draw = || {
            let mut state = State { mirostat_mu: Some(mu) };
            let found = super::sample(&mut logits.clone(), &ALL, &resolved, &NONE, &mut state, Rules::default()).unwrap().id;
            (found, state)
        };
        let (id, state) = draw();
        prop_assert!((id as usize) < logits.len() && id >= mask % logits.len() as u32, "{id}");
        prop_assert!(state.mirostat_mu.unwrap().is_finite());
        prop_assert_eq!(draw(), (id, state));
    }
}

#[test]
fn a_constraint_keeps_what_it_allows() {
    let mut logits: Vec<f32> = (0..70).map(|x| x as f32).collect();
    masks::keep(&mut logits, &[0b101, 0, 0b10_0000]);
    let kept: Vec<usize> = (0..70).filter(|&id| logits[id] != f32::NEG_INFINITY).collect();
    assert_eq!(kept, [0, 2, 69]);
    let logits: Vec<f32> = (0..40).map(|x| x as f32).collect();
    let options = Resolved { logprobs: Some(1), ..Resolved::greedy() };
    let bits: [u32; 2] = [u32::MAX, 0];
    let sampled = super::sample(
        &mut logits.clone(),
        &ALL,
        &options,
        &NONE,
        &mut State::default(),
        Rules { allowed: Some(&bits), ..Rules::default() },
    );
    let Sampled { id, logprobs } = sampled.unwrap();
    // Log-probabilities are those of all tokens.
    assert_eq!((id, logprobs.unwrap().top[0].id), (31, 39));
    // A minimum of tokens gives way where the constraint has nothing but the end.
    let least = Resolved { min_tokens: 9, stop_token_ids: vec![3], ..Resolved::greedy() };
    let drawn = |bits: [u32; 2]| {
        super::sample(
            &mut logits.clone(),
            &ALL,
            &least,
            &NONE,
            &mut State::default(),
            Rules { allowed: Some(&bits), ..Rules::default() },
        )
        .unwrap()
        .id
    };
    assert_eq!((drawn([0b1000, 0]), drawn([0b1001, 0])), (3, 0));
    let none = super::sample(
        &mut logits.clone(),
        &ALL,
        &options,
        &NONE,
        &mut State::default(),
        Rules { allowed: Some(&[0, 0]), ..Rules::default() },
    );
    assert_eq!(none.unwrap_err().kind(), ErrorKind::InvalidArgument);
}

#[test]
fn log_probabilities_may_be_those_of_what_masks_allow() {
    let options = GenerateOptions::default().temperature(0.0).logprobs(3_u32).suppress_tokens(vec![0]);
    let logits = [5.0, 1.0, 2.0, 0.0];
    let raw =
        sample(&mut logits.to_vec(), &ALL, &resolved(options.clone()), &NONE).unwrap().logprobs.unwrap();
    assert_eq!((raw.chosen.id, raw.top[0].id), (2, 0));
    let masked = resolved(options.logprobs_mode(LogprobsMode::Masked));
    let rules = Rules { allowed: Some(&[0b1101]), ..Rules::default() };
    let mut state = State::default();
    let found = super::sample(&mut logits.to_vec(), &ALL, &masked, &NONE, &mut state, rules).unwrap();
    let found = found.logprobs.unwrap();
    // Tokens 2 and 3 are left: ln(e^2 / (e^2 + e^0)).
    let expected = -libm::log(1.0 + libm::exp(-2.0)) as f32;
    assert_eq!((found.chosen.id, found.top.len()), (2, 2));
    assert!((found.chosen.logprob - expected).abs() < 1e-6);
    assert!((found.top[1].logprob - (expected - 2.0)).abs() < 1e-6);
}

#[test]
fn a_processor_changes_logits_before_masks() {
    let options = resolved(GenerateOptions::default().temperature(0.0).suppress_tokens(vec![3]));
    let sample_with = |processor: SharedProcessor| {
        let rules = Rules { processor: Some(&processor), ..Rules::default() };
        let history = History { prompt: &[1], output: &[2] };
        super::sample(&mut [4.0, 1.0, 2.0, 3.0], &ALL, &options, &history, &mut State::default(), rules)
    };
    let found = sample_with(SharedProcessor::new(|prompt: &[u32], output: &[u32], logits: &mut [f32]| {
        assert_eq!((prompt, output, &*logits), (&[1][..], &[2][..], &[4.0, 1.0, 2.0, 3.0][..]));
        (logits[0], logits[3]) = (f32::NEG_INFINITY, 9.0);
        Ok(())
    }));
    assert_eq!(found.unwrap().id, 2);
    let error = sample_with(SharedProcessor::new(|_: &[u32], _: &[u32], logits: &mut [f32]| {
        logits[1] = f32::NAN;
        Ok(())
    }));
    assert!(error.unwrap_err().message().ends_with("found NaN for token 1"));
    let own = || Error::new(ErrorKind::InvalidUtf8, "its own");
    let error = sample_with(SharedProcessor::new(move |_: &[u32], _: &[u32], _: &mut [f32]| Err(own())));
    assert_eq!(error.unwrap_err().message(), own().message());
    let error = sample_with(SharedProcessor::new(|_: &[u32], _: &[u32], _: &mut [f32]| panic!("a panic")));
    assert_eq!(error.unwrap_err().message(), "logits_processor: it panicked");
    let all = SharedProcessor::new(|_: &[u32], _: &[u32], logits: &mut [f32]| {
        logits.fill(f32::NEG_INFINITY);
        Ok(())
    });
    assert!(sample_with(all).unwrap_err().message().starts_with("logits_processor, "));
}
