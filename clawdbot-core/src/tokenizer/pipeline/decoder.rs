//! Decoders: tokens to text. They run during generation on whatever tokens a model samples, so they are implemented
//! here: none panics, and the growth of a text is bounded.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::steps::{AT_ONCE, Finder, Limits, kind, steps, text};
use super::work;
use crate::tokenizer::byte_tokens::{byte_token, push_token_bytes};

/// A text may become this many times as long as its tokens, in bytes,
const MAX_GROWTH: usize = 16;
/// plus this many bytes.
const MORE: usize = 1024;
/// Most characters to strip at an end.
pub(in crate::tokenizer) const MAX_STRIP: usize = 16;

/// Decoder steps in order.
#[derive(Debug, Default)]
pub(in crate::tokenizer) struct Decoder(Vec<Step>);

#[derive(Debug)]
pub(in crate::tokenizer) enum Step {
    Bpe { suffix: String },
    ByteLevel,
    WordPiece { prefix: String, cleanup: bool },
    Metaspace { replacement: char, prepended: bool },
    Ctc { pad: String, delimiter: String, cleanup: bool },
    Replace { what: Finder, content: String },
    Fuse,
    Strip { content: char, start: usize, stop: usize },
    ByteFallback,
}

impl Decoder {
    /// # Errors
    /// With what was expected and found.
    pub(in crate::tokenizer) fn parse(part: Value, limits: &mut Limits) -> Result<Option<Self>, String> {
        if part.is_null() {
            return Ok(None);
        }
        let parsed: Result<Vec<Step>, String> =
            steps(part, "decoders")?.into_iter().map(|step| parse(step, limits)).collect();
        parsed.map(|steps| Some(Decoder(steps))).map_err(|reason| format!("decoder: {reason}"))
    }

    pub(in crate::tokenizer) fn steps(&self) -> &[Step] {
        &self.0
    }

    /// The text of `tokens`.
    ///
    /// # Errors
    /// For a text that grows beyond the bounds, and a pattern that takes too long.
    pub(in crate::tokenizer) fn decode(&self, mut tokens: Vec<String>) -> tokenizers::Result<String> {
        let original: usize = tokens.iter().map(String::len).sum();
        let limit = original.saturating_mul(MAX_GROWTH).saturating_add(MORE);
        for step in &self.0 {
            work::check()?;
            tokens = step.decode(tokens, limit)?;
            within(tokens.iter().map(String::len).sum(), limit)?;
        }
        Ok(tokens.concat())
    }
}

fn within(len: usize, limit: usize) -> tokenizers::Result<()> {
    if len <= limit {
        return Ok(());
    }
    Err(work::fail(format!("expected at most {limit} bytes of decoded text, found {len}")))
}

fn parse(step: Map<String, Value>, limits: &mut Limits) -> Result<Step, String> {
    #[derive(Deserialize)]
    struct Bpe {
        suffix: String,
    }
    #[derive(Deserialize)]
    struct WordPiece {
        prefix: String,
        cleanup: bool,
    }
    #[derive(Deserialize)]
    struct Metaspace {
        replacement: char,
        add_prefix_space: Option<bool>,
        prepend_scheme: Option<Prepend>,
    }
    #[derive(Deserialize, PartialEq, Eq, Clone, Copy)]
    #[serde(rename_all = "snake_case")]
    enum Prepend {
        First,
        Never,
        Always,
    }
    #[derive(Deserialize)]
    struct Ctc {
        pad_token: String,
        word_delimiter_token: String,
        cleanup: bool,
    }
    #[derive(Deserialize)]
    struct Strip {
        content: char,
        start: usize,
        stop: usize,
    }
    fn read<T: serde::de::DeserializeOwned>(step: Map<String, Value>) -> Result<T, String> {
        let name = kind(&step).to_owned();
        serde_json::from_value(Value::Object(step)).map_err(|error| format!("{name}: {error}"))
    }
    // An empty text would match everywhere.
    let some = |text: String, what: &str| match text.is_empty() {
        true => Err(format!("{what}: expected at least one character")),
        false => Ok(text),
    };
    Ok(match kind(&step) {
        "BPEDecoder" => Step::Bpe { suffix: some(read::<Bpe>(step)?.suffix, "suffix")? },
        "ByteLevel" => Step::ByteLevel,
        "WordPiece" => {
            let WordPiece { prefix, cleanup } = read(step)?;
            Step::WordPiece { prefix, cleanup }
        }
        "Metaspace" => {
            let Metaspace { replacement, add_prefix_space, prepend_scheme } = read(step)?;
            let prepended = prepend_scheme.unwrap_or(Prepend::Always) != Prepend::Never;
            if prepend_scheme.is_some() && prepended && add_prefix_space == Some(false) {
                return Err("Metaspace: expected add_prefix_space to agree with prepend_scheme".to_owned());
            }
            Step::Metaspace { replacement, prepended: prepended && add_prefix_space != Some(false) }
        }
        "CTC" => {
            let Ctc { pad_token, word_delimiter_token, cleanup } = read(step)?;
            Step::Ctc {
                pad: some(pad_token, "pad_token")?,
                delimiter: some(word_delimiter_token, "word_delimiter_token")?,
                cleanup,
            }
        }
        "Replace" => {
            let content = text(&step, "content")?.to_owned();
            Step::Replace { what: Finder::of(&step, limits)?, content }
        }
        "Fuse" => Step::Fuse,
        "Strip" => {
            let Strip { content, start, stop } = read(step)?;
            if start.max(stop) > MAX_STRIP {
                return Err(format!(
                    "Strip: expected at most {MAX_STRIP} characters, found {}",
                    start.max(stop)
                ));
            }
            Step::Strip { content, start, stop }
        }
        "ByteFallback" => Step::ByteFallback,
        other => return Err(format!("expected a known type, found {other:.50?}")),
    })
}

