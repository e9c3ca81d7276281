//! The tokens of a vocabulary, and where their texts are.

use super::blob::{Blob, Numbers, Section};
use super::hash;

/// The tokens of a vocabulary, in the order of their ids. Indices are places in that order.
#[derive(Debug)]
pub(super) struct TableVocab {
    blob: Blob,
    ends: Numbers,
    /// Empty if each id is the index.
    ids: Numbers,
    slots: Numbers,
    /// Bytes of the longest text.
    pub(super) longest: usize,
    /// Characters of the text with the most.
    pub(super) most_chars: usize,
}

impl TableVocab {
    /// # Errors
    /// With what was expected and found.
    pub(super) fn open(blob: &Blob) -> Result<Self, String> {
        let ends = blob.numbers(Section::Ends)?;
        if ends.len() > hash::MAX_KEYS {
            return Err(format!("expected at most {} tokens, found {}", hash::MAX_KEYS, ends.len()));
        }
        let ids = blob.numbers(Section::Ids)?;
        let slots = blob.numbers(Section::TokenSlots)?;
        let texts = std::str::from_utf8(blob.bytes(Section::Texts))
            .map_err(|error| format!("texts of tokens: expected UTF-8: {error}"))?;
        let (mut start, mut longest, mut most_chars) = (0, 0, 0);
        for end in ends.iter() {
            let end = end as usize;
            if end < start || !texts.is_char_boundary(end) {
                return Err(format!(
                    "texts of tokens: expected one that starts at {start}, found its end at {end}"
                ));
            }
            longest = longest.max(end - start);
            // Counting is for those that can have more.
            if end - start > most_chars {
                most_chars = most_chars.max(texts[start..end].chars().count());
            }
            start = end;
        }
        if start != texts.len() {
            return Err(format!("texts of tokens: expected {start} bytes, found {}", texts.len()));
        }
        if ids.len() != 0 && ids.len() != ends.len() {
            return Err(format!("expected {} ids, found {}", ends.len(), ids.len()));
        }
        if let Some((a, b)) = ids.unordered(|a, b| a < b) {
            return Err(format!("Ids: expected ascending ones, found {a} before {b}"));
        }
        hash::check(&slots).map_err(|error| format!("tokens: {error}"))?;
        Ok(TableVocab { blob: blob.clone(), ends, ids, slots, longest, most_chars })
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The largest id.
    pub(super) fn largest_id(&self) -> Option<u32> {
        self.id(self.len().checked_sub(1)?)
    }

    fn bytes(&self, index: usize) -> Option<&[u8]> {
        let start = match index {
            0 => 0,
            _ => self.ends.get(index - 1)?,
        };
        self.blob.bytes(Section::Texts).get(start as usize..self.ends.get(index)? as usize)
    }

    /// The text of the token at `index`.
    pub(super) fn text(&self, index: usize) -> Option<&str> {
        std::str::from_utf8(self.bytes(index)?).ok()
    }

    /// Calls `each` with the text of every token.
    pub(super) fn each(&self, mut each: impl FnMut(&str)) {
        (0..self.len()).filter_map(|index| self.text(index)).for_each(&mut each);
    }

    /// The id of the token at `index`.
    #[inline]
    pub(super) fn id(&self, index: usize) -> Option<u32> {
        match self.ids.len() {
            0 => u32::try_from(index).ok().filter(|_| index < self.len()),
            _ => self.ids.get(index),
        }
    }

    /// The index of the token with the text `text`.
    #[inline]
    pub(super) fn index(&self, text: &str) -> Option<usize> {
        let hash = hash::of_text(self.blob.seed, text.as_bytes());
        hash::find(&self.slots, hash, |index| self.bytes(index) == Some(text.as_bytes()))
    }

    /// The id of the token with the text `text`.
    pub(super) fn id_of(&self, text: &str) -> Option<u32> {
        self.index(text).and_then(|index| self.id(index))
    }

    /// The text of the token `id`.
    pub(super) fn text_of(&self, id: u32) -> Option<&str> {
        let here = id as usize;
        if self.id(here) == Some(id) {
            return self.text(here);
        }
        let index = self.ids.all().binary_search_by_key(&id, |&bytes| u32::from_le_bytes(bytes));
        self.text(index.ok()?)
    }

    /// The numbers of merges, checked to be below the number of tokens.
    ///
    /// # Errors
    /// With what was expected and found.
    pub(super) fn indices(&self, section: Section) -> Result<Numbers, String> {
        let numbers = self.blob.numbers(section)?;
        match numbers.not_below(self.len()) {
            Some(found) => Err(format!("{section:?}: expected tokens below {}, found {found}", self.len())),
            None => Ok(numbers),
        }
    }

    pub(super) fn blob(&self) -> &Blob {
        &self.blob
    }
}
