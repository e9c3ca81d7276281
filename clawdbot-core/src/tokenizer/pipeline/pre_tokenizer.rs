//! Pre-tokenizers: how a text is split into words.

use serde_json::{Map, Value};
use tokenizers::tokenizer::SplitDelimiterBehavior;
use tokenizers::{PreTokenizedString, PreTokenizer, PreTokenizerWrapper};

use super::steps::{Finder, Limits, kind, steps};
use super::{oniguruma, work};
use crate::tokenizer::gguf::GPT2;

/// Most steps of kinds that make text longer.
const MAX_LONGER: usize = 3;

/// Pre-tokenizer steps in order.
#[derive(Debug)]
pub(in crate::tokenizer) struct PreTokenizers(Vec<Step>);

#[derive(Debug)]
enum Step {
    Split {
        at: Finder,
        behavior: SplitDelimiterBehavior,
        invert: bool,
    },
    /// ByteLevel's own split into words, as in GPT-2.
    Words {
        at: Finder,
        add_prefix_space: bool,
    },
    Other(PreTokenizerWrapper),
}

impl PreTokenizers {
    /// # Errors
    /// With what was expected and found.
    pub(in crate::tokenizer) fn parse(part: Value, limits: &mut Limits) -> Result<Option<Self>, String> {
        if part.is_null() {
            return Ok(None);
        }
        let parsed: Result<Vec<Vec<Step>>, String> =
            steps(part, "pretokenizers")?.into_iter().map(|step| parse(step, limits)).collect();
        let steps = parsed.map_err(|reason| format!("pre_tokenizer: {reason}"))?;
        let steps: Vec<Step> = steps.into_iter().flatten().collect();
        let longer = |step: &&Step| {
            matches!(step, Step::Other(PreTokenizerWrapper::ByteLevel(_) | PreTokenizerWrapper::Metaspace(_)))
        };
        match steps.iter().filter(longer).count() {
            ..=MAX_LONGER => Ok(Some(PreTokenizers(steps))),
            found => Err(format!(
                "pre_tokenizer: expected at most {MAX_LONGER} of ByteLevel or Metaspace, found {found}"
            )),
        }
    }

    /// Whether words are split at white space first, and all are kept.
    pub(in crate::tokenizer) fn split_words(&self) -> bool {
        let white_space = |step: &Step| {
            matches!(
                step,
                Step::Other(
                    PreTokenizerWrapper::BertPreTokenizer(_)
                        | PreTokenizerWrapper::Whitespace(_)
                        | PreTokenizerWrapper::WhitespaceSplit(_)
                )
            )
        };
        self.0
            .split_first()
            .is_some_and(|(first, rest)| white_space(first) && rest.iter().all(Step::keeps_text))
    }

    /// Whether every character of a text is in one of the words.
    pub(in crate::tokenizer) fn keep_text(&self) -> bool {
        self.0.iter().all(Step::keeps_text)
    }

    /// Whether the last step makes words byte-level.
    pub(in crate::tokenizer) fn end_byte_level(&self) -> bool {
        matches!(self.0.last(), Some(Step::Other(PreTokenizerWrapper::ByteLevel(_))))
    }

    /// Whether no step changes a character.
    pub(in crate::tokenizer) fn only_split(&self) -> bool {
        self.0.iter().all(|step| match step {
            Step::Split { .. } => true,
            Step::Words { add_prefix_space, .. } => !add_prefix_space,
            Step::Other(step) => {
                !matches!(step, PreTokenizerWrapper::ByteLevel(_) | PreTokenizerWrapper::Metaspace(_))
            }
        })
    }
}

/// The steps that `step` stands for.
fn parse(step: Map<String, Value>, limits: &mut Limits) -> Result<Vec<Step>, String> {
    if kind(&step) == "Split" {
        let behavior = step.get("behavior").cloned().unwrap_or_default();
        let behavior =
            serde_json::from_value(behavior).map_err(|error| format!("Split: behavior: {error}"))?;
        let invert = step.get("invert").and_then(Value::as_bool);
        let invert = invert.ok_or("Split: expected invert: true or false")?;
        return Ok(vec![Step::Split { at: Finder::of(&step, limits)?, behavior, invert }]);
    }
    let name = kind(&step).to_owned();
    let step = serde_json::from_value(Value::Object(step)).map_err(|error| format!("{name}: {error}"))?;
    match step {
        PreTokenizerWrapper::FixedLength(step) if step.length == 0 => {
            Err("FixedLength: expected a length above 0".to_owned())
        }
        // Steps without a type were not read above.
        PreTokenizerWrapper::Split(_) | PreTokenizerWrapper::Sequence(_) => {
            Err("expected a type for each step".to_owned())
        }
        PreTokenizerWrapper::ByteLevel(step) if step.use_regex => {
            let at = Finder::Regex(oniguruma::compile(GPT2, &mut limits.regexes)?);
            let words = Step::Words { at, add_prefix_space: step.add_prefix_space };
            let bytes = step.add_prefix_space(false).use_regex(false);
            Ok(vec![words, Step::Other(bytes.into())])
        }
        step => Ok(vec![Step::Other(step)]),
    }
}

impl Step {
    fn keeps_text(&self) -> bool {
        match self {
            Step::Split { behavior, .. } => *behavior != SplitDelimiterBehavior::Removed,
            Step::Words { .. } => true,
            Step::Other(PreTokenizerWrapper::Punctuation(step)) => {
                step.behavior != SplitDelimiterBehavior::Removed
            }
            Step::Other(step) => matches!(
                step,
                PreTokenizerWrapper::ByteLevel(_)
                    | PreTokenizerWrapper::Metaspace(_)
                    | PreTokenizerWrapper::Digits(_)
                    | PreTokenizerWrapper::FixedLength(_)
            ),
        }
    }
}

impl PreTokenizer for PreTokenizers {
    fn pre_tokenize(&self, text: &mut PreTokenizedString) -> tokenizers::Result<()> {
        self.0.iter().try_for_each(|step| {
            work::check()?;
            match step {
                Step::Split { at, behavior, invert: false } => {
                    text.split(|_, part| part.split(at, *behavior))
                }
                Step::Split { at, behavior, invert: true } => {
                    text.split(|_, part| part.split(tokenizers::pattern::Invert(at), *behavior))
                }
                Step::Words { at, add_prefix_space } => text.split(|_, mut part| {
                    if *add_prefix_space && !part.get().starts_with(' ') {
                        part.prepend(" ");
                    }
                    part.split(at, SplitDelimiterBehavior::Isolated)
                }),
                Step::Other(step) => step.pre_tokenize(text),
            }
        })
    }
}
