//! Normalizers: changes to a text before it is split.

use serde_json::{Map, Value};
use tokenizers::{NormalizedString, Normalizer, NormalizerWrapper};

use super::steps::{Finder, Limits, kind, steps, text};
use super::{charsmap, work};

/// A text may become this many times as long, in bytes, after any step; compatibility characters and byte-level
/// alphabets together need 26.
const MAX_GROWTH: usize = 32;
/// A step is not started if it could make a text longer than this many times,
const MAX_STEP: usize = 512;
/// plus this many bytes, for prefixes of short texts.
const MORE: usize = 64;

/// Normalizer steps in order.
#[derive(Debug)]
pub(in crate::tokenizer) struct Normalizers(Vec<Step>);

#[derive(Debug)]
enum Step {
    Replace { what: Finder, content: String },
    Other { step: Box<NormalizerWrapper>, kind: &'static Kind },
}

/// Which words between white space are certain to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tokenizer) enum Words {
    /// Words with an ASCII letter or digit.
    WithOne,
    /// Words of ASCII letters and digits only.
    OfThem,
}

/// How a kind of step changes the length of a text, in bytes.
#[derive(Debug)]
struct Kind {
    name: &'static str,
    /// Most times that the output is longer: characters decomposed into several, longer lower-case letters, spaces
    /// around Chinese characters.
    longer: usize,
    /// Most times that the input is longer: composed characters, plain letters for mathematical ones. `None`: any.
    shorter: Option<usize>,
}

const KINDS: [Kind; 13] = {
    const fn kind(name: &'static str, longer: usize, shorter: Option<usize>) -> Kind {
        Kind { name, longer, shorter }
    }
    [
        kind("BertNormalizer", 4, None),
        kind("Bert", 4, None),
        kind("Strip", 1, None),
        kind("StripAccents", 1, None),
        kind("NFC", 3, Some(4)),
        kind("NFD", 4, Some(4)),
        kind("NFKC", 12, Some(4)),
        kind("NFKD", 12, Some(4)),
        kind("Lowercase", 2, Some(3)),
        kind("Nmt", 1, None),
        kind("Prepend", 1, Some(1)),
        kind("ByteLevel", 2, Some(1)),
        kind("Precompiled", charsmap::MAX_REPLACEMENT, None),
    ]
};

impl Normalizers {
    /// # Errors
    /// With what was expected and found.
    pub(in crate::tokenizer) fn parse(part: Value, limits: &mut Limits) -> Result<Option<Self>, String> {
        if part.is_null() {
            return Ok(None);
        }
        // An empty prefix changes nothing, but the tokenizers crate loses track of the first character.
        let nothing = |step: &Map<String, Value>| {
            kind(step) == "Prepend" && step.get("prepend").and_then(Value::as_str) == Some("")
        };
        let steps = steps(part, "normalizers")?.into_iter().filter(|step| !nothing(step));
        let parsed: Result<Vec<Step>, String> = steps.map(|step| parse(step, limits)).collect();
        let parsed = parsed.map_err(|reason| format!("normalizer: {reason}"))?;
        Ok(Some(Normalizers(parsed)))
    }

    /// Most times that a text is longer than its normalized form, in bytes. `None`: any.
    pub(in crate::tokenizer) fn most_removed(&self) -> Option<usize> {
        self.0.iter().try_fold(1_usize, |product, step| {
            let factor = match step {
                Step::Replace { what: Finder::Text(what), content } if !content.is_empty() => {
                    what.len().div_ceil(content.len())
                }
                Step::Replace { .. } => return None,
                Step::Other { kind, .. } => kind.shorter?,
            };
            product.checked_mul(factor)
        })
    }

    /// Which words stay in a text, with white space between them. `None`: perhaps none.
    pub(in crate::tokenizer) fn kept_words(&self) -> Option<Words> {
        self.0.iter().try_fold(Words::WithOne, |kept, step| match step {
            Step::Replace { what, content } => {
                let white_space = !content.is_empty() && content.chars().all(char::is_whitespace);
                (white_space && what.only_white_space()).then_some(kept)
            }
            Step::Other { step, kind } => match &**step {
                NormalizerWrapper::Precompiled(rules) => {
                    charsmap::keeps_words(rules).then_some(Words::OfThem)
                }
                _ => (!matches!(kind.name, "Prepend" | "ByteLevel")).then_some(kept),
            },
        })
    }

    /// Whether the last step makes a text byte-level.
    pub(in crate::tokenizer) fn ends_byte_level(&self) -> bool {
        matches!(self.0.last(), Some(Step::Other { kind, .. }) if kind.name == "ByteLevel")
    }
}

fn parse(step: Map<String, Value>, limits: &mut Limits) -> Result<Step, String> {
    let kind = kind(&step).to_owned();
    if kind == "Replace" {
        let what = Finder::of(&step, limits)?;
        // The tokenizers crate cannot align empty matches with the text.
        if what.is_nullable() {
            return Err("Replace: expected a pattern that does not match the empty text".to_owned());
        }
        return Ok(Step::Replace { what, content: text(&step, "content")?.to_owned() });
    }
    if kind == "Prepend" && text(&step, "prepend")?.len() > MORE {
        return Err(format!("Prepend: expected at most {MORE} bytes"));
    }
    let Some(known) = KINDS.iter().find(|known| known.name == kind) else {
        return Err(format!("expected a known type, found {kind:.50?}"));
    };
    let step = match known.name {
        "Precompiled" => NormalizerWrapper::Precompiled(charsmap::read(text(&step, charsmap::KEY)?)?),
        _ => serde_json::from_value(Value::Object(step)).map_err(|error| format!("{kind}: {error}"))?,
    };
    Ok(Step::Other { step: Box::new(step), kind: known })
}

impl Step {
    fn run(&self, text: &mut NormalizedString) -> tokenizers::Result<()> {
        work::check()?;
        let original = text.get_original().len();
        let limit = original.saturating_mul(MAX_GROWTH).saturating_add(MORE);
        let too_long = |len: usize| {
            work::fail(format!("the normalizer makes a text of {original} bytes too large: {len} bytes long"))
        };
        match self {
            Step::Replace { what, content } => {
                let len = what.replaced_len(text.get(), content)?;
                if len > limit {
                    return Err(too_long(len));
                }
                text.replace(what, content)?;
            }
            Step::Other { step, kind } => {
                let most = text.get().len().saturating_mul(kind.longer);
                if most > original.saturating_mul(MAX_STEP).saturating_add(MORE * MAX_STEP) {
                    return Err(too_long(most));
                }
                step.normalize(text)?;
            }
        }
        if text.get().len() > limit { Err(too_long(text.get().len())) } else { Ok(()) }
    }
}

impl Normalizer for Normalizers {
    fn normalize(&self, text: &mut NormalizedString) -> tokenizers::Result<()> {
        let done = self.0.iter().try_for_each(|step| step.run(text));
        if done.is_err() {
            // The error is reported elsewhere: skip the remaining steps.
            text.clear();
        }
        done
    }
}
