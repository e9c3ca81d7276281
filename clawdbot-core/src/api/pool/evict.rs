//! Which models give way to one that is loaded: arithmetic alone.

/// A model that is loaded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate<T> {
    pub(super) name: T,
    /// Bytes that it holds.
    pub(super) bytes: u64,
    /// When it was used last; what was used longest ago is less.
    pub(super) used: u64,
    /// Whether it may be unloaded: nobody uses it, and it is not pinned.
    pub(super) idle: bool,
}

/// Those that have to go so that `lacking` bytes become free: the ones that were used longest ago, and of those no one whose
/// bytes are not needed. `None` if all that may go are not enough; then nobody goes.
pub(super) fn victims<T: Copy>(mut candidates: Vec<Candidate<T>>, lacking: u64) -> Option<Vec<T>> {
    candidates.retain(|candidate| candidate.idle);
    candidates.sort_by_key(|candidate| candidate.used);
    let mut chosen = Vec::new();
    let mut freed = 0_u64;
    for candidate in candidates {
        if freed >= lacking {
            break;
        }
        freed = freed.saturating_add(candidate.bytes);
        chosen.push(candidate);
    }
    if freed < lacking {
        return None;
    }
    // Those that were used last are kept if they can be.
    for index in (0..chosen.len()).rev() {
        let Some(candidate) = chosen.get(index).copied() else { continue };
        if freed - candidate.bytes >= lacking {
            freed -= candidate.bytes;
            chosen.remove(index);
        }
    }
    Some(chosen.into_iter().map(|candidate| candidate.name).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidate(name: usize, bytes: u64, used: u64, idle: bool) -> Candidate<usize> {
        Candidate { name, bytes, used, idle }
    }

    #[test]
    fn what_was_used_longest_ago_goes_first_and_nothing_in_vain() {
        let all = || vec![candidate(0, 10, 3, true), candidate(1, 10, 1, true), candidate(2, 10, 2, false)];
        assert_eq!(victims(all(), 0), Some(vec![]));
        assert_eq!(victims(all(), 1), Some(vec![1]));
        assert_eq!(victims(all(), 11), Some(vec![1, 0]));
        assert_eq!(victims(all(), 21), None);
        // The small one does not have to go, as the large one has to.
        assert_eq!(victims(vec![candidate(0, 1, 1, true), candidate(1, 50, 2, true)], 20), Some(vec![1]));
    }

    proptest! {
        #[test]
        fn enough_and_no_more(
            models in prop::collection::vec((1_u64..100, any::<bool>()), 0..12),
            lacking in 0_u64..400,
        ) {
            let candidates: Vec<_> = (0..)
                .zip(&models)
                .map(|(name, &(bytes, idle))| candidate(name, bytes, name as u64, idle))
                .collect();
            let bytes = |names: &[usize]| names.iter().map(|&name| models[name].0).sum::<u64>();
            let most: u64 = models.iter().filter(|model| model.1).map(|model| model.0).sum();
            match victims(candidates, lacking) {
                None => prop_assert!(most < lacking),
                Some(chosen) => {
                    prop_assert!(chosen.iter().all(|&name| models[name].1));
                    prop_assert!(bytes(&chosen) >= lacking);
                    for &name in &chosen {
                        prop_assert!(bytes(&chosen) - models[name].0 < lacking);
                    }
                }
            }
        }
    }
}
