//! Splits long words for BPE: some tokenizers make one word of a whole text. Where no token spans two neighbouring
//! characters, the sides are independent, and the work can be cancelled between them.

use std::collections::HashSet;
use std::sync::OnceLock;

use tokenizers::models::bpe::BPE;
use tokenizers::{Model, Token};

use super::pipeline::work;

/// Words of up to this many bytes are tokenized as a whole.
const LONG: usize = 16 << 10;

/// A BPE model, whose long words can be split.
pub(super) trait Splittable {
    /// The tokens of a word as a whole.
    ///
    /// # Errors
    /// Those of the model.
    fn tokenize(&self, word: &str) -> tokenizers::Result<Vec<Token>>;
    /// Whether `token` is one.
    fn has(&self, token: &str) -> bool;
    /// Whether a word that is a token is looked up before merging.
    fn ignores_merges(&self) -> bool;
    /// Whether tokens depend on where a word begins and ends.
    fn marks_words(&self) -> bool;
    /// Calls `each` with the text of every token.
    fn each_token(&self, each: &mut dyn FnMut(&str));
}

impl Splittable for BPE {
    fn tokenize(&self, word: &str) -> tokenizers::Result<Vec<Token>> {
        Model::tokenize(self, word)
    }

    fn has(&self, token: &str) -> bool {
        self.token_to_id(token).is_some()
    }

    fn ignores_merges(&self) -> bool {
        self.ignore_merges
    }

    fn marks_words(&self) -> bool {
        let some = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        some(&self.end_of_word_suffix) || some(self.get_continuing_subword_prefix())
    }

    fn each_token(&self, each: &mut dyn FnMut(&str)) {
        self.get_vocab().keys().for_each(|token| each(token));
    }
}

/// Where words can be split.
#[derive(Default)]
pub(super) struct Words {
    seams: OnceLock<Seams>,
}

/// Characters that the tokens of a vocabulary join.
struct Seams {
    /// Characters that are tokens: others may share a token with their neighbours.
    single: HashSet<char>,
    /// Pairs of neighbouring characters in tokens.
    pairs: HashSet<(char, char)>,
    /// Bytes of the longest token.
    longest: usize,
}

impl Seams {
    fn of(bpe: &impl Splittable) -> Self {
        let mut seams = Seams { single: HashSet::new(), pairs: HashSet::new(), longest: 0 };
        bpe.each_token(&mut |token| {
            seams.longest = seams.longest.max(token.len());
            let mut chars = token.chars();
            let Some(mut before) = chars.next() else { return };
            if chars.as_str().is_empty() {
                seams.single.insert(before);
            }
            for c in chars {
                seams.pairs.insert((before, c));
                before = c;
            }
        });
        seams
    }

    /// The first place from `from` on at which `word` can be split, or its end.
    fn next(&self, word: &str, from: usize) -> usize {
        let from = word.ceil_char_boundary(from);
        let rest = word.get(from..).unwrap_or_default();
        let mut before = None;
        for (at, c) in rest.char_indices() {
            let single = self.single.contains(&c);
            if let Some(before) = before.replace(c).filter(|before| self.single.contains(before))
                && single
                && !self.pairs.contains(&(before, c))
            {
                return from + at;
            }
        }
        word.len()
    }
}

impl Words {
    /// The tokens of `word`.
    ///
    /// # Errors
    /// Those of the model; if the work should stop.
    pub(super) fn tokenize(&self, bpe: &impl Splittable, word: &str) -> tokenizers::Result<Vec<Token>> {
        if word.len() <= LONG || bpe.marks_words() {
            return bpe.tokenize(word);
        }
        let seams = self.seams.get_or_init(|| Seams::of(bpe));
        // A word that is a token as a whole is looked up before merging, and so would be such a part.
        let is_token = |part: &str| bpe.ignores_merges() && part.len() <= seams.longest && bpe.has(part);
        let (mut tokens, mut start) = (Vec::new(), 0);
        while start < word.len() {
            work::check()?;
            let mut end = seams.next(word, start + LONG);
            while end < word.len() && (is_token(&word[start..end]) || is_token(&word[end..])) {
                end = seams.next(word, end + 1);
            }
            let mut part = bpe.tokenize(&word[start..end])?;
            for token in &mut part {
                token.offsets = (token.offsets.0 + start, token.offsets.1 + start);
            }
            tokens.append(&mut part);
            start = end;
        }
        Ok(tokens)
    }
}

