//! The scheduler's rules, with passes that compute nothing.

use proptest::prelude::*;

use super::*;

fn entry(id: SequenceId, tokens: usize, computed: usize, arrival: u64) -> Entry {
    let (want, turn) = (Want::Token, Turn::default());
    Entry { id, arrival, tokens, computed, last: tokens, want, turn, held: 0 }
}

fn ample(entries: &[Entry], limits: &Limits) -> Vec<Part> {
    plan_step::<Fake>(entries.to_vec(), limits, None).parts
}

#[test]
fn decoding_goes_first_and_prompts_fill_the_rest() {
    // A prompt, two that decode, a later prompt.
    let all = [entry(0, 100, 0, 1), entry(1, 11, 10, 3), entry(2, 6, 5, 2), entry(3, 50, 0, 4)];
    let limits = Limits { rows: 64, sequences: 8, whole: false };
    let short = |parts: Vec<Part>| parts.iter().map(|p| (p.id, p.rows, p.logits)).collect::<Vec<_>>();
    assert_eq!(short(ample(&all, &limits)), [(2, 1, 1), (1, 1, 1), (0, 62, 0)]);
    let wide = Limits { rows: 1000, sequences: 3, whole: false };
    assert_eq!(short(ample(&all, &wide)), [(2, 1, 1), (1, 1, 1), (0, 100, 1)]);
    // There are fewer rows than sequences that decode: prompts are not kept out for ever.
    let narrow = Limits { rows: 1, sequences: 8, whole: false };
    assert_eq!(short(ample(&all, &narrow)), [(0, 1, 0)]);
}

#[test]
fn scoring_is_bounded() {
    let scores = Entry { want: Want::Scores, ..entry(0, 200, 0, 1) };
    let limits = Limits { rows: 512, sequences: 8, whole: false };
    let expected = Part { id: 0, rows: SCORE_ROWS, logits: SCORE_ROWS };
    assert_eq!(ample(&[scores], &limits), [expected]);
    let states = Entry { want: Want::States, ..entry(0, 200, 0, 1) };
    assert_eq!(ample(&[states], &limits), [Part { id: 0, rows: 200, logits: 0 }]);
}

#[test]
fn what_is_not_cut_waits_or_goes_alone() {
    let all = [entry(0, 30, 0, 1), entry(1, 30, 0, 2), entry(2, 10, 0, 3), entry(3, 100, 0, 4)];
    let limits = Limits { rows: 64, sequences: 8, whole: true };
    let rows = |all: &[Entry]| ample(all, &limits).iter().map(|s| (s.id, s.rows)).collect::<Vec<_>>();
    assert_eq!(rows(&all), [(0, 30), (1, 30)]);
    assert_eq!(rows(&all[2..]), [(2, 10)]);
    assert_eq!(rows(&all[3..]), [(3, 100)]);
}

/// A request of a simulation.
#[derive(Debug, Clone, Copy)]
struct Request {
    /// The pass before which it comes.
    at: u64,
    prompt: usize,
    /// Tokens that it generates, and those that it may.
    output: usize,
    most: usize,
}

impl Request {
    /// Rows of its passes when it is alone.
    fn alone(&self) -> usize {
        self.prompt + self.output - 1
    }
}

/// Pages of 64 positions in a group that keeps all, in one that keeps a window, and a state.
#[derive(Debug, Clone, Copy)]
struct Fake {
    window: Option<usize>,
    state: u64,
}

impl Pages for Fake {
    fn bytes(&self, length: usize, rows: usize) -> u64 {
        let all = length.div_ceil(PAGE) as u64;
        let window = self.window.map_or(0, |window| all.min(((window + rows).div_ceil(PAGE) + 1) as u64));
        all + window + self.state
    }
}

#[derive(Debug, Clone, Copy)]
struct Running {
    entry: Entry,
    request: Request,
}

/// What a simulation counted.
#[derive(Debug, Default)]
struct Outcome {
    passes: u64,
    rows: usize,
    evictions: usize,
    /// Of each request, passes from its arrival to its end.
    took: Vec<u64>,
}

