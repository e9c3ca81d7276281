//! Drafts that are right, wrong, or right for a while: what comes out is what comes out without.

use std::sync::Arc;

use proptest::prelude::*;

use super::tests_budget::{counts, greedy, tight};
use super::tests_served::{BROKEN, Fake, begin, begin_as, engine, error, expected, run};
use super::*;
use crate::api::model::Model;
use crate::api::session::{Prompt, Session};
use crate::api::tests::support;
use crate::cache::LayerState;
use crate::event::{Completion, Event, FinishReason, Usage};
use crate::load::source::Source;
use crate::options::{GenerateOptions, KvType, ModelOptions, Resolved, RuntimeOptions, Speculation};
use crate::runtime::{Budget, Runtime};
use crate::tokenizer::AddSpecialTokens;

/// Whether the draft at a place is right; one in `wrong` is not.
fn is_right(at: usize, wrong: usize) -> bool {
    !(at * 7 + at / 5).is_multiple_of(wrong)
}

/// Guesses from what will come, one in `wrong` of them wrong.
fn guess(engine: &mut Engine, known: Vec<Vec<u32>>, drafts: usize, wrong: usize) {
    engine.controller.fixed = Some(drafts);
    engine.guesser = Some(Arc::new(move |tokens: &[u32], most| {
        let all = known.iter().find(|all| all.starts_with(tokens)).cloned().unwrap_or_default();
        let next = (tokens.len()..all.len()).zip(all.iter().skip(tokens.len())).take(most);
        next.map(|(at, &token)| if is_right(at, wrong) { token } else { (token + 1) % 48 }).collect()
    }));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_sequence_is_computed_as_if_alone(
        requests in proptest::collection::vec((proptest::collection::vec(0_u32..48, 1..90), 1_u32..60), 1..12),
        rows in 1_usize..70,
        sequences in 1_usize..6,
        drafts in 1_usize..16,
        wrong in 1_usize..9,
    ) {
        let (mut engine, fake) = (engine(), Fake::new(rows, sequences));
        let known = requests.iter().map(|(prompt, most)| expected(prompt, *most as usize)).collect();
        guess(&mut engine, known, drafts, wrong);
        let jobs: Vec<_> = requests.iter().map(|(prompt, most)| begin(&mut engine, prompt, *most)).collect();
        run(&mut engine, &fake, &jobs);
        let (mut all, mut usages) = (0, Vec::new());
        for ((id, ticket), (prompt, most)) in jobs.iter().zip(&requests) {
            prop_assert_eq!(engine.tokens(*id).unwrap(), expected(prompt, *most as usize));
            all += prompt.len() + *most as usize - 1;
            usages.push(done(&mut engine, *id, ticket).usage);
        }
        let passes = fake.passes.into_inner().unwrap();
        prop_assert!(passes.iter().all(|&(passed, of)| passed <= rows.max(of) && of <= sequences), "{:?}", passes);
        // What is computed is what is needed, and the drafts that were wrong.
        let sum = |of: fn(&Usage) -> usize| usages.iter().map(of).sum::<usize>();
        let (tried, right) = (sum(|usage| usage.draft_tokens), sum(|usage| usage.accepted_tokens));
        prop_assert_eq!(passes.iter().map(|pass| pass.0).sum::<usize>(), all + tried - right);
        for usage in usages {
            let by_position = usage.accepted_by_position;
            prop_assert_eq!(by_position.iter().sum::<u32>() as usize, usage.accepted_tokens);
            prop_assert!(by_position.is_sorted_by(|a, b| a >= b) && usage.accepted_tokens <= usage.draft_tokens);
            prop_assert!(by_position[drafts.min(by_position.len() - 1)] == 0 || drafts == 15);
        }
    }
}

pub(super) fn done(engine: &mut Engine, id: SequenceId, ticket: &Ticket) -> Completion {
    let mailbox = &engine.job(id, ticket).unwrap().mailbox;
    match std::iter::from_fn(|| mailbox.take()).last().unwrap().unwrap() {
        Event::Done(done) => *done,
        other => panic!("{other:?}"),
    }
}

