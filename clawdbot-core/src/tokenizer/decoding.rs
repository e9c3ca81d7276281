//! Whether the text of a token depends on others: what a stream of tokens has to wait for.

use super::pipeline::{Decoder, DecoderStep as Step};

/// How a tokenizer's decoder can run on a stream so that the pieces add up to the text of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decoding {
    /// Tokens are bytes: only characters have to be put together.
    Bytes,
    /// A token's text depends on the tokens shortly before it. With `byte_fallback`, tokens `<0xNN>` are decoded as
    /// one run, which is valid UTF-8 or replaced as a whole.
    Window { byte_fallback: bool },
    /// A token's text may depend on later tokens: nothing is certain before the end.
    Whole,
}

impl Decoding {
    pub(super) fn of(decoder: Option<&Decoder>) -> Self {
        let Some(decoder) = decoder else { return Decoding::Window { byte_fallback: false } };
        let steps = decoder.steps();
        if matches!(steps, [Step::ByteLevel]) {
            return Decoding::Bytes;
        }
        let mut fused = false;
        for step in steps {
            let local = match step {
                Step::Fuse => {
                    fused = true;
                    true
                }
                Step::Replace { .. } | Step::ByteFallback | Step::Metaspace { .. } => !fused,
                Step::WordPiece { .. } => steps.len() == 1,
                // Stripping the end of each token is local; stripping the end of the text is not.
                Step::Strip { stop, .. } => fused && *stop == 0,
                Step::Bpe { .. } | Step::ByteLevel | Step::Ctc { .. } => false,
            };
            if !local {
                return Decoding::Whole;
            }
        }
        Decoding::Window { byte_fallback: steps.iter().any(|step| matches!(step, Step::ByteFallback)) }
    }
}
