//! What requests cost under the scheduler's rules, in tokens and passes.

use proptest::prelude::*;

use super::entry::{HORIZON, Limits, TURN};
use super::simulation::{Ends, Fake, Request, simulate, simulate_with};
use crate::cache::Pages;

fn alone(requests: &[Request]) -> usize {
    requests.iter().map(Request::alone).sum()
}

/// Up to 40 requests; at least `known` in 10 have a known end.
fn requests(most_output: usize, known: u32) -> impl Strategy<Value = Vec<Request>> {
    let one = (0_u64..40, 1_usize..400, 1_usize..most_output, 0_usize..400, any::<bool>(), 0_u32..10);
    proptest::collection::vec(one, 1..40).prop_map(move |list| {
        let mut at = 0;
        let list = list.into_iter().map(|(gap, prompt, output, more, burst, kind)| {
            at += if burst { 0 } else { gap };
            let most = if kind < known { output + more } else { 100_000 };
            Request { at, prompt, output, most }
        });
        list.collect()
    })
}

/// Bytes for the largest request, plus `more`.
fn capacity(requests: &[Request], limits: &Limits, pages: &Fake, more: u64) -> u64 {
    let most = requests.iter().map(|request| pages.bytes(request.alone(), request.prompt.min(limits.rows)));
    most.max().unwrap_or(0) + more
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Where ends are known, nothing is computed twice, whatever the memory.
    #[test]
    fn nothing_is_computed_twice_when_lengths_are_known(
        list in requests(300, 10),
        more in prop_oneof![Just(0_u64), 0_u64..20, 0_u64..200],
        rows in prop_oneof![Just(16_usize), Just(512)],
        sequences in prop_oneof![Just(2_usize), Just(5), Just(64)],
        window in proptest::option::of(1_usize..200),
        state in prop_oneof![Just(0_u64), Just(5)],
    ) {
        let (limits, pages) = (Limits { rows, sequences, whole: false, prompts: usize::MAX }, Fake { window, state });
        let outcome = simulate(&list, &limits, &pages, capacity(&list, &limits, &pages, more));
        prop_assert_eq!(outcome.evictions, 0);
        prop_assert_eq!(outcome.rows, alone(&list));
    }

    /// Where they are not, at most 3 tokens in 10 are, whenever requests end.
    #[test]
    fn little_is_computed_twice_when_lengths_are_open(
        list in prop_oneof![requests(600, 0), requests(3500, 0), requests(3500, 5)],
        same in proptest::option::of((1_usize..100, 1_usize..4000)),
        more in prop_oneof![Just(0_u64), 0_u64..20, 0_u64..200],
        rows in prop_oneof![Just(16_usize), Just(128)],
        sequences in prop_oneof![Just(2_usize), Just(64)],
        window in proptest::option::of(1_usize..600),
        state in prop_oneof![Just(0_u64), Just(5)],
        ends in prop_oneof![Just(Ends::AsPlanned), Just(Ends::WithALoss)],
    ) {
        let (limits, pages) = (Limits { rows, sequences, whole: false, prompts: usize::MAX }, Fake { window, state });
        let list: Vec<Request> = match same {
            Some((prompt, output)) => list.iter().map(|one| Request { prompt, output, most: 100_000, ..*one }).collect(),
            None => list,
        };
        let outcome = simulate_with(&list, &limits, &pages, capacity(&list, &limits, &pages, more), ends);
        prop_assert!(outcome.rows * 10 <= outcome.alone * 13, "{} of {}", outcome.rows, outcome.alone);
    }
}

/// Cases that come near the bound: it is not held by discarding nothing.
#[test]
fn open_ended_requests_run_together_within_the_bound() {
    let pages = Fake { window: None, state: 0 };
    let limits = Limits { rows: 128, sequences: 64, whole: false, prompts: usize::MAX };
    let open = |output| Request { at: 0, prompt: 20, output, most: 100_000 };
    let list = vec![open(1400); 40];
    let outcome = simulate(&list, &limits, &pages, 100);
    assert!(outcome.evictions > 0);
    assert!(outcome.rows * 10 <= outcome.alone * 13, "{} of {}", outcome.rows, outcome.alone);
    // Four fit at a time.
    assert!(outcome.passes * 2 < alone(&list) as u64, "{} passes", outcome.passes);
    // Those that end soon lose nothing, whatever they run with.
    let short = (0..40).map(|i| Request { at: i * 50, prompt: 30, output: 100, most: HORIZON });
    let mixed: Vec<Request> = std::iter::repeat_n(open(3000), 3).chain(short).collect();
    let outcome = simulate(&mixed, &limits, &pages, 60);
    let most = outcome.took[3..].iter().max().unwrap();
    assert!(*most < 3 * 3000, "{most} passes");
    assert!(outcome.rows * 10 <= outcome.alone * 13, "{} of {}", outcome.rows, outcome.alone);
}

