//! Drafts of a model's own head for multi-token prediction: what comes out is what comes out without.

use proptest::prelude::*;

use super::tests_budget::{greedy, tight};
use super::tests_served::{Fake, begin_as, error, expected, run};
use super::tests_speculation::{batch, bits, done, load, prompt, ways, with_draft_model};
use super::*;
use crate::api::tests::support;
use crate::api::tests::support::mtp::Guesses;
use crate::cache::LayerState;
use crate::event::{FinishReason, Usage};
use crate::load::source::Source;
use crate::options::{KvType, ModelOptions, Resolved, Speculation, WeightType};
use crate::runtime::Budget;

fn with_head(budget: &Budget) -> Engine {
    let mut engine = with_draft_model(budget);
    let state = LayerState::Attention { window: None, kv_heads: 1, head_dim: 16 };
    let cache = KvCache::new(KvType::F32, &[state], budget).unwrap();
    engine.draft_ahead(Mtp::new(cache, 1, budget, budget.reserve(0, "buffers").unwrap()));
    engine
}

fn fake_with_head(rows: usize, sequences: usize) -> Fake {
    let mut fake = Fake::new(rows, sequences);
    fake.draft = Some(Box::new(Fake::new(rows, sequences)));
    fake.head = Some(Box::new(Fake::new(mtp_rows(sequences), sequences)));
    fake
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// A head that is right now and then, next to a draft model, in any memory.
    #[test]
    fn a_head_changes_nothing(
        requests in proptest::collection::vec((proptest::collection::vec(0_u32..48, 1..190), 1_u32..60), 1..8),
        // Nobody reads: a prompt in more pieces would fill its mailbox.
        rows in 4_usize..70,
        sequences in 1_usize..6,
        drafts in 1_usize..16,
        differs in proptest::option::of(1_u32..9),
        pages in proptest::option::of(12_u64..40),
    ) {
        let budget = Budget::new(pages.map(|pages| pages * 64 * 2 * 16 * 4));
        let mut engine = with_head(&budget);
        let mut fake = fake_with_head(rows, sequences);
        fake.head.as_mut().unwrap().differs = differs;
        engine.controller.fixed = Some(drafts);
        let jobs: Vec<_> = requests
            .iter()
            .enumerate()
            .map(|(number, (prompt, max_tokens))| {
                let speculation = if number == 2 { Speculation::Draft } else { Speculation::Mtp };
                begin_as(&mut engine, prompt, Resolved { max_tokens: *max_tokens, speculation, ..Resolved::greedy() })
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
fn a_head_follows_its_sequences() {
    let budget = Budget::new(None);
    let (mut engine, fake) = (with_head(&budget), fake_with_head(64, 8));
    engine.controller.fixed = Some(4);
    let options = Resolved { max_tokens: 30, speculation: Speculation::Mtp, ..Resolved::greedy() };
    let prompt: Vec<u32> = (0..300).map(|at| at * 7 % 48).collect();
    let (id, ticket) = begin_as(&mut engine, &prompt, options.clone()).unwrap();
    let (short, short_ticket) = begin_as(&mut engine, &[1, 2, 3], options.clone()).unwrap();
    run(&mut engine, &fake, &[(id, ticket.clone()), (short, short_ticket.clone())]);
    for (id, ticket) in [(id, &ticket), (short, &short_ticket)] {
        let usage = done(&mut engine, id, ticket).usage;
        assert!(usage.draft_tokens == usage.accepted_tokens && usage.draft_tokens > 15, "{usage:?}");
    }
    // The prompt was computed in large pieces, and no row twice but those of drafts.
    let head = fake.head.as_ref().unwrap();
    let passes = std::mem::take(&mut *head.passes.lock().unwrap());
    assert!(passes.iter().filter(|(rows, _)| *rows > 50).count() >= 3, "{passes:?}");
    let rows: usize = passes.iter().map(|(rows, _)| rows).sum();
    assert!(rows < 300 + 3 + 2 * 2 * 30, "{rows}");
    // Sessions that are cut, and go on with other tokens.
    for length in [320, 9, 1] {
        engine.truncate(id, length).unwrap();
        engine.append(id, &[7, 7]).unwrap();
        let all = engine.tokens(id).unwrap().to_vec();
        let ticket = engine.start(id, Job::generate(options.clone(), all.len(), None)).unwrap();
        run(&mut engine, &fake, &[(id, ticket.clone())]);
        assert_eq!(engine.tokens(id).unwrap(), expected(&all, 30));
        let usage = done(&mut engine, id, &ticket).usage;
        assert!(usage.draft_tokens == usage.accepted_tokens && usage.draft_tokens > 15, "{usage:?}");
    }
    // It follows only who asks for it, and begins in the middle of a sequence.
    engine.drafters.release();
    for speculation in [Speculation::None, Speculation::Mtp] {
        let all = engine.tokens(id).unwrap().to_vec();
        let options = Resolved { speculation, ..options.clone() };
        let ticket = engine.start(id, Job::generate(options, all.len(), None)).unwrap();
        run(&mut engine, &fake, &[(id, ticket.clone())]);
        assert_eq!(engine.tokens(id).unwrap(), expected(&all, 30));
        let usage = done(&mut engine, id, &ticket).usage;
        let asked = speculation == Speculation::Mtp;
        assert!(
            usage.draft_tokens == usage.accepted_tokens && (usage.draft_tokens > 15) == asked,
            "{usage:?}"
        );
        assert_eq!(engine.draft_bytes() > 0, asked);
    }
    engine.close(id);
    engine.close(short);
    assert_eq!(engine.draft_bytes(), 0);
}

/// Where no drafts are wanted, its rows wait until they are worth a pass.
#[test]
fn a_head_has_few_passes_without_drafts() {
    let budget = Budget::new(None);
    let (mut engine, fake) = (with_head(&budget), fake_with_head(64, 8));
    engine.controller.fixed = Some(0);
    let options = Resolved { max_tokens: 200, speculation: Speculation::Mtp, ..Resolved::greedy() };
    let (id, ticket) = begin_as(&mut engine, &[1, 2, 3], options).unwrap();
    run(&mut engine, &fake, &[(id, ticket)]);
    assert_eq!(fake.head.as_ref().unwrap().passes.lock().unwrap()[..], [(64, 1); 3]);
}

#[test]
fn a_head_that_fails_drafts_nothing() {
    let budget = Budget::new(None);
    let (mut engine, mut fake) = (with_head(&budget), fake_with_head(64, 8));
    fake.head.as_mut().unwrap().fails = true;
    engine.controller.fixed = Some(4);
    let options = Resolved { max_tokens: 90, speculation: Speculation::Mtp, ..Resolved::greedy() };
    let (id, ticket) = begin_as(&mut engine, &[1, 2, 3], options).unwrap();
    run(&mut engine, &fake, &[(id, ticket.clone())]);
    assert_eq!(engine.tokens(id).unwrap(), expected(&[1, 2, 3], 90));
    assert_eq!(done(&mut engine, id, &ticket).usage.draft_tokens, 0);
}

/// A head that says what its model says: its drafts are right, also where they are drawn.
#[test]
fn a_head_that_is_right_is_accepted() {
    for (family, weights) in
        [("qwen3_5", "f32"), ("qwen3_5", "int8"), ("qwen3_5_moe", "f32"), ("deepseek_v3", "f32")]
    {
        let dir = support::mtp::with_head(family, Guesses::Right, &format!("right-{family}-{weights}"));
        let source = Source::Path(dir.path().to_owned());
        let options =
            ModelOptions::default().weights(weights.parse::<WeightType>().unwrap()).max_batch(4_u32);
        let plain = load(&source, &options, None);
        let model = load(&source, &options.speculation(Speculation::Mtp), None);
        model.loaded().unwrap().engine().unwrap().controller.fixed = Some(5);
        let prompts: Vec<Vec<u32>> = (0..5).map(prompt).collect();
        for (way, request) in ways().iter().enumerate() {
            let (expected, found) = (batch(&plain, &prompts, request), batch(&model, &prompts, request));
            assert!(found.iter().map(bits).eq(expected.iter().map(bits)), "{family} {way}");
            let sum = |of: fn(&Usage) -> usize| found.iter().map(|done| of(&done.usage)).sum::<usize>();
            let (tried, right) = (sum(|usage| usage.draft_tokens), sum(|usage| usage.accepted_tokens));
            // Its norm of what was normed, and more so its rounded projection, change draws of unlikely tokens.
            let least = if weights == "f32" { tried - tried / 5 } else { tried / 5 };
            assert!(tried > 60 && right >= least, "{family} {weights} {way}: {right} of {tried}");
        }
        assert_eq!(model.loaded().unwrap().engine().unwrap().draft_bytes(), 0);
    }
}

/// A stop text ends a request at the same place among drafts that were right.
#[test]
fn stop_texts_end_among_the_drafts_of_a_head_where_they_do_without() {
    for family in ["qwen3_5", "deepseek_v3"] {
        let dir = support::mtp::with_head(family, Guesses::Right, &format!("stop-{family}"));
        let source = Source::Path(dir.path().to_owned());
        let options = ModelOptions::default().weights(WeightType::F32);
        let plain = load(&source, &options, None);
        let model = load(&source, &options.speculation(Speculation::Mtp), None);
        model.loaded().unwrap().engine().unwrap().controller.fixed = Some(5);
        // Without penalties, such a model repeats itself, and all stop texts end early.
        let request = &ways()[2].clone().min_tokens(0_u32);
        for salt in 0..2 {
            let whole = model.generate(prompt(salt), request).unwrap();
            let (text, mut ends) = (&whole.text, std::collections::BTreeSet::new());
            // Long ones end late.
            for (cut, length) in (0..text.len()).step_by(2).flat_map(|cut| [(cut, 3), (cut, 20), (cut, 45)]) {
                let Some(stop) = text.get(cut..cut + length) else { continue };
                let request = request.clone().stop(vec![stop.to_owned()]);
                let expected = plain.generate(prompt(salt), &request).unwrap();
                let found = model.generate(prompt(salt), &request).unwrap();
                assert!(bits(&found) == bits(&expected), "{family} {stop:?}");
                let first = text.find(stop).unwrap();
                assert_eq!((&found.text[..], found.finish_reason), (&text[..first], FinishReason::Stop));
                ends.insert(found.token_ids.len());
            }
            // More than the passes have last tokens.
            let passes = whole.token_ids.len() - whole.usage.accepted_tokens;
            assert!(passes < 20 && ends.len() > passes, "{family}: {passes} passes, ends at {ends:?}");
        }
    }
}

/// In a small memory the head gives way.
#[test]
fn a_head_takes_no_memory_from_requests() {
    let options = ModelOptions::default().prefill_chunk(64_u32);
    let dir = support::mtp::with_head("qwen3_5", Guesses::Any, "tight");
    let source = Source::Path(dir.path().to_owned());
    let prompts: Vec<Vec<u32>> = (0..12).map(prompt).collect();
    let expected = batch(&load(&source, &options, None), &prompts, &greedy(40));
    let drafting = options.speculation(Speculation::Mtp);
    for more in [0, 1 << 16, 1 << 18] {
        let model = tight(&source, &drafting, 79 + 40, more);
        model.loaded().unwrap().engine().unwrap().controller.fixed = Some(6);
        let fixed = model.runtime().memory_used();
        assert!(batch(&model, &prompts, &greedy(40)) == expected, "{more} more");
        assert_eq!(model.runtime().memory_used(), fixed);
    }
}