#[cfg(test)]
mod tests {
    use tokenizers::models::bpe::Vocab;

    use super::*;

    /// Random text made of these pieces.
    fn text(letters: &[&str], length: usize) -> String {
        let mut state = 7_u32;
        let mut text = String::new();
        while text.len() < length {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            text.push_str(letters[(state >> 16) as usize % letters.len()]);
        }
        text
    }

    fn bpe(tokens: &[&str], merges: &[(&str, &str)], fallback: bool) -> BPE {
        let mut vocab: Vec<String> = tokens.iter().map(|&token| token.to_owned()).collect();
        if fallback {
            vocab.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
        }
        let merges = merges.iter().map(|&(a, b)| (a.to_owned(), b.to_owned())).collect();
        let vocab: Vocab = vocab.into_iter().zip(0..).collect();
        let builder = BPE::builder().vocab_and_merges(vocab, merges).unk_token("?".to_owned());
        builder.fuse_unk(true).byte_fallback(fallback).build().unwrap()
    }

    #[test]
    fn splitting_keeps_the_tokens() {
        let tokens = ["?", "_", "a", "b", "_a", "ab", "_ab", "ba", "aa"];
        let merges = [("_", "a"), ("a", "b"), ("_a", "b"), ("b", "a"), ("a", "a")];
        for fallback in [false, true] {
            let bpe = bpe(&tokens, &merges, fallback);
            for letters in [["_", "a", "b", "a"], ["_", "é", "x", "a"], ["a", "b", "a", "b"]] {
                let text = text(&letters, 5 * LONG);
                let parted = Words::default().tokenize(&bpe, &text).unwrap();
                assert_eq!(parted, Model::tokenize(&bpe, &text).unwrap(), "{letters:?}");
            }
            let seams = Seams::of(&bpe);
            assert_eq!(seams.next("aa_b_a", 0), 2);
            assert_eq!(seams.next("aa_b_a", 2), 3);
            assert_eq!(seams.next("éa_éa", 2), 3);
            assert_eq!(seams.next("é_éé", 2), 7);
        }
    }

    /// As in Llama 3: a word that is a token needs no merges, and some have none.
    #[test]
    fn parts_are_not_looked_up_as_words() {
        let mut bpe = bpe(&["?", "a", "b", "c", "bc", "cb"], &[("c", "b")], false);
        bpe.ignore_merges = true;
        for end in ["bc", "bcbc", "b", "cbc"] {
            for length in [LONG - 1, LONG, LONG + 1, 20_000] {
                let text = "a".repeat(length) + end;
                let parted = Words::default().tokenize(&bpe, &text).unwrap();
                assert_eq!(parted, Model::tokenize(&bpe, &text).unwrap(), "{length} {end}");
            }
        }
    }

    #[test]
    fn words_with_markers_are_not_split() {
        let vocab: Vocab = ["a", "b", "b</w>"].map(str::to_owned).into_iter().zip(0..).collect();
        let bpe = BPE::builder().vocab_and_merges(vocab, Vec::new()).end_of_word_suffix("</w>".to_owned());
        let text = "ab".repeat(LONG);
        let tokens = Words::default().tokenize(&bpe.build().unwrap(), &text).unwrap();
        let ids: Vec<u32> = tokens.iter().map(|token| token.id).collect();
        assert_eq!((ids.len(), ids[1], ids.last()), (2 * LONG, 1, Some(&2)));
    }
}
