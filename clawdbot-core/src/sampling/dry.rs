//! DRY ("don't repeat yourself"): a penalty for tokens that would continue a repetition, which grows with its length.

use super::{History, bounded};
use crate::options::Resolved;

/// Most repeated tokens that the penalty grows by: it is at the end of its range long before.
const LONGEST: u32 = 4096;

/// Lowers the logits of tokens that would continue a repetition (<https://github.com/oobabooga/text-generation-webui/pull/5677>):
/// ```text
/// n = the most tokens at the end that also come before an earlier occurrence of the token, none of them a breaker
/// logit = logit - multiplier base^(n - allowed length), if n >= allowed length
/// ```
/// Breakers themselves get no penalty. Time and memory grow with the tokens that are looked at, and no faster.
pub(super) fn penalize(logits: &mut [f32], options: &Resolved, history: &History<'_>) {
    if options.dry_multiplier == 0.0 {
        return;
    }
    let length = options.dry_penalty_last_n.map_or(usize::MAX, |n| n as usize).min(history.len());
    let last = history.len();
    let back = |at: usize| history.at(last - 1 - at);
    let breaks = |token: u32| options.dry_breakers.binary_search(&token).is_ok();
    let limit = (0..length).take_while(|&at| !breaks(back(at))).count();
    if limit < options.dry_allowed_length as usize {
        return;
    }
    // From the end back, what comes before place `at` is followed by the token at `at - 1`.
    let lengths = common_prefixes(length, back);
    let mut repeated: Vec<(u32, u32)> = lengths
        .iter()
        .enumerate()
        .skip(1)
        .map(|(at, &n)| (back(at - 1), n.min(u32::try_from(limit).unwrap_or(u32::MAX))))
        .filter(|&(token, n)| n >= options.dry_allowed_length && !breaks(token))
        .collect();
    // The longest of each token is its last.
    repeated.sort_unstable();
    for (index, &(token, n)) in repeated.iter().enumerate() {
        if repeated.get(index + 1).is_some_and(|(next, _)| *next == token) {
            continue;
        }
        let Some(logit) = logits.get_mut(token as usize) else { continue };
        let exponent = (n - options.dry_allowed_length).min(LONGEST);
        let penalty =
            f64::from(options.dry_multiplier) * libm::pow(f64::from(options.dry_base), f64::from(exponent));
        *logit = bounded(*logit - bounded(penalty as f32));
    }
}

/// For each place of a sequence of `length` tokens, how many tokens from there on are those at its beginning: the Z
/// algorithm (Gusfield 1997, section 1.4). The first entry is 0.
fn common_prefixes(length: usize, token: impl Fn(usize) -> u32) -> Vec<u32> {
    let mut z = vec![0_u32; length];
    // The match that reaches farthest: `left .. right` is as the beginning.
    let (mut left, mut right) = (0, 0);
    for at in 1..length {
        let mut same = if at < right { (z[at - left] as usize).min(right - at) } else { 0 };
        while at + same < length && token(same) == token(at + same) {
            same += 1;
        }
        if at + same > right {
            (left, right) = (at, at + same);
        }
        z[at] = u32::try_from(same).unwrap_or(u32::MAX);
    }
    z
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn options(breakers: &[u32]) -> Resolved {
        Resolved { dry_multiplier: 1.0, dry_base: 2.0, dry_breakers: breakers.into(), ..Resolved::greedy() }
    }

    fn penalties(options: &Resolved, prompt: &[u32], output: &[u32]) -> Vec<f32> {
        let mut logits = vec![0.0; 8];
        penalize(&mut logits, options, &History { prompt, output });
        logits.iter().map(|x| 0.0 - x).collect()
    }

    #[test]
    fn what_continues_a_repetition_is_less_likely() {
        // 1 2 3 came before 4, 2 3 before 5: three tokens give 2^(3 - 2), two 2^0.
        let (prompt, output) = ([1, 2, 3, 4, 2, 3, 5], [1, 2, 3]);
        assert_eq!(penalties(&options(&[]), &prompt, &output), [0.0, 0.0, 0.0, 0.0, 2.0, 1.0, 0.0, 0.0]);
        // A breaker ends what is compared, and is not penalized.
        assert_eq!(penalties(&options(&[1]), &prompt, &output), [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0]);
        assert_eq!(penalties(&options(&[2]), &prompt, &output), [0.0; 8]);
        assert_eq!(penalties(&options(&[5]), &prompt, &output), [0.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0]);
        let last = Resolved { dry_penalty_last_n: Some(6), ..options(&[]) };
        assert_eq!(penalties(&last, &prompt, &output), [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
        let long = Resolved { dry_allowed_length: 4, ..options(&[]) };
        assert_eq!(penalties(&long, &prompt, &output), [0.0; 8]);
        // A repetition that overlaps itself: 7 7 7 comes before the last 7.
        assert_eq!(penalties(&options(&[]), &[7; 4], &[])[7], 2.0);
        // Never an infinity.
        let large = Resolved { dry_base: f32::MAX, dry_multiplier: f32::MAX, ..options(&[]) };
        let mut logits = [0.0, -f32::MAX];
        penalize(&mut logits, &large, &History { prompt: &[1; 400], output: &[] });
        assert_eq!(logits, [0.0, f32::MIN]);
    }

    proptest! {
        #[test]
        fn the_fast_search_finds_what_the_definition_says(
            tokens in proptest::collection::vec(0_u32..4, 0..40), breaker in 0_u32..8, last in 1_u32..50,
        ) {
            let options = Resolved { dry_penalty_last_n: Some(last), ..options(&[breaker]) };
            let found = penalties(&options, &[], &tokens);
            let window = &tokens[tokens.len().saturating_sub(last as usize)..];
            let mut expected = vec![0.0_f32; 8];
            for at in 0..window.len().saturating_sub(1) {
                let next = window[at + 1];
                let same = |n: &usize| {
                    window[at - n] == window[window.len() - 1 - n] && window[at - n] != breaker
                };
                let n = (0..=at).take_while(same).count();
                if n >= 2 && next != breaker {
                    expected[next as usize] = expected[next as usize].max(2_f32.powi(n as i32 - 2));
                }
            }
            prop_assert_eq!(found, expected);
        }
    }
}
