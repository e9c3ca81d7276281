//! Unigram with tables: as in the tokenizers crate, to the same tokens.

use tokenizers::Token;

use super::blob::Section;
use super::settings::Settings;
use super::trie::Trie;
use super::vocab::TableVocab;
use crate::tokenizer::lengths::MAX_PIECE;

/// What an unknown character costs, compared with the rarest piece.
const UNKNOWN_PENALTY: f64 = 10.0;

/// A Unigram model.
#[derive(Debug)]
pub(in crate::tokenizer) struct TableUnigram {
    pub(super) vocab: TableVocab,
    trie: Trie,
    /// The least score, or infinity.
    least: f64,
    unk_id: Option<usize>,
    byte_fallback: bool,
}

/// The best way to the end of a piece.
#[derive(Clone, Copy, Default)]
struct Best {
    index: usize,
    score: f64,
    start: Option<usize>,
}

impl TableUnigram {
    /// # Errors
    /// With what was expected and found.
    pub(super) fn open(vocab: TableVocab, settings: &Settings) -> Result<Self, String> {
        let blob = vocab.blob();
        let (scores, ids) = (blob.bytes(Section::Scores).len(), blob.bytes(Section::Ids).len());
        if scores != 8 * vocab.len() {
            let expected = 8 * vocab.len();
            return Err(format!(
                "Scores: expected {expected} bytes for {} pieces, found {scores}",
                vocab.len()
            ));
        }
        if ids != 0 {
            return Err(format!(
                "Ids: expected none, as pieces have the ids 0, 1, 2, ..., found {ids} bytes"
            ));
        }
        if vocab.longest > MAX_PIECE {
            return Err(format!("expected pieces of at most {MAX_PIECE} bytes, found {}", vocab.longest));
        }
        let unk_id = settings.unk_id;
        if let Some(found) = unk_id.filter(|&id| id >= vocab.len()) {
            return Err(format!("unk_id: expected an id below {}, found {found}", vocab.len()));
        }
        let trie = Trie::open(&vocab)?;
        let scores = blob.bytes(Section::Scores).as_chunks().0.iter().map(|&bytes| f64::from_le_bytes(bytes));
        let least = scores.fold(f64::INFINITY, |least, score| if score < least { score } else { least });
        Ok(TableUnigram { vocab, trie, least, unk_id, byte_fallback: settings.byte_fallback })
    }

    /// The score of the piece at `index`.
    pub(super) fn score(&self, index: usize) -> f64 {
        let scores = self.vocab.blob().bytes(Section::Scores).as_chunks().0;
        scores.get(index).map_or(self.least, |&bytes| f64::from_le_bytes(bytes))
    }

    /// The index of the piece `text` in the trie.
    pub(super) fn piece(&self, text: &str) -> Option<usize> {
        let mut piece = None;
        self.trie.prefixes(text.as_bytes(), text.len(), |len, index| {
            piece = (len == text.len()).then_some(index);
        });
        piece
    }

    fn unknown(&self) -> tokenizers::Result<usize> {
        self.unk_id.ok_or_else(|| "Encountered an unknown token but `unk_id` is missing".into())
    }

    /// Where the pieces of the best sum of scores end; unknown characters next to each other are one piece.
    fn ends(&self, text: &str) -> tokenizers::Result<Vec<usize>> {
        let unknown_score = self.least - UNKNOWN_PENALTY;
        let mut best = vec![Best::default(); text.len() + 1];
        for (start, c) in text.char_indices() {
            let (score, width) = (best[start].score, c.len_utf8());
            let mut better = |len: usize, index: usize, score: f64| {
                let target = &mut best[start + len];
                if target.start.is_none() || score > target.score {
                    *target = Best { index, score, start: Some(start) };
                    return true;
                }
                false
            };
            let mut single = false;
            self.trie.prefixes(&text.as_bytes()[start..], self.vocab.longest, |len, index| {
                better(len, index, self.score(index) + score);
                single |= len == width;
            });
            if !single && better(width, usize::MAX, unknown_score + score) {
                best[start + width].index = self.unknown()?;
            }
        }
        let (mut end, mut ends, mut was_unknown) = (text.len(), Vec::new(), false);
        while end > 0 {
            let Best { index, start, .. } = best[end];
            let unknown = Some(index) == self.unk_id;
            if !(unknown && was_unknown) {
                ends.push(end);
            }
            was_unknown = unknown;
            end = start.filter(|&start| start < end).ok_or_else(|| {
                format!("tables: expected a piece of the text that ends at byte {end}, found none")
            })?;
        }
        ends.reverse();
        Ok(ends)
    }

    pub(super) fn tokenize(&self, text: &str) -> tokenizers::Result<Vec<Token>> {
        let (mut start, mut tokens) = (0, Vec::new());
        for end in self.ends(text)? {
            let offsets = (start, end);
            let piece = text.get(start..end).unwrap_or_default();
            start = end;
            let mut add = |id: u32| tokens.push(Token::new(id, String::new(), offsets));
            if let Some(id) = self.vocab.id_of(piece) {
                add(id);
                continue;
            }
            let byte = |byte: u8| self.vocab.id_of(&format!("<0x{byte:02X}>"));
            let bytes = self.byte_fallback.then(|| piece.bytes().map(byte).collect::<Option<Vec<u32>>>());
            match bytes.flatten() {
                Some(bytes) => bytes.into_iter().for_each(add),
                None => add(self.unknown()? as u32),
            }
        }
        Ok(tokens)
    }
}
