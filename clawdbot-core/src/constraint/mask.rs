//! Sets of token ids.

use llguidance::toktrie::SimpleVob;

/// A set of token ids as bits: bit `id % 32` of word `id / 32`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mask {
    words: Vec<u32>,
    len: usize,
}

impl Mask {
    /// The empty set of ids below `len`.
    pub(super) fn new(len: usize) -> Self {
        Mask { words: vec![0; len.div_ceil(32)], len }
    }

    /// Whether `id` is in the set.
    pub fn allows(&self, id: u32) -> bool {
        (id as usize) < self.len
            && self.words.get(id as usize / 32).is_some_and(|word| word >> (id % 32) & 1 == 1)
    }

    /// The bits, `len / 32` words rounded up. Bits from [`len`](Self::len) on are 0.
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    /// Ids are below this: the number of token ids of the model.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no id is in the set.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    /// How many ids are in the set.
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The ids in the set, ascending.
    pub fn ids(&self) -> impl Iterator<Item = u32> + '_ {
        let ids = |(at, word): (usize, &u32)| {
            let (mut word, base) = (*word, u32::try_from(at * 32).unwrap_or(u32::MAX));
            std::iter::from_fn(move || {
                let bit = (word != 0).then(|| word.trailing_zeros())?;
                word &= word - 1;
                Some(base.saturating_add(bit))
            })
        };
        self.words.iter().enumerate().flat_map(ids)
    }

    /// Takes an id in or out.
    pub(super) fn set(&mut self, id: u32, allowed: bool) {
        if (id as usize) < self.len
            && let Some(word) = self.words.get_mut(id as usize / 32)
        {
            let bit = 1 << (id % 32);
            *word = if allowed { *word | bit } else { *word & !bit };
        }
    }

    /// Becomes the ids of `found` below `len`.
    pub(super) fn copy(&mut self, found: &SimpleVob) {
        let words = found.as_slice();
        for (at, word) in self.words.iter_mut().enumerate() {
            *word = words.get(at).copied().unwrap_or(0);
        }
        let rest = self.len % 32;
        if rest != 0
            && let Some(last) = self.words.last_mut()
        {
            *last &= (1 << rest) - 1;
        }
    }

    /// Becomes the set of all ids.
    pub(super) fn fill(&mut self) {
        self.words.fill(u32::MAX);
        let rest = self.len % 32;
        if rest != 0
            && let Some(last) = self.words.last_mut()
        {
            *last = (1 << rest) - 1;
        }
    }

    /// Becomes empty.
    pub(super) fn clear(&mut self) {
        self.words.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_go_in_and_out() {
        let mut mask = Mask::new(70);
        for id in [0, 31, 32, 69, 70, u32::MAX] {
            mask.set(id, true);
        }
        assert_eq!(mask.ids().collect::<Vec<_>>(), [0, 31, 32, 69]);
        assert_eq!((mask.count(), mask.len(), mask.words().len()), (4, 70, 3));
        mask.set(32, false);
        assert!(!mask.allows(32) && mask.allows(69) && !mask.allows(70));
        let mut ones = SimpleVob::alloc_ones(96);
        ones.disallow_token(1);
        mask.copy(&ones);
        assert_eq!(mask.count(), 69);
        mask.clear();
        assert!(mask.is_empty());
        mask.fill();
        assert_eq!(mask.ids().collect::<Vec<_>>(), (0..70).collect::<Vec<_>>());
    }
}