/// Runs `requests` to their ends as the engine does, with `capacity` bytes of pages.
fn simulate(requests: &[Request], limits: &Limits, pages: &Fake, capacity: u64) -> Outcome {
    let mut outcome = Outcome { took: vec![0; requests.len()], ..Outcome::default() };
    let mut running: Vec<Running> = Vec::new();
    let mut next = 0;
    let mut again = 0;
    let bound: usize = requests.iter().map(|request| request.alone() * 3 + 64).sum();
    let last_arrival = requests.iter().map(|request| request.at).max().unwrap_or(0);
    while next < requests.len() || !running.is_empty() {
        assert!(outcome.passes < bound as u64 + last_arrival, "no end");
        while next < requests.len() && (requests[next].at <= outcome.passes || running.is_empty()) {
            let request = requests[next];
            let last = request.prompt + request.most - 1;
            let new = Entry { last, ..entry(next as u64, request.prompt, 0, next as u64) };
            running.push(Running { entry: new, request });
            next += 1;
        }
        let entries: Vec<Entry> = running.iter().map(|running| running.entry).collect();
        let biggest = entries.iter().map(|entry| entry.computed).max().unwrap_or(0);
        let memory = Memory { capacity, pages, open: may_lose(outcome.rows as u64, again as u64, biggest) };
        let short = !memory.is_ample(&entries, limits);
        let plan = plan_step(entries, limits, short.then_some(&memory));
        assert!(plan.hopeless.is_empty());
        assert!(!plan.parts.is_empty(), "each step computes something");
        assert!(plan.parts.len() <= limits.sequences);
        let rows: usize = plan.parts.iter().map(|part| part.rows).sum();
        assert!(rows <= limits.rows || plan.parts.len() == 1 && limits.whole);
        let mut evict = |running: &mut Running| {
            again += running.entry.computed;
            outcome.evictions += 1;
            let entry = &mut running.entry;
            (entry.computed, entry.held, entry.turn.begun) = (0, 0, false);
        };
        for running in &mut running {
            if plan.evicted.contains(&running.entry.id) {
                evict(running);
            }
            running.entry.turn.passed += u32::from(plan.passed.contains(&running.entry.id));
        }
        let part = |id| plan.parts.iter().find(|part| part.id == id);
        for index in 0..running.len() {
            let Some(part) = part(running[index].entry.id) else { continue };
            let wanted = pages.bytes(running[index].entry.computed + part.rows, part.rows);
            running[index].entry.held = running[index].entry.held.max(wanted);
            // As the engine does where the plan lets one go on alone.
            while running.iter().map(|running| running.entry.held).sum::<u64>() > capacity {
                assert_eq!(plan.parts.len(), 1, "more pages than there are");
                let victim =
                    running.iter().rposition(|other| other.entry.held > 0 && other.entry.id != part.id);
                evict(&mut running[victim.unwrap()]);
            }
        }
        outcome.passes += 1;
        outcome.rows += rows;
        for running in &mut running {
            let entry = &mut running.entry;
            let part = part(entry.id);
            entry.turn.after(part.is_some(), outcome.passes);
            if let Some(part) = part {
                entry.computed += part.rows;
                assert_eq!(part.logits, usize::from(entry.computed == entry.tokens));
                entry.tokens += part.logits;
                entry.held = entry.held.min(pages.bytes(entry.computed, 1));
            }
        }
        running.retain(|running| {
            let ended = running.entry.tokens == running.request.prompt + running.request.output;
            if ended {
                outcome.took[running.entry.id as usize] =
                    outcome.passes - running.request.at.min(outcome.passes);
            }
            !ended
        });
    }
    outcome
}

fn alone(requests: &[Request]) -> usize {
    requests.iter().map(Request::alone).sum()
}

fn requests(most_output: usize, exact: bool) -> impl Strategy<Value = Vec<Request>> {
    let one = (0_u64..40, 1_usize..400, 1_usize..most_output, 0_usize..400, any::<bool>());
    proptest::collection::vec(one, 1..40).prop_map(move |list| {
        let mut at = 0;
        let list = list.into_iter().map(|(gap, prompt, output, more, burst)| {
            at += if burst { 0 } else { gap };
            let most = if exact { output + more } else { 100_000 };
            Request { at, prompt, output, most }
        });
        list.collect()
    })
}

