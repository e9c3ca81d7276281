//! A trie of pieces in arrays.

use super::blob::{Blob, BlobWriter, Numbers, Section};
use super::vocab::TableVocab;

/// Pieces by their bytes. The nodes are in the order of their depth.
#[derive(Debug)]
pub(super) struct Trie {
    blob: Blob,
    first_child: Numbers,
    tokens: Numbers,
}

impl Trie {
    /// # Errors
    /// With what was expected and found.
    pub(super) fn open(vocab: &TableVocab) -> Result<Self, String> {
        let blob = vocab.blob().clone();
        let nodes = blob.bytes(Section::Labels).len();
        let (first_child, tokens) = (blob.numbers(Section::FirstChild)?, blob.numbers(Section::NodeTokens)?);
        if first_child.len() != nodes + 1 || tokens.len() != nodes {
            let found = (first_child.len(), tokens.len());
            return Err(format!("trie: expected {} and {nodes} numbers, found {found:?}", nodes + 1));
        }
        if let Some((a, b)) = first_child.unordered(|a, b| a <= b) {
            return Err(format!("trie: expected children in ascending order, found {a} before {b}"));
        }
        if let Some(found) = first_child.not_below(nodes + 1) {
            return Err(format!("trie: expected children of at most {nodes}, found {found}"));
        }
        if let Some(found) = tokens.not_below(vocab.len() + 1) {
            return Err(format!("trie: expected tokens below {}, found {}", vocab.len(), found - 1));
        }
        Ok(Trie { blob, first_child, tokens })
    }

    /// Calls `found` with the bytes and the index of each piece that `text` begins with, of at most `longest` bytes.
    pub(super) fn prefixes(&self, text: &[u8], longest: usize, mut found: impl FnMut(usize, usize)) {
        let labels = self.blob.bytes(Section::Labels);
        let mut node = 0;
        for (at, byte) in text.iter().enumerate().take(longest) {
            let range = self.first_child.get(node).zip(self.first_child.get(node + 1));
            let Some((first, end)) = range else { return };
            let siblings = labels.get(first as usize..end as usize).unwrap_or_default();
            let Ok(child) = siblings.binary_search(byte) else { return };
            node = first as usize + child;
            if let Some(index) = self.tokens.get(node).and_then(|token| token.checked_sub(1)) {
                found(at + 1, index as usize);
            }
        }
    }
}

/// Writes the trie of `pieces`, which are sorted and differ, with their indices.
pub(super) fn write(pieces: &[(&[u8], usize)], out: &mut BlobWriter) {
    let (mut first_child, mut tokens, mut labels) = (Vec::new(), Vec::new(), vec![0]);
    // Each node's pieces, which share `depth` bytes.
    let mut level = vec![pieces];
    let mut next = 1;
    for depth in 0.. {
        let mut children = Vec::new();
        for pieces in level {
            let (own, longer) = match pieces {
                [(piece, index), longer @ ..] if piece.len() == depth => (*index as u32 + 1, longer),
                longer => (0, longer),
            };
            tokens.push(own);
            first_child.push(next);
            for pieces in longer.chunk_by(|(a, _), (b, _)| a[depth] == b[depth]) {
                labels.push(pieces[0].0[depth]);
                children.push(pieces);
                next += 1;
            }
        }
        if children.is_empty() {
            break;
        }
        level = children;
    }
    first_child.push(next);
    out.set_numbers(Section::FirstChild, first_child);
    out.set_numbers(Section::NodeTokens, tokens);
    out.set(Section::Labels, labels);
}
