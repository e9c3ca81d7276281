//! What the pages of the index of prefixes are found by.

use sha2::{Digest, Sha256};

/// What keys and values depend on apart from tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Root {
    /// Number of the adapter, if there is one.
    pub(crate) adapter: Option<u64>,
    /// Whether keys are rotated with the long frequencies of LongRoPE.
    pub(crate) long: bool,
}

/// SHA-256 of what a node's keys and values depend on.
pub(super) type Key = [u8; 32];

/// The key of a node of `tokens`. `parent`: that of the node before it.
pub(super) fn key_of(parent: Option<&Key>, root: Root, tokens: &[u32]) -> Key {
    let mut sha256 = Sha256::new();
    match parent {
        Some(parent) => sha256.update(parent),
        // Shorter than a key.
        None => {
            sha256.update(root.adapter.map_or(0, |number| number.wrapping_add(1)).to_le_bytes());
            sha256.update([root.long.into()]);
        }
    }
    tokens.iter().for_each(|token| sha256.update(token.to_le_bytes()));
    sha256.finalize().into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn keys_differ_with_all_that_keys_and_values_depend_on() {
        let root = |adapter, long| Root { adapter, long };
        let first = key_of(None, root(None, false), &[1, 2]);
        let keys = [
            first,
            key_of(None, root(Some(0), false), &[1, 2]),
            key_of(None, root(Some(1), false), &[1, 2]),
            key_of(None, root(None, true), &[1, 2]),
            key_of(None, root(None, false), &[2, 1]),
            key_of(Some(&first), root(None, false), &[1, 2]),
            key_of(Some(&first), root(None, false), &[1, 3]),
        ];
        assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len());
        assert_eq!(first, key_of(None, root(None, false), &[1, 2]));
    }
}