/// At least what the largest request needs.
fn capacity(requests: &[Request], limits: &Limits, pages: &Fake, more: u64) -> u64 {
    let most = requests.iter().map(|request| pages.bytes(request.alone(), request.prompt.min(limits.rows)));
    most.max().unwrap_or(0) + more
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Where ends are known, nothing is computed twice, whatever the memory.
    #[test]
    fn nothing_is_computed_twice_when_lengths_are_known(
        list in requests(300, true),
        more in prop_oneof![Just(0_u64), 0_u64..20, 0_u64..200],
        rows in prop_oneof![Just(16_usize), Just(512)],
        sequences in prop_oneof![Just(2_usize), Just(5), Just(64)],
        window in proptest::option::of(1_usize..200),
        state in prop_oneof![Just(0_u64), Just(5)],
    ) {
        let (limits, pages) = (Limits { rows, sequences, whole: false }, Fake { window, state });
        let outcome = simulate(&list, &limits, &pages, capacity(&list, &limits, &pages, more));
        prop_assert_eq!(outcome.evictions, 0);
        prop_assert_eq!(outcome.rows, alone(&list));
    }

    /// Where they are not, little is.
    #[test]
    fn little_is_computed_twice_when_lengths_are_open(
        list in requests(2500, false),
        more in prop_oneof![Just(0_u64), 0_u64..20, 0_u64..200],
        sequences in prop_oneof![Just(2_usize), Just(64)],
    ) {
        let (limits, pages) = (Limits { rows: 128, sequences, whole: false }, Fake { window: None, state: 0 });
        let outcome = simulate(&list, &limits, &pages, capacity(&list, &limits, &pages, more));
        // A quarter, and once in the beginning, when nothing is known, a whole request.
        let once = list.iter().map(Request::alone).max().unwrap_or(0);
        let bound = alone(&list) * 5 / 4 + once;
        prop_assert!(outcome.rows <= bound, "{} of {}", outcome.rows, alone(&list));
    }
}

#[test]
fn a_batch_of_any_size_costs_what_its_requests_cost() {
    let limits = Limits { rows: 512, sequences: 64, whole: false };
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

/// Sequences run side by side as far as memory goes, and passes are full where there is enough.
#[test]
fn memory_is_used() {
    let limits = Limits { rows: 512, sequences: 64, whole: false };
    let pages = Fake { window: None, state: 0 };
    let list = vec![Request { at: 0, prompt: 64, output: 65, most: 65 }; 64];
    let passes = |capacity| simulate(&list, &limits, &pages, capacity).passes;
    // A prompt's chunk each, 8 in a pass, then a token in each pass.
    assert_eq!(passes(1000), 9 + 64);
    assert_eq!(passes(128), 9 + 64);
    // Half of them at a time.
    assert!(passes(64) < 2 * (8 + 64), "{}", passes(64));
    assert!(passes(2) == 64 * 65, "one at a time");
    // Those that are nearly done make room: more at a time than fit with their ends.
    let apart: Vec<Request> =
        (0..64).map(|i| Request { at: i * 65, prompt: 64, output: 641, most: 641 }).collect();
    let outcome = simulate(&apart, &limits, &pages, 67);
    assert!(outcome.passes < 64 * 65 + 641 + 100, "{}", outcome.passes);
}

#[test]
fn a_short_request_does_not_wait_for_long_ones() {
    let limits = Limits { rows: 512, sequences: 64, whole: false };
    let pages = Fake { window: None, state: 0 };
    let long = Request { at: 0, prompt: 8, output: 2000, most: 2000 };
    let short = Request { at: 100, prompt: 10, output: 10, most: 10 };
    let list = [vec![long; 64], vec![short]].concat();
    let outcome = simulate(&list, &limits, &pages, u64::MAX);
    assert!(outcome.took[64] <= 11, "{} passes", outcome.took[64]);
    // Nor does one of many for more than a turn of all before it.
    let list = [vec![long; 64], vec![short; 200]].concat();
    let outcome = simulate(&list, &limits, &pages, u64::MAX);
    let most = outcome.took[64..].iter().max().unwrap();
    assert!(*most <= 16 * 200_u64.div_ceil(64) + 11, "{most} passes");
    // And the long ones get their part: the passes are as full as without.
    let together = alone(&list).div_ceil(64) as u64;
    assert!(outcome.passes < together + together / 10 + 100, "{} of {together}", outcome.passes);
    // A prompt that takes all rows of many passes lets others in too.
    let huge = Request { at: 0, prompt: 512 * 500, output: 1, most: 1 };
    let outcome = simulate(&[huge, Request { at: 3, ..short }], &limits, &pages, u64::MAX);
    assert!(outcome.took[1] <= u64::from(TURN) + 11, "{} passes", outcome.took[1]);
}

#[test]
fn a_small_request_may_pass_a_large_one_but_not_for_ever() {
    let limits = Limits { rows: 512, sequences: 64, whole: false };
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

#[test]
fn what_can_never_fit_is_told_at_once() {
    let pages = Fake { window: None, state: 0 };
    let limits = Limits { rows: 64, sequences: 8, whole: false };
    let memory = Memory { capacity: 3, pages: &pages, open: true };
    let plan = plan_step(vec![entry(0, 193, 0, 1), entry(1, 192, 0, 2)], &limits, Some(&memory));
    assert_eq!(plan.hopeless, [0]);
    assert_eq!(plan.parts, [Part { id: 1, rows: 64, logits: 0 }]);
}