#[test]
fn a_batch_of_any_size_costs_what_its_requests_cost() {
    let limits = Limits { rows: 512, sequences: 64, whole: false, prompts: usize::MAX };
    for count in [1_usize, 2, 16, 32, 64, 200] {
        for capacity in [7, 8, 12, 40, 300] {
            for (window, state) in [(None, 0), (Some(70), 0), (None, 3)] {
                let request = |i: usize| Request { at: 0, prompt: 20 + (i * 37) % 150, output: 60, most: 60 };
                let list: Vec<Request> = (0..count).map(request).collect();
                let (rows, pages) = (Limits { rows: 100, ..limits }, Fake { window, state });
                if capacity < list.iter().map(|request| pages.bytes(request.alone(), 100)).max().unwrap() {
                    continue;
                }
                let outcome = simulate(&list, &rows, &pages, capacity);
                assert_eq!(outcome.rows, alone(&list), "{count} in {capacity}");
            }
        }
    }
}

/// Sequences run concurrently as far as memory allows, and passes are full where there is enough.
#[test]
fn memory_is_used() {
    let limits = Limits { rows: 512, sequences: 64, whole: false, prompts: usize::MAX };
    let pages = Fake { window: None, state: 0 };
    let list = vec![Request { at: 0, prompt: 64, output: 65, most: 65 }; 64];
    let passes = |capacity| simulate(&list, &limits, &pages, capacity).passes;
    // A prompt chunk each, 8 in a pass, then a token in each pass.
    assert_eq!(passes(1000), 9 + 64);
    assert_eq!(passes(128), 9 + 64);
    // Half of them at a time.
    assert!(passes(64) < 2 * (8 + 64), "{}", passes(64));
    assert!(passes(2) == 64 * 65, "one at a time");
    // Those that are nearly done make room: more run at a time than fit at their ends.
    let apart: Vec<Request> =
        (0..64).map(|i| Request { at: i * 65, prompt: 64, output: 641, most: 641 }).collect();
    let outcome = simulate(&apart, &limits, &pages, 67);
    assert!(outcome.passes < 64 * 65 + 641 + 100, "{}", outcome.passes);
}

#[test]
fn a_short_request_does_not_wait_for_long_ones() {
    let limits = Limits { rows: 512, sequences: 64, whole: false, prompts: usize::MAX };
    let pages = Fake { window: None, state: 0 };
    let long = Request { at: 0, prompt: 8, output: 2000, most: 2000 };
    let short = Request { at: 100, prompt: 10, output: 10, most: 10 };
    let list = [vec![long; 64], vec![short]].concat();
    let outcome = simulate(&list, &limits, &pages, u64::MAX);
    assert!(outcome.took[64] <= 11, "{} passes", outcome.took[64]);
    // Nor does one of many wait for more than a turn of all before it.
    let list = [vec![long; 64], vec![short; 200]].concat();
    let outcome = simulate(&list, &limits, &pages, u64::MAX);
    let most = outcome.took[64..].iter().max().unwrap();
    assert!(*most <= 16 * 200_u64.div_ceil(64) + 11, "{most} passes");
    // The long ones get their part: passes are as full as without it.
    let together = alone(&list).div_ceil(64) as u64;
    assert!(outcome.passes < together + together / 10 + 100, "{} of {together}", outcome.passes);
    // A prompt that fills many passes lets others in too.
    let huge = Request { at: 0, prompt: 512 * 500, output: 1, most: 1 };
    let outcome = simulate(&[huge, Request { at: 3, ..short }], &limits, &pages, u64::MAX);
    assert!(outcome.took[1] <= u64::from(TURN) + 11, "{} passes", outcome.took[1]);
}

#[test]
fn a_small_request_may_overtake_a_large_one_but_not_for_ever() {
    let limits = Limits { rows: 512, sequences: 64, whole: false, prompts: usize::MAX };
    let pages = Fake { window: None, state: 0 };
    let first = Request { at: 0, prompt: 64, output: 600, most: 600 };
    let large = Request { at: 1, prompt: 640, output: 10, most: 10 };
    let small = |at| Request { at, prompt: 30, output: 30, most: 30 };
    let list: Vec<Request> = [first, large].into_iter().chain((2..200).map(|at| small(at * 4))).collect();
    let outcome = simulate(&list, &limits, &pages, 12);
    assert!(outcome.took[2] <= 31, "{} passes", outcome.took[2]);
    assert!(outcome.took[1] < 700, "{} passes", outcome.took[1]);
    assert_eq!(outcome.rows, alone(&list));
}