#[test]
fn right_drafts_save_passes() {
    let (mut engine, fake) = (engine(), Fake::new(64, 8));
    let all = expected(&[1, 2, 3], 64);
    guess(&mut engine, vec![all.clone()], 15, usize::MAX);
    let (id, ticket) = begin(&mut engine, &[1, 2, 3], 64);
    run(&mut engine, &fake, &[(id, ticket.clone())]);
    assert_eq!(engine.tokens(id).unwrap(), all);
    let usage = done(&mut engine, id, &ticket).usage;
    // The prompt, three passes of 16, and the rest.
    assert_eq!(fake.passes.into_inner().unwrap(), [(3, 1), (16, 1), (16, 1), (16, 1), (15, 1)]);
    assert_eq!((usage.draft_tokens, usage.accepted_tokens), (59, 59));
    assert_eq!((usage.accepted_by_position[13], usage.accepted_by_position[14]), (4, 3));
}

#[test]
fn a_stop_token_among_the_drafts_ends_the_request() {
    let all = expected(&[1, 2, 3], 40);
    for stop in 3..30 {
        let (mut engine, fake) = (engine(), Fake::new(64, 8));
        guess(&mut engine, vec![all.clone()], 7, 11);
        let options = Resolved { max_tokens: 40, stop_token_ids: vec![all[stop]], ..Resolved::greedy() };
        let (id, ticket) = begin_as(&mut engine, &[1, 2, 3], options).unwrap();
        run(&mut engine, &fake, &[(id, ticket.clone())]);
        let first = all[3..].iter().position(|token| *token == all[stop]).unwrap();
        let done = done(&mut engine, id, &ticket);
        assert_eq!((done.finish_reason, &done.token_ids[..]), (FinishReason::Stop, &all[3..=3 + first]));
        // As without: the last token is not computed.
        assert_eq!(engine.sequences[&id].computed, 3 + first);
    }
}

/// Logits after a wrong draft do not matter, and others come in turn.
#[test]
fn logits_that_are_not_finite_fail_where_they_are_reached() {
    let (mut engine, fake) = (engine(), Fake::new(64, 8));
    engine.controller.fixed = Some(3);
    let all = expected(&[1, 2, 3], 20);
    let right = all.clone();
    engine.guesser = Some(Arc::new(move |tokens: &[u32], most| {
        [right.get(tokens.len()).copied().unwrap_or(0), BROKEN, BROKEN].into_iter().take(most).collect()
    }));
    let job = begin(&mut engine, &[1, 2, 3], 20);
    run(&mut engine, &fake, std::slice::from_ref(&job));
    assert!(error(&mut engine, &job).is_none());
    assert_eq!(engine.tokens(job.0).unwrap(), all);
}

#[test]
fn a_request_that_is_cancelled_leaves_nothing() {
    let (mut engine, fake) = (engine(), Fake::new(64, 8));
    let all = expected(&[1, 2, 3], 500);
    guess(&mut engine, vec![all.clone()], 9, 4);
    let (id, ticket) = begin(&mut engine, &[1, 2, 3], 500);
    (0..9).for_each(|_| assert!(engine.step(&fake).unwrap()));
    ticket.cancel();
    run(&mut engine, &fake, &[(id, ticket.clone())]);
    let found = done(&mut engine, id, &ticket);
    assert_eq!(found.finish_reason, FinishReason::Cancelled);
    assert!(all[3..].starts_with(&found.token_ids) && found.token_ids.len() > 9);
    engine.close(id);
    assert_eq!(engine.cache.usage().0, 0);
}

pub(super) fn load(source: &Source, options: &ModelOptions, budget: Option<u64>) -> Model {
    let runtime = RuntimeOptions { memory_budget: budget, ..RuntimeOptions::default().threads(2) };
    Runtime::new(&runtime).unwrap().load(source, options).unwrap()
}

pub(super) fn prompt(salt: usize) -> Vec<u32> {
    (0..20 + salt * 29 % 60).map(|i| 3 + ((i * 37 + salt * 101) % 400) as u32).collect()
}

/// Ways to generate. The third one draws, and looks at all that came before.
pub(super) fn ways() -> [GenerateOptions; 4] {
    let base = GenerateOptions::default().ignore_eos(true).max_tokens(45_u32).logprobs(2_u32);
    let sampled = base.clone().temperature(0.9).top_p(0.95).seed(7_u64);
    [
        base.clone().temperature(0.0),
        sampled.clone(),
        sampled.repetition_penalty(1.2).presence_penalty(0.4).frequency_penalty(0.3).min_tokens(9_u32),
        base.temperature(0.0).no_repeat_ngram_size(3_u32).max_tokens(35_u32),
    ]
}

/// Text, tokens, reason, and the bits of the log-probabilities.
pub(super) fn bits(done: &Completion) -> (String, Vec<u32>, FinishReason, Vec<u32>) {
    let all = done.logprobs.iter().flatten().flat_map(|entry| &entry.top);
    let logprobs = all.map(|top| top.logprob.to_bits()).collect();
    (done.text.clone(), done.token_ids.clone(), done.finish_reason, logprobs)
}

