//! Prefixes in the swap space, over the model of `tests_swap.rs`.

use super::SequenceId;
use super::tests_swap::{Bench, Running, bench_that_keeps, prompt};
use crate::event::Completion;
use crate::runtime::Faults;

impl Bench {
    /// A request of its own: nothing is left of it but what is kept for others.
    fn ask(&mut self, tokens: &[u32]) -> Completion {
        let id = self.engine.open().unwrap();
        let running = self.start(id, tokens, 5);
        let completion = self.finish(&running);
        self.engine.close(id);
        completion
    }
}

/// Prompts that were given up for others, longer than memory has room for together, begin where they ended.
#[test]
fn prefixes_come_back() {
    let mut bench = bench_that_keeps(1 << 30, 20, 200, 64 << 20);
    let lists: Vec<Vec<u32>> = (0..6).map(|salt| prompt(64 * 4 + 10, salt)).collect();
    lists.iter().for_each(|tokens| assert_eq!(bench.ask(tokens).usage.cached_tokens, 0));
    let before = bench.metrics();
    assert!(before.prefix_swap_outs > 8 && before.prefix_swap_ins == 0, "{before:?}");
    for tokens in &lists {
        assert_eq!(bench.ask(tokens).usage.cached_tokens, 256);
    }
    let after = bench.metrics();
    assert!(after.prefix_swap_ins > 8 && after.swap_failures == 0, "{after:?}");
    // The last token is computed.
    assert_eq!(after.computed_tokens - before.computed_tokens, 6 * (10 + 4));
    // What is there still is not written again.
    assert!(after.prefix_swap_outs <= 24, "{after:?}");
    // Several at once, whoever comes first.
    let ids: Vec<SequenceId> = lists.iter().map(|_| bench.engine.open().unwrap()).collect();
    let running: Vec<Running> =
        ids.iter().zip(&lists).map(|(&id, tokens)| bench.start(id, tokens, 5)).collect();
    running.iter().for_each(|running| drop(bench.finish(running)));
    bench.end();
}

#[test]
fn prefixes_that_come_back_wrong_are_computed_again() {
    for faults in [
        Faults { unreadable: true, ..Faults::default() },
        Faults { flipped: true, ..Faults::default() },
        Faults { full: true, ..Faults::default() },
    ] {
        let mut bench = bench_that_keeps(1 << 30, 20, 64, 64 << 20);
        bench.space.set_faults(if faults.full { faults } else { Faults::default() });
        let lists: Vec<Vec<u32>> = (0..6).map(|salt| prompt(64 * 4 + 10, salt)).collect();
        lists.iter().for_each(|tokens| drop(bench.ask(tokens)));
        bench.space.set_faults(faults);
        assert_eq!(bench.ask(&lists[0]).usage.cached_tokens, 0, "{faults:?}");
        let metrics = bench.metrics();
        assert!(metrics.swap_failures > 0 && metrics.prefix_swap_ins == 0, "{metrics:?}");
        bench.end();
    }
}

/// Requests lose nothing to prefixes: their pages are written in place of those of prefixes when the swap space is full.
#[test]
fn sequences_come_before_prefixes_in_the_swap_space() {
    let mut bench = bench_that_keeps(1 << 30, 20, 64, 12 << 16);
    (0..12).for_each(|salt| drop(bench.ask(&prompt(64 * 4 + 10, salt))));
    assert_eq!(bench.space.used(), 12 << 16, "all of it is taken by prefixes");
    let id = bench.engine.open().unwrap();
    let running = bench.start(id, &prompt(300, 50), 5);
    bench.finish(&running);
    assert!(bench.engine.evict(id));
    let running = bench.start(id, &prompt(3, 50), 5);
    assert_eq!(bench.finish(&running).usage.cached_tokens, 304);
    bench.end();
}
