//! The bytes of tables, and the arrays in them.
//!
//! ```text
//! magic       16 bytes
//! version     u32       tables of other versions are not used
//! (unused)    u32       0
//! json        u64       bytes of the tokenizer.json that the tables were made of
//! seed        u64       of both hash tables
//! lengths     u64 each  bytes of the sections, in the order of `Section`
//! sections              each padded with zeros to a multiple of 8 bytes
//! ```
//! All numbers are little-endian.

use std::ops::Range;
use std::sync::Arc;

/// At the start of all tables.
const MAGIC: [u8; 16] = *b"clawdbot-tables\0";
/// Version of the layout, of the hash functions, and of what the sections hold.
pub(in crate::tokenizer) const VERSION: u32 = 1;
/// Bytes before the lengths of the sections.
const FIXED: usize = 40;
/// Sections begin at multiples of this.
const ALIGNMENT: usize = 8;
/// Bytes of magic, version, lengths.
const HEADER: usize = FIXED + 8 * Section::COUNT;

/// The parts of tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    /// `tokenizer.json` without vocabulary and merges.
    Rest,
    /// The texts of all tokens, one after another, in UTF-8.
    Texts,
    /// u32 `[tokens]`: where each text ends. Tokens are in the order of their ids.
    Ends,
    /// u32 `[tokens]`: ids. Empty if they are 0, 1, 2, ...
    Ids,
    /// u32 `[slots]`: hash table from texts to tokens.
    TokenSlots,
    /// u32 `[merges, 3]`, by rank: left token, right token, merged token (BPE).
    Merges,
    /// u32 `[slots]`: hash table from pairs of tokens to merges.
    MergeSlots,
    /// f64 `[tokens]`: scores (Unigram).
    Scores,
    /// u32 `[nodes + 1]`: the first child of each node of the trie of pieces; children lie next to each other (Unigram).
    FirstChild,
    /// u32 `[nodes]`: 1 + the token that ends at the node, or 0.
    NodeTokens,
    /// u8 `[nodes]`: the byte that leads to the node; ascending among siblings.
    Labels,
}

impl Section {
    pub(super) const COUNT: usize = Section::Labels as usize + 1;
    /// In the order in which they lie.
    pub(super) const ALL: [Section; Section::COUNT] = [
        Section::Rest,
        Section::Texts,
        Section::Ends,
        Section::Ids,
        Section::TokenSlots,
        Section::Merges,
        Section::MergeSlots,
        Section::Scores,
        Section::FirstChild,
        Section::NodeTokens,
        Section::Labels,
    ];
}

/// The version of tables that begin with `bytes`; `None` if they are no tables.
pub(in crate::tokenizer) fn version(bytes: &[u8]) -> Option<u32> {
    let rest = bytes.strip_prefix(&MAGIC)?;
    rest.first_chunk::<4>().map(|version| u32::from_le_bytes(*version))
}

/// Tables whose sections lie within their bytes.
#[derive(Debug, Clone)]
pub(in crate::tokenizer) struct Blob {
    bytes: Arc<Vec<u8>>,
    sections: [Range<usize>; Section::COUNT],
    pub(in crate::tokenizer) json_bytes: u64,
    pub(super) seed: u64,
}

