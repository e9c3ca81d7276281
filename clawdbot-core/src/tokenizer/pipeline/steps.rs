//! The steps of a part, and what they search for.

use std::fmt;

use serde_json::{Map, Value};

use super::oniguruma::{self, Pattern};

/// Most steps of a part.
const MAX_STEPS: usize = 100;
/// Deepest nesting of sequences.
const MAX_DEPTH: usize = 64;

/// Tokens processed between checks for cancellation.
pub(in crate::tokenizer) const AT_ONCE: usize = 4096;

/// Limits that the parts of a file share.
pub(in crate::tokenizer) struct Limits {
    pub(super) regexes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { regexes: oniguruma::MAX_COST }
    }
}

/// The steps of a part: itself, or those under `key` of a sequence and of nested sequences.
///
/// # Errors
/// With what was expected and found.
pub(super) fn steps(part: Value, key: &str) -> Result<Vec<Map<String, Value>>, String> {
    fn add(part: Value, key: &str, depth: usize, steps: &mut Vec<Map<String, Value>>) -> Result<(), String> {
        let Value::Object(mut step) = part else { return Err("expected an object or null".to_owned()) };
        match step.get(key) {
            // Without a type, a part with steps is a sequence.
            Some(Value::Array(_)) if matches!(step.get("type"), None | Some(Value::String(_))) => {
                if let Some(kind) = step.get("type").filter(|kind| *kind != "Sequence") {
                    return Err(format!("expected a sequence, as there are {key}, found {kind}"));
                }
                let Some(Value::Array(inner)) = step.remove(key) else { return Ok(()) };
                if depth == MAX_DEPTH {
                    return Err(format!("expected sequences at most {MAX_DEPTH} deep"));
                }
                inner.into_iter().try_for_each(|step| add(step, key, depth + 1, steps))
            }
            _ if steps.len() == MAX_STEPS => Err(format!("expected at most {MAX_STEPS} steps")),
            _ => {
                steps.push(step);
                Ok(())
            }
        }
    }
    let mut found = Vec::new();
    add(part, key, 0, &mut found)?;
    Ok(found)
}

/// The type of a step.
pub(super) fn kind(step: &Map<String, Value>) -> &str {
    step.get("type").and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn text<'a>(step: &'a Map<String, Value>, key: &str) -> Result<&'a str, String> {
    let found = step.get(key).and_then(Value::as_str);
    found.ok_or_else(|| format!("{}: expected the text {key:?}", kind(step)))
}

/// What a step searches for.
pub(in crate::tokenizer) enum Finder {
    Text(String),
    Regex(Pattern),
}

impl Finder {
    /// The value of `pattern`.
    pub(super) fn of(step: &Map<String, Value>, limits: &mut Limits) -> Result<Self, String> {
        let named = |reason: String| format!("{}: {reason}", kind(step));
        let pattern = step.get("pattern").and_then(Value::as_object).filter(|pattern| pattern.len() == 1);
        let entry = pattern.and_then(|pattern| pattern.iter().next());
        match entry.and_then(|(kind, pattern)| Some((kind.as_str(), pattern.as_str()?))) {
            Some(("String", "")) => Err(named("expected a pattern, found an empty string".to_owned())),
            Some(("String", text)) => Ok(Finder::Text(text.to_owned())),
            Some(("Regex", pattern)) => {
                Ok(Finder::Regex(oniguruma::compile(pattern, &mut limits.regexes).map_err(named)?))
            }
            _ => Err(named("expected a pattern: {\"String\": ...} or {\"Regex\": ...}".to_owned())),
        }
    }

    /// Calls `found` with the range of each match.
    pub(super) fn each(&self, text: &str, mut found: impl FnMut(usize, usize)) -> tokenizers::Result<()> {
        match self {
            Finder::Text(wanted) => {
                for (start, _) in text.match_indices(wanted.as_str()) {
                    found(start, start + wanted.len());
                }
            }
            Finder::Regex(pattern) => pattern.regex.each(text, found)?,
        }
        Ok(())
    }

    /// Whether it can match the empty string.
    pub(super) fn is_nullable(&self) -> bool {
        matches!(self, Finder::Regex(pattern) if pattern.nullable)
    }

    /// Whether all matches are white space.
    pub(super) fn only_white_space(&self) -> bool {
        match self {
            Finder::Text(wanted) => wanted.chars().all(char::is_whitespace),
            Finder::Regex(pattern) => pattern.regex.only(char::is_whitespace),
        }
    }

    /// Bytes of `text` after replacing all matches by `content`.
    pub(super) fn replaced_len(&self, text: &str, content: &str) -> tokenizers::Result<usize> {
        let (mut removed, mut count) = (0, 0_usize);
        self.each(text, |start, end| {
            removed += end - start;
            count += 1;
        })?;
        Ok((text.len() - removed).saturating_add(count.saturating_mul(content.len())))
    }
}

impl tokenizers::pattern::Pattern for &Finder {
    fn find_matches(&self, inside: &str) -> tokenizers::Result<Vec<((usize, usize), bool)>> {
        let mut parts = Vec::new();
        let mut before = 0;
        if inside.is_empty() {
            return Ok(vec![((0, 0), false)]);
        }
        self.each(inside, |start, end| {
            if before != start {
                parts.push(((before, start), false));
            }
            parts.push(((start, end), true));
            before = end;
        })?;
        if before != inside.len() {
            parts.push(((before, inside.len()), false));
        }
        Ok(parts)
    }
}

impl fmt::Debug for Finder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Finder").finish_non_exhaustive()
    }
}
