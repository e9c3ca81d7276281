//! A tokenizer's tokens as a trie of bytes, for masks.

use std::sync::Arc;

use llguidance::earley::{BiasComputer, Parser, ParserRecognizer, SlicedBiasComputer};
use llguidance::toktrie::{SimpleVob, TokEnv, TokRxInfo, TokTrie, TokenizerEnv};

use super::guard::guarded;
use crate::error::{Error, ErrorKind, Result};
use crate::tokenizer::{TokenBytes, Tokenizer};

/// Longest token in the trie, in bytes. Longer ones (long runs of spaces) are never allowed; their parts are.
const MAX_TOKEN: usize = 512;
/// Longest token of white space between reasoning and a constrained text, in bytes.
const MAX_SPACE: usize = 16;
/// Most token ids: the trie numbers them in 24 bits, and its nodes in 22.
const MAX_TOKENS: usize = 1 << 20;
/// Most bytes of all tokens: what bounds the trie's nodes.
const MAX_BYTES: usize = 4_000_000;
/// Tokens that are allowed together inside of strings: a lexer state that allows all texts of a pattern allows its tokens
/// without looking at each.
const SLICES: [&str; 2] = [r#"[^"\\\x00-\x1F\x7F]{1,10}"#, r#"[^"\\\x00-\x1F\x7F]+"#];
/// Tries that the slices make next to the whole one: for each set with its subset, without, and the rest.
const TRIES: usize = 9;

/// The tokens of a tokenizer, for all constraints of its model: made once, shared.
pub struct Vocabulary {
    tokenizer: Tokenizer,
    env: TokEnv,
    computer: Arc<SlicedBiasComputer>,
    /// Where the first token of a text has other bytes.
    first: Option<Trie>,
    /// Special tokens that a grammar may ask for, with their texts.
    marks: Vec<(String, u32)>,
    /// Tokens of white space.
    spaces: Vec<u32>,
    bytes: u64,
}

impl std::fmt::Debug for Vocabulary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vocabulary").field("tokens", &self.len()).finish_non_exhaustive()
    }
}

/// A trie, as the parser's crate asks for it.
struct Trie(TokTrie);

impl TokenizerEnv for Trie {
    fn tok_trie(&self) -> &TokTrie {
        &self.0
    }

    fn tokenize_bytes(&self, text: &[u8]) -> Vec<u32> {
        self.0.greedy_tokenize(text)
    }

    fn tokenize_is_canonical(&self) -> bool {
        false
    }
}

impl BiasComputer for Trie {
    fn compute_bias(&self, recognizer: &mut ParserRecognizer<'_>, start: &[u8]) -> SimpleVob {
        let mut set = self.0.alloc_token_set();
        self.0.add_bias(recognizer, &mut set, start);
        set
    }

    fn trie(&self) -> &TokTrie {
        &self.0
    }
}

/// Computes nothing: what a parser is asked with so that it renews its fuel.
struct Nothing<'a>(&'a TokTrie);

impl BiasComputer for Nothing<'_> {
    fn compute_bias(&self, _: &mut ParserRecognizer<'_>, _: &[u8]) -> SimpleVob {
        SimpleVob::new()
    }

    fn trie(&self) -> &TokTrie {
        self.0
    }
}

impl Vocabulary {
    /// The tokens of `tokenizer`, below the number of token ids of its model. Takes about a second for each million
    /// bytes of tokens.
    ///
    /// # Errors
    /// `UnsupportedModel` if tokens have no text of their own, or are too many.
    pub fn new(tokenizer: &Tokenizer) -> Result<Self> {
        Self::with_marks(tokenizer, &[])
    }

    /// As [`Vocabulary::new`], with `marks`, special tokens that a grammar may ask for. No text has them.
    pub(crate) fn with_marks(tokenizer: &Tokenizer, marks: &[(String, u32)]) -> Result<Self> {
        let TokenBytes { mut inner, mut first } = tokenizer.token_bytes()?;
        for table in std::iter::once(&mut inner).chain(&mut first) {
            // Such a byte, which vocabularies of bytes have, would spell marks.
            for bytes in
                table.iter_mut().filter(|bytes| bytes.as_ref().is_some_and(|bytes| bytes.contains(&MARK)))
            {
                *bytes = None;
            }
            for (_, id) in marks {
                if let Some(bytes) = table.get_mut(*id as usize) {
                    *bytes = Some(mark_bytes(*id).to_vec());
                }
            }
        }
        let all: usize = inner.iter().flatten().map(Vec::len).sum();
        if inner.len() > MAX_TOKENS || all > MAX_BYTES {
            return Err(too_large(inner.len(), all));
        }
        let space = |bytes: &Vec<u8>| {
            (1..=MAX_SPACE).contains(&bytes.len()) && bytes.iter().all(|byte| b" \n\r\t".contains(byte))
        };
        let spaces = (0..).zip(&inner).filter(|(_, bytes)| bytes.as_ref().is_some_and(space));
        let spaces = spaces.map(|(id, _)| id).collect();
        let trie = guarded(|| trie(inner))?;
        let first = first.map(|first| guarded(|| trie_of_first(first))).transpose()?;
        let size = |trie: &TokTrie| {
            let nodes = trie.root().subtree_size() as u64 * 8;
            nodes.saturating_add(trie.vocab_size() as u64 * 12).saturating_add(all as u64)
        };
        let bytes = size(&trie).saturating_mul(TRIES as u64 + 1);
        let bytes = bytes.saturating_add(first.as_ref().map_or(0, |first| size(&first.0)));
        let env: TokEnv = Arc::new(Trie(trie));
        let slices = SLICES.map(str::to_owned);
        let computer = guarded(|| SlicedBiasComputer::new(&env, &slices))?
            .map_err(|error| Error::internal(format!("slices of the vocabulary: {error}")))?;
        let (tokenizer, marks) = (tokenizer.clone(), marks.to_vec());
        Ok(Vocabulary { tokenizer, env, computer: Arc::new(computer), first, marks, spaces, bytes })
    }