pub(super) fn batch(model: &Model, prompts: &[Vec<u32>], options: &GenerateOptions) -> Vec<Completion> {
    let prompts = prompts.iter().map(|prompt| Prompt::Tokens(prompt.clone())).collect();
    model.generate_batch(prompts, options).into_iter().map(Result::unwrap).collect()
}

/// Full attention, windows, shared keys, experts, latent attention, recurrent layers of all kinds, long rotations.
const FAMILIES: [&str; 10] = [
    "gemma2",
    "gpt_oss",
    "gemma4",
    "deepseek_v3",
    "mistral",
    "lfm2",
    "qwen3_5",
    "qwen3_next",
    "granite4",
    "phi4_mini",
];

fn sources() -> Vec<Source> {
    let families = FAMILIES.into_iter().map(|family| Source::Path(support::family(family)));
    std::iter::once(Source::Builtin).chain(families).collect()
}

/// Whatever the drafts are, all bits are the same; alone and together, in any memory, with any cache.
#[test]
fn no_bit_changes() {
    for source in sources() {
        for kv in [KvType::Auto, KvType::Int8] {
            let options = ModelOptions::default().kv(kv).prefill_chunk(64_u32).max_batch(4_u32);
            let plain = load(&source, &options, None);
            let prompts: Vec<Vec<u32>> = (0..5).map(prompt).collect();
            // Ways to sample know nothing of the cache.
            let ways = ways().into_iter().enumerate().filter(|(way, _)| kv == KvType::Auto || *way == 2);
            for (way, request) in ways {
                let request = &request;
                let expected = batch(&plain, &prompts, request);
                let known: Vec<Vec<u32>> = prompts
                    .iter()
                    .zip(&expected)
                    .map(|(prompt, done)| [prompt.clone(), done.token_ids.clone()].concat())
                    .collect();
                let expected: Vec<_> = expected.iter().map(bits).collect();
                for (drafts, wrong) in [(5, 3), (15, 7), (2, 1)] {
                    let cached = options.clone().prefix_cache(drafts == 5);
                    let model = load(&source, &cached, None);
                    let loaded = model.loaded().unwrap();
                    guess(&mut loaded.engine().unwrap(), known.clone(), drafts, wrong);
                    let what = format!("{source:?} {kv} way {way}, {drafts} drafts, one in {wrong} wrong");
                    let found = batch(&model, &prompts, request);
                    assert!(found.iter().map(bits).eq(expected.iter().cloned()), "{what}");
                    let right: usize = found.iter().map(|done| done.usage.accepted_tokens).sum();
                    let tried: usize = found.iter().map(|done| done.usage.draft_tokens).sum();
                    assert!(tried > 50 && (right > 0) == (wrong > 1), "{what}: {right} of {tried}");
                    let one = model.generate(prompts[1].clone(), request).unwrap();
                    assert!(bits(&one) == expected[1], "{what}, alone");
                    let engine = loaded.engine().unwrap();
                    assert!(drafts == 5 || engine.cache.usage().0 == 0, "{what}");
                }
            }
        }
    }
}

/// In a small memory, drafts get what is left, and nothing else is computed twice for them.
#[test]
fn drafts_take_no_memory_from_others() {
    const TOKENS: usize = 40;
    let options = ModelOptions::default().prefill_chunk(64_u32);
    for source in tests_budget::sources() {
        let prompts: Vec<Vec<u32>> = (0..16).map(prompt).collect();
        let expected = batch(&load(&source, &options, None), &prompts, &greedy(TOKENS as u32));
        let known: Vec<Vec<u32>> = prompts
            .iter()
            .zip(&expected)
            .map(|(prompt, done)| [prompt.clone(), done.token_ids.clone()].concat())
            .collect();
        for more in [0, 1 << 16, 1 << 18] {
            let model = tight(&source, &options, 79 + TOKENS, more);
            let loaded = model.loaded().unwrap();
            guess(&mut loaded.engine().unwrap(), known.clone(), 6, 4);
            let fixed = model.runtime().memory_used();
            let found = batch(&model, &prompts, &greedy(TOKENS as u32));
            assert!(found == expected, "{source:?}, {more} more");
            let wrong: usize =
                found.iter().map(|done| done.usage.draft_tokens - done.usage.accepted_tokens).sum();
            let alone: usize = prompts.iter().map(|prompt| prompt.len() + TOKENS - 1).sum();
            assert_eq!(counts(&model).1, (alone + wrong) as u64, "{source:?}, {more} more");
            assert_eq!(model.runtime().memory_used(), fixed);
        }
    }
}

