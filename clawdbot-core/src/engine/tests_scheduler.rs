//! The scheduler's rules for one pass.

use super::super::risk::Work;
use super::super::simulation::{Fake, entry};
use super::*;

fn ample(entries: &[Entry], limits: &Limits) -> Vec<Part> {
    plan_step::<Fake>(entries.to_vec(), limits, None).parts
}

#[test]
fn decoding_goes_first_and_prompts_fill_the_rest() {
    // A prompt, two that decode, a later prompt.
    let all = [entry(0, 100, 0, 1), entry(1, 11, 10, 3), entry(2, 6, 5, 2), entry(3, 50, 0, 4)];
    let limits = Limits { rows: 64, sequences: 8, whole: false, prompts: usize::MAX };
    let short = |parts: Vec<Part>| parts.iter().map(|p| (p.id, p.rows, p.logits)).collect::<Vec<_>>();
    assert_eq!(short(ample(&all, &limits)), [(2, 1, 1), (1, 1, 1), (0, 62, 0)]);
    let wide = Limits { rows: 1000, sequences: 3, whole: false, prompts: usize::MAX };
    assert_eq!(short(ample(&all, &wide)), [(2, 1, 1), (1, 1, 1), (0, 100, 1)]);
    // Fewer rows than decoding sequences: prompts are not kept out for ever.
    let narrow = Limits { rows: 1, sequences: 8, whole: false, prompts: usize::MAX };
    assert_eq!(short(ample(&all, &narrow)), [(0, 1, 0)]);
}

#[test]
fn scoring_is_bounded() {
    let scores = Entry { want: Want::Scores, ..entry(0, 200, 0, 1) };
    let limits = Limits { rows: 512, sequences: 8, whole: false, prompts: usize::MAX };
    let expected = Part { id: 0, rows: SCORE_ROWS, logits: SCORE_ROWS, drafts: 0 };
    assert_eq!(ample(&[scores], &limits), [expected]);
    let states = Entry { want: Want::States, ..entry(0, 200, 0, 1) };
    assert_eq!(ample(&[states], &limits), [Part { id: 0, rows: 200, logits: 0, drafts: 0 }]);
}

#[test]
fn unsplit_sequences_wait_or_run_alone() {
    let all = [entry(0, 30, 0, 1), entry(1, 30, 0, 2), entry(2, 10, 0, 3), entry(3, 100, 0, 4)];
    let limits = Limits { rows: 64, sequences: 8, whole: true, prompts: usize::MAX };
    let rows = |all: &[Entry]| ample(all, &limits).iter().map(|s| (s.id, s.rows)).collect::<Vec<_>>();
    assert_eq!(rows(&all), [(0, 30), (1, 30)]);
    assert_eq!(rows(&all[2..]), [(2, 10)]);
    assert_eq!(rows(&all[3..]), [(3, 100)]);
}

#[test]
fn sequences_that_never_fit_are_reported_at_once() {
    let pages = Fake { window: None, state: 0 };
    let limits = Limits { rows: 64, sequences: 8, whole: false, prompts: usize::MAX };
    let memory = Memory { capacity: 3, pages: &pages, work: Work::default() };
    let plan = plan_step(vec![entry(0, 193, 0, 1), entry(1, 192, 0, 2)], &limits, Some(memory));
    assert_eq!(plan.hopeless, [0]);
    assert_eq!(plan.parts, [Part { id: 1, rows: 64, logits: 0, drafts: 0 }]);
}
