//! Drafts without a model: what followed when the last tokens occurred before, in the prompt or in the output.
//!
//! The tokens themselves are searched, which takes a few microseconds and no memory.

use super::guess::Guess;

/// Fewest tokens that must have occurred before, and most that are compared.
const SHORTEST: usize = 2;
const LONGEST: usize = 16;
/// Tokens that are searched, at most; the last ones.
const FAR: usize = 1 << 16;
/// Tokens that are passed over at once.
const CHUNK: usize = 64;

/// Least numbers of equal tokens of each class: the more there are, the likelier does the same follow.
const CLASSES: [usize; 6] = [SHORTEST, 3, 4, 6, 9, LONGEST];

/// At most `most` guesses of what follows `tokens`: what followed the longest of its ends that occurred before; of equally long
/// ones the last.
pub(super) fn look_up(tokens: &[u32], most: usize) -> Vec<Guess> {
    let tokens = &tokens[tokens.len().saturating_sub(FAR)..];
    let Some((last, earlier)) = tokens.split_last() else { return Vec::new() };
    let (mut length, mut from) = (SHORTEST - 1, 0);
    let mut end = earlier.len();
    for chunk in earlier.rchunks(CHUNK) {
        let start = end - chunk.len();
        if chunk.contains(last) && length < LONGEST {
            for at in (start + 1..=end).rev().filter(|at| tokens[at - 1] == *last) {
                let equal = tokens[..at].iter().rev().zip(tokens.iter().rev());
                let equal = equal.take(LONGEST).take_while(|(a, b)| a == b).count();
                if equal > length {
                    (length, from) = (equal, at);
                }
            }
        }
        end = start;
    }
    if length < SHORTEST {
        return Vec::new();
    }
    let mut guesses: Vec<Guess> = Vec::with_capacity(most);
    while guesses.len() < most {
        let (index, class) = (from + guesses.len(), class(length + guesses.len()));
        // What repeats itself goes on doing so.
        let guess = tokens.get(index).copied().or_else(|| Some(guesses.get(index - tokens.len())?.token));
        let Some(token) = guess else { break };
        guesses.push(Guess { token, class });
    }
    guesses
}

/// The class of a guess after `equal` tokens that are as before.
fn class(equal: usize) -> usize {
    CLASSES.partition_point(|&least| least <= equal).saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tokens(guesses: &[Guess]) -> Vec<u32> {
        guesses.iter().map(|guess| guess.token).collect()
    }

    #[test]
    fn the_longest_end_counts_and_then_the_last() {
        // 1 2 3 occurs once, 2 3 twice.
        let seen = [1, 2, 3, 4, 5, 6, 2, 3, 9, 9, 1, 2, 3];
        assert_eq!(tokens(&look_up(&seen, 4)), [4, 5, 6, 2]);
        assert_eq!(tokens(&look_up(&seen[5..], 2)), [9, 9]);
        assert_eq!(tokens(&look_up(&[2, 3, 7, 2, 3, 8, 2, 3], 1)), [8]);
        // One token alone is too little.
        assert_eq!(look_up(&[3, 4, 3], 4), []);
        assert_eq!((look_up(&[], 4), look_up(&[3, 3], 0)), (Vec::new(), Vec::new()));
    }

    #[test]
    fn what_repeats_itself_goes_on() {
        assert_eq!(tokens(&look_up(&[5, 1, 2, 1, 2, 1], 7)), [2, 1, 2, 1, 2, 1, 2]);
        assert_eq!(tokens(&look_up(&[7, 7, 7], 5)), [7; 5]);
    }

    #[test]
    fn the_more_is_as_before_the_surer_is_a_guess() {
        assert_eq!([2, 3, 4, 5, 6, 8, 9, 15, 16, 99].map(class), [0, 1, 2, 2, 3, 3, 4, 4, 5, 5]);
        let seen: Vec<u32> = (0..20).chain(0..6).collect();
        let classes: Vec<usize> = look_up(&seen, 5).iter().map(|guess| guess.class).collect();
        assert_eq!(classes, [3, 3, 3, 4, 4]);
    }

    #[test]
    fn long_texts_are_searched_in_their_last_part() {
        let mut seen = vec![1, 2, 3, 4];
        seen.extend((0..FAR as u32).map(|i| 10 + i % 1000 * 1000 + i / 1000));
        seen.extend([1, 2, 3]);
        assert_eq!(look_up(&seen, 3), []);
        assert_eq!(tokens(&look_up(&seen[10..], 3)), [0; 0]);
        seen.extend([4, 4, 5, 2, 3]);
        assert_eq!(tokens(&look_up(&seen, 2)), [4, 4]);
    }

    /// Every end, compared with every place.
    fn slowly(tokens: &[u32], most: usize) -> Vec<u32> {
        let equal = |at: usize| {
            let pairs = tokens[..at].iter().rev().zip(tokens.iter().rev());
            pairs.take_while(|(a, b)| a == b).count().min(LONGEST)
        };
        let Some(best) = (1..tokens.len()).max_by_key(|&at| (equal(at), at)) else { return Vec::new() };
        let mut all = tokens.to_vec();
        if equal(best) >= SHORTEST {
            (best..best + most).for_each(|at| all.push(all[at]));
        }
        all.split_off(tokens.len())
    }

    proptest! {
        #[test]
        fn as_a_slow_search_finds(seen in prop::collection::vec(0_u32..4, 0..300), most in 0_usize..20) {
            prop_assert_eq!(tokens(&look_up(&seen, most)), slowly(&seen, most));
        }
    }
}