/// Sessions whose requests end among drafts go on, and are cut, as others are.
#[test]
fn sessions_go_on_after_drafts() {
    for source in sources() {
        let plain = load(&source, &ModelOptions::default(), None);
        let model = load(&source, &ModelOptions::default(), None);
        let talk = |model: &Model, known: &[Vec<u32>]| {
            let loaded = model.loaded().unwrap();
            if !known.is_empty() {
                guess(&mut loaded.engine().unwrap(), known.to_vec(), 7, 6);
            }
            let (mut found, mut all) = (Vec::new(), Vec::new());
            let mut session: Session = model.session().unwrap();
            for round in 0..4 {
                session.append(prompt(round), AddSpecialTokens::No).unwrap();
                let done = session.generate(&ways()[round]).unwrap();
                found.push((bits(&done), done.usage.cached_tokens));
                all.push(session.tokens().unwrap());
                let mut fork = session.fork().unwrap();
                found.push((bits(&fork.generate(&ways()[1].clone().max_tokens(9_u32)).unwrap()), 0));
                all.push(fork.tokens().unwrap());
                let length = session.tokens().unwrap().len();
                session.truncate(length - 3 * round).unwrap();
            }
            (found, all)
        };
        let (expected, known) = talk(&plain, &[]);
        let (found, _) = talk(&model, &known);
        assert!(found == expected, "{source:?}");
    }
}

pub(super) fn with_draft_model(budget: &Budget) -> Engine {
    let state = LayerState::Attention { window: None, kv_heads: 1, head_dim: 16 };
    let cache = || KvCache::new(KvType::F32, &[state], budget).unwrap();
    let mut engine = Engine::new(cache(), 0, budget, Meter::default());
    engine.draft_from(DraftModel::new(cache(), budget.reserve(0, "buffers").unwrap()));
    engine
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// A draft model that is right now and then, in any memory.
    #[test]
    fn a_draft_model_changes_nothing(
        requests in proptest::collection::vec((proptest::collection::vec(0_u32..48, 1..90), 1_u32..60), 1..8),
        rows in 1_usize..70,
        sequences in 1_usize..6,
        drafts in 1_usize..16,
        differs in proptest::option::of(1_u32..9),
        pages in proptest::option::of(12_u64..40),
    ) {
        let budget = Budget::new(pages.map(|pages| pages * 64 * 2 * 16 * 4));
        let mut engine = with_draft_model(&budget);
        let mut fake = Fake::new(rows, sequences);
        let mut draft = Fake::new(rows, sequences);
        draft.differs = differs;
        fake.draft = Some(Box::new(draft));
        engine.controller.fixed = Some(drafts);
        let jobs: Vec<_> = requests
            .iter()
            .map(|(prompt, max_tokens)| {
                let options = Resolved { max_tokens: *max_tokens, speculation: Speculation::Draft, ..Resolved::greedy() };
                begin_as(&mut engine, prompt, options)
            })
            .collect();
        // Tokens and events may not fit.
        let (jobs, requests): (Vec<_>, Vec<_>) =
            jobs.into_iter().zip(&requests).filter_map(|(job, request)| Some((job.ok()?, request))).unzip();
        run(&mut engine, &fake, &jobs);
        for (job, (prompt, most)) in jobs.iter().zip(&requests) {
            let all = expected(prompt, *most as usize);
            match error(&mut engine, job) {
                None => prop_assert_eq!(engine.tokens(job.0).unwrap(), all),
                Some(error) => prop_assert_eq!((error.kind(), pages.is_some()), (ErrorKind::OutOfBudget, true)),
            }
            engine.close(job.0);
        }
        prop_assert_eq!((engine.draft_bytes(), engine.cache.usage()), (0, (0, 0)));
    }
}