impl Blob {
    /// # Errors
    /// With what was expected and found.
    pub(in crate::tokenizer) fn open(bytes: Vec<u8>) -> Result<Self, String> {
        match version(&bytes) {
            Some(VERSION) => {}
            Some(found) => return Err(format!("expected version {VERSION}, found version {found}")),
            None => {
                let found = bytes.get(..MAGIC.len()).unwrap_or(&bytes).escape_ascii();
                return Err(format!("expected \"{}\" at the start, found \"{found}\"", MAGIC.escape_ascii()));
            }
        }
        let header = *bytes
            .first_chunk::<HEADER>()
            .ok_or_else(|| format!("expected a header of {HEADER} bytes, found {}", bytes.len()))?;
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| header[at + i]));
        let mut sections = [const { 0..0 }; Section::COUNT];
        let mut at = HEADER;
        for section in Section::ALL {
            let found = number(FIXED + 8 * section as usize);
            let most = bytes.len().saturating_sub(at);
            let len = usize::try_from(found).ok().filter(|&len| len <= most);
            let len =
                len.ok_or_else(|| format!("{section:?}: expected at most {most} bytes, found {found}"))?;
            sections[section as usize] = at..at + len;
            at = (at + len).next_multiple_of(ALIGNMENT);
        }
        if at != bytes.len() {
            return Err(format!("expected {at} bytes, found {}", bytes.len()));
        }
        let (json_bytes, seed) = (number(24), number(32));
        Ok(Blob { bytes: Arc::new(bytes), sections, json_bytes, seed })
    }

    /// All bytes.
    pub(in crate::tokenizer) fn into_bytes(self) -> Vec<u8> {
        Arc::unwrap_or_clone(self.bytes)
    }

    /// `tokenizer.json` without vocabulary and merges.
    pub(in crate::tokenizer) fn rest(&self) -> &[u8] {
        self.bytes(Section::Rest)
    }

    pub(super) fn bytes(&self, section: Section) -> &[u8] {
        // Checked when it was opened.
        self.bytes.get(self.sections[section as usize].clone()).unwrap_or_default()
    }

    /// The numbers in `section`.
    ///
    /// # Errors
    /// If its length is no multiple of theirs.
    pub(super) fn numbers(&self, section: Section) -> Result<Numbers, String> {
        match self.bytes(section).as_chunks::<4>() {
            (_, []) => {
                Ok(Numbers { bytes: self.bytes.clone(), range: self.sections[section as usize].clone() })
            }
            _ => {
                Err(format!("{section:?}: expected whole numbers, found {} bytes", self.bytes(section).len()))
            }
        }
    }
}

/// Numbers that lie in tables.
#[derive(Debug, Clone)]
pub(super) struct Numbers {
    bytes: Arc<Vec<u8>>,
    range: Range<usize>,
}

impl Numbers {
    pub(super) fn len(&self) -> usize {
        self.range.len() / 4
    }

    #[inline]
    pub(super) fn get(&self, at: usize) -> Option<u32> {
        self.all().get(at).map(|&bytes| u32::from_le_bytes(bytes))
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = u32> + ExactSizeIterator {
        self.all().iter().map(|&bytes| u32::from_le_bytes(bytes))
    }

    /// As they are written.
    #[inline]
    pub(super) fn all(&self) -> &[[u8; 4]] {
        self.bytes.get(self.range.clone()).unwrap_or_default().as_chunks().0
    }

    /// The first two neighbours that are not `in_order`.
    pub(super) fn unordered(&self, in_order: impl Fn(u32, u32) -> bool) -> Option<(u32, u32)> {
        self.all().windows(2).filter_map(|pair| pair.first_chunk::<2>()).find_map(|pair| {
            let [a, b] = pair.map(u32::from_le_bytes);
            (!in_order(a, b)).then_some((a, b))
        })
    }

    /// The first number that is not below `limit`.
    pub(super) fn not_below(&self, limit: usize) -> Option<u32> {
        let limit = u32::try_from(limit).ok()?;
        // A count is found without a branch for each number.
        let count = self.iter().map(|number| u32::from(number >= limit)).fold(0_u32, u32::wrapping_add);
        if count == 0 { None } else { self.iter().find(|&number| number >= limit) }
    }
}

/// Tables that are being written.
pub(super) struct BlobWriter {
    sections: [Vec<u8>; Section::COUNT],
}

impl BlobWriter {
    pub(super) fn new() -> Self {
        BlobWriter { sections: [const { Vec::new() }; Section::COUNT] }
    }

    pub(super) fn set(&mut self, section: Section, bytes: Vec<u8>) {
        self.sections[section as usize] = bytes;
    }

    pub(super) fn set_numbers(&mut self, section: Section, numbers: impl IntoIterator<Item = u32>) {
        self.set(section, numbers.into_iter().flat_map(u32::to_le_bytes).collect());
    }

    /// Their bytes.
    pub(super) fn finish(self, json_bytes: u64, seed: u64) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(VERSION.to_le_bytes());
        out.extend(0_u32.to_le_bytes());
        out.extend(json_bytes.to_le_bytes());
        out.extend(seed.to_le_bytes());
        out.extend(self.sections.iter().flat_map(|section| (section.len() as u64).to_le_bytes()));
        for section in self.sections {
            out.extend(section);
            out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
        }
        out
    }
}