impl Step {
    fn decode(&self, mut tokens: Vec<String>, limit: usize) -> tokenizers::Result<Vec<String>> {
        match self {
            Step::Bpe { suffix } => {
                let last = tokens.len().saturating_sub(1);
                each(&mut tokens, |at, token| {
                    *token = token.replace(suffix.as_str(), if at == last { "" } else { " " });
                    Ok(())
                })?;
            }
            Step::ByteLevel => {
                let mut bytes = Vec::new();
                each(&mut tokens, |_, token| {
                    push_token_bytes(&mut bytes, token);
                    Ok(())
                })?;
                tokens = vec![String::from_utf8_lossy(&bytes).into_owned()];
            }
            Step::WordPiece { prefix, cleanup } => {
                each(&mut tokens, |at, token| {
                    if at > 0 {
                        match token.strip_prefix(prefix.as_str()) {
                            Some(rest) => *token = rest.to_owned(),
                            None => token.insert(0, ' '),
                        }
                    }
                    if *cleanup {
                        *token = clean(token);
                    }
                    Ok(())
                })?;
            }
            Step::Metaspace { replacement, prepended } => {
                each(&mut tokens, |at, token| {
                    let space = if at == 0 && *prepended { "" } else { " " };
                    *token = token.replace(*replacement, space);
                    Ok(())
                })?;
            }
            Step::Ctc { pad, delimiter, cleanup } => {
                tokens.dedup();
                each(&mut tokens, |_, token| {
                    *token = token.replace(pad.as_str(), "");
                    if *cleanup {
                        *token = clean(token).replace(delimiter.as_str(), " ");
                    }
                    Ok(())
                })?;
                tokens.retain(|token| !token.is_empty());
            }
            Step::Replace { what, content } => {
                let mut total = 0_usize;
                each(&mut tokens, |_, token| {
                    total = total.saturating_add(what.replaced_len(token, content)?);
                    Ok(())
                })?;
                within(total, limit)?;
                each(&mut tokens, |_, token| {
                    let (mut replaced, mut before) = (String::new(), 0);
                    what.each(token, |start, end| {
                        replaced.push_str(&token[before..start]);
                        replaced.push_str(content);
                        before = end;
                    })?;
                    replaced.push_str(&token[before..]);
                    *token = replaced;
                    Ok(())
                })?;
            }
            Step::Fuse => tokens = vec![tokens.concat()],
            Step::Strip { content, start, stop } => {
                each(&mut tokens, |_, token| {
                    let mut rest = token.as_str();
                    for _ in 0..*start {
                        let Some(shorter) = rest.strip_prefix(*content) else { break };
                        rest = shorter;
                    }
                    for _ in 0..*stop {
                        let Some(shorter) = rest.strip_suffix(*content) else { break };
                        rest = shorter;
                    }
                    *token = rest.to_owned();
                    Ok(())
                })?;
            }
            Step::ByteFallback => tokens = byte_fallback(tokens),
        }
        Ok(tokens)
    }
}

/// Runs `work` on each token and its index, until it should stop.
fn each(
    tokens: &mut [String],
    mut work: impl FnMut(usize, &mut String) -> tokenizers::Result<()>,
) -> tokenizers::Result<()> {
    for (group, tokens) in tokens.chunks_mut(AT_ONCE).enumerate() {
        work::check()?;
        for (at, token) in tokens.iter_mut().enumerate() {
            work(group * AT_ONCE + at, token)?;
        }
    }
    Ok(())
}

/// Runs of byte tokens become the characters that they encode, or one U+FFFD each.
fn byte_fallback(tokens: Vec<String>) -> Vec<String> {
    let mut decoded = Vec::with_capacity(tokens.len());
    let mut bytes = Vec::new();
    let flush = |bytes: &mut Vec<u8>, decoded: &mut Vec<String>| {
        let count = bytes.len();
        match String::from_utf8(std::mem::take(bytes)) {
            Ok(text) if text.is_empty() => {}
            Ok(text) => decoded.push(text),
            Err(_) => decoded.extend(std::iter::repeat_n(char::REPLACEMENT_CHARACTER.to_string(), count)),
        }
    };
    for token in tokens {
        match byte_token(&token) {
            Some(byte) => bytes.push(byte),
            None => {
                flush(&mut bytes, &mut decoded);
                decoded.push(token);
            }
        }
    }
    flush(&mut bytes, &mut decoded);
    decoded
}

/// English punctuation, with and without the spaces that splitting put there.
const CLEAN: [(&str, &str); 11] = [
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" do not", " don't"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
];

fn clean(text: &str) -> String {
    CLEAN.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}