#[test]
fn a_draft_model_follows_its_sequences() {
    let budget = Budget::new(None);
    let mut engine = with_draft_model(&budget);
    let mut fake = Fake::new(64, 8);
    fake.draft = Some(Box::new(Fake::new(64, 8)));
    engine.controller.fixed = Some(4);
    let options = Resolved { max_tokens: 30, speculation: Speculation::Draft, ..Resolved::greedy() };
    let (id, ticket) = begin_as(&mut engine, &[1, 2, 3], options).unwrap();
    run(&mut engine, &fake, &[(id, ticket.clone())]);
    let usage = done(&mut engine, id, &ticket).usage;
    assert!(usage.draft_tokens == usage.accepted_tokens && usage.draft_tokens > 15, "{usage:?}");
    // Sessions that are cut, and go on with other tokens.
    engine.truncate(id, 9).unwrap();
    engine.append(id, &[7, 7]).unwrap();
    let all = engine.tokens(id).unwrap().to_vec();
    let options = Resolved { max_tokens: 30, speculation: Speculation::Draft, ..Resolved::greedy() };
    let ticket = engine.start(id, Job::generate(options, all.len(), None)).unwrap();
    run(&mut engine, &fake, &[(id, ticket.clone())]);
    assert_eq!(engine.tokens(id).unwrap(), expected(&all, 30));
    let usage = done(&mut engine, id, &ticket).usage;
    assert!(usage.draft_tokens == usage.accepted_tokens && usage.draft_tokens > 15, "{usage:?}");
    engine.close(id);
    assert_eq!(engine.draft_bytes(), 0);
}

#[test]
fn a_draft_model_that_fails_drafts_nothing() {
    let budget = Budget::new(None);
    let mut engine = with_draft_model(&budget);
    let (mut fake, mut draft) = (Fake::new(64, 8), Fake::new(64, 8));
    draft.fails = true;
    fake.draft = Some(Box::new(draft));
    engine.controller.fixed = Some(4);
    let options = Resolved { max_tokens: 30, speculation: Speculation::Draft, ..Resolved::greedy() };
    let (id, ticket) = begin_as(&mut engine, &[1, 2, 3], options).unwrap();
    run(&mut engine, &fake, &[(id, ticket.clone())]);
    assert_eq!(engine.tokens(id).unwrap(), expected(&[1, 2, 3], 30));
    assert_eq!((done(&mut engine, id, &ticket).usage.draft_tokens, engine.draft_bytes()), (0, 0));
}

/// A model that drafts for itself is always right: its cache is what it should be after any drafts.
#[test]
fn a_copy_of_a_model_guesses_everything() {
    for family in ["llama", "gemma2", "gpt_oss", "deepseek_v3", "olmo3", "phi4_mini"] {
        let dir = support::family(family);
        let source = Source::Path(dir.clone());
        let options = ModelOptions::default().max_batch(4_u32);
        let plain = load(&source, &options, None);
        let drafting = options.draft_model(Some(dir)).speculation(Speculation::Draft);
        let model = load(&source, &drafting, None);
        model.loaded().unwrap().engine().unwrap().controller.fixed = Some(5);
        let prompts: Vec<Vec<u32>> = (0..5).map(prompt).collect();
        for (way, request) in ways().iter().enumerate() {
            let (expected, found) = (batch(&plain, &prompts, request), batch(&model, &prompts, request));
            assert!(found.iter().map(bits).eq(expected.iter().map(bits)), "{family} {way}");
            let sum = |of: fn(&Usage) -> usize| found.iter().map(|done| of(&done.usage)).sum::<usize>();
            let (tried, right) = (sum(|usage| usage.draft_tokens), sum(|usage| usage.accepted_tokens));
            assert!(tried > 60 && tried == right, "{family} {way}: {right} of {tried}");
        }
        assert_eq!(model.loaded().unwrap().engine().unwrap().draft_bytes(), 0);
    }
}

/// In a small memory the draft model gives way.
#[test]
fn a_draft_model_takes_no_memory_from_requests() {
    let options = ModelOptions::default().prefill_chunk(64_u32);
    let dir = support::family("llama");
    let source = Source::Path(dir.clone());
    let prompts: Vec<Vec<u32>> = (0..12).map(prompt).collect();
    let expected = batch(&load(&source, &options, None), &prompts, &greedy(40));
    let drafting = options.draft_model(Some(dir)).speculation(Speculation::Draft);
    for more in [0, 1 << 16, 1 << 18] {
        let model = tight(&source, &drafting, 79 + 40, more);
        model.loaded().unwrap().engine().unwrap().controller.fixed = Some(6);
        let fixed = model.runtime().memory_used();
        assert!(batch(&model, &prompts, &greedy(40)) == expected, "{more} more");
        let alone: usize = prompts.iter().map(|prompt| prompt.len() + 39).sum();
        assert!(counts(&model).1 >= alone as u64);
        assert_eq!(
            (model.runtime().memory_used(), model.runtime().metrics().models[0].preemptions),
            (fixed, 0)
        );
    }
}