    /// Token ids are below this.
    pub fn len(&self) -> usize {
        self.trie().vocab_size()
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// About the most bytes of memory that it takes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The bytes that `token` adds to a text, as the first token of the text or as a later one; empty if it may not
    /// occur.
    pub fn token(&self, token: u32, first: bool) -> &[u8] {
        self.first.as_ref().filter(|_| first).map_or(self.trie(), |first| &first.0).token(token)
    }

    /// The longest token that `bytes` begin with, as the first of a text or as a later one, and its length.
    pub(super) fn longest(&self, bytes: &[u8], first: bool) -> Option<(u32, usize)> {
        if bytes.is_empty() {
            return None;
        }
        let trie = self.first.as_ref().filter(|_| first).map_or(self.trie(), |first| &first.0);
        Some(trie.prefix_token_id(bytes)).filter(|&(_, len)| len > 0)
    }

    /// Special tokens that a grammar may ask for, with their texts.
    pub(super) fn marks(&self) -> &[(String, u32)] {
        &self.marks
    }

    /// Tokens of white space alone, short ones.
    pub(super) fn spaces(&self) -> &[u32] {
        &self.spaces
    }

    /// The text of `token`, also of a special token.
    pub(crate) fn text_of(&self, token: u32) -> Vec<u8> {
        let special = || self.tokenizer.id_to_token(token).unwrap_or_default().into_bytes();
        match self.token(token, false) {
            [] => special(),
            [MARK, ..] => special(),
            bytes => bytes.to_vec(),
        }
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    pub(super) fn trie(&self) -> &TokTrie {
        self.env.tok_trie()
    }

    pub(super) fn env(&self) -> &TokEnv {
        &self.env
    }

    pub(super) fn slices(&self) -> &SlicedBiasComputer {
        &self.computer
    }

    /// What computes masks, for the first token of a text or for a later one.
    pub(super) fn computer(&self, first: bool) -> &dyn BiasComputer {
        match &self.first {
            Some(trie) if first => trie,
            _ => &*self.computer,
        }
    }

    /// Lets `parser` take as much work for its next step as a step may take.
    pub(super) fn refuel(&self, parser: &mut Parser) {
        // With a start that is not empty, no mask is kept.
        parser.compute_bias(&Nothing(self.trie()), b" ");
    }

    /// Whether the first token of a text has bytes of its own.
    pub(super) fn first_differs(&self) -> bool {
        self.first.is_some()
    }
}

/// The first byte of a mark: no text in UTF-8 has it.
const MARK: u8 = 0xfe;

/// What stands for the special token `id` in a grammar: bytes that no text has.
pub(super) fn mark_bytes(id: u32) -> [u8; 5] {
    let digit = |shift: u32| 0x80 | (id >> shift & 0x3f) as u8;
    [MARK, digit(18), digit(12), digit(6), digit(0)]
}

fn trie(tokens: Vec<Option<Vec<u8>>>) -> TokTrie {
    let words: Vec<Vec<u8>> =
        tokens.into_iter().map(|bytes| bytes.filter(|bytes| fits(bytes)).unwrap_or_default()).collect();
    // No token ends a text here: which tokens do is a request's choice.
    let info = TokRxInfo::new(u32::try_from(words.len()).unwrap_or(0), llguidance::toktrie::INVALID_TOKEN);
    TokTrie::from(&info, &words)
}

fn trie_of_first(tokens: Vec<Option<Vec<u8>>>) -> Trie {
    Trie(trie(tokens))
}

/// Tokens with the byte 0xff would be taken for special ones; no text has it.
fn fits(bytes: &[u8]) -> bool {
    bytes.len() <= MAX_TOKEN && !bytes.contains(&TokTrie::SPECIAL_TOKEN_MARKER)
}

fn too_large(tokens: usize, bytes: usize) -> Error {
    let message = format!(
        "constraints: expected at most {MAX_TOKENS} tokens of {MAX_BYTES} bytes in all, found {tokens} of {bytes}"
    );
    Error::new(ErrorKind::UnsupportedModel, message)
}
