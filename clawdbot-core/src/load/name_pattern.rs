//! Patterns for names of modules, in settings of adapters and quantized models. Most are names: those are compared, and
//! only the others are compiled, within limits.

use fancy_regex::{Regex, RegexBuilder};

use crate::error::{Error, Result};
use crate::weights::quoted;

/// Most characters of a pattern.
const MAX_LEN: usize = 1000;
/// Most patterns of a file that are more than names.
const MAX_REGEXES: usize = 256;
/// Bytes that a part of a compiled one takes at most.
const MAX_SIZE: usize = 128 << 10;

/// What of a name a pattern has to match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// From its start on, as far as it goes.
    Start,
    /// All of it, or what is after one of its dots.
    End,
}

/// What patterns of a file may still be compiled.
pub(crate) struct Limit(usize);

impl Default for Limit {
    fn default() -> Self {
        Limit(MAX_REGEXES)
    }
}

/// A pattern.
#[derive(Debug)]
pub(crate) enum NamePattern {
    /// Characters; `None` stands for any but a line feed, as a dot does.
    Name(Part, Vec<Option<char>>),
    Regex(Box<Regex>),
}

impl NamePattern {
    /// # Errors
    /// With what was expected.
    pub(crate) fn parse(pattern: &str, part: Part, limit: &mut Limit) -> std::result::Result<Self, String> {
        if pattern.len() > MAX_LEN {
            return Err(format!("patterns of at most {MAX_LEN} bytes"));
        }
        if let Some(name) = name(pattern) {
            return Ok(NamePattern::Name(part, name));
        }
        let left = limit.0.checked_sub(1);
        limit.0 = left.ok_or_else(|| format!("at most {MAX_REGEXES} patterns that are more than names"))?;
        let whole = match part {
            Part::Start => format!(r"\A(?:{pattern})"),
            Part::End => format!(r"\A(?:(?:.*\.)?(?:{pattern}))\z"),
        };
        let regex = RegexBuilder::new(&whole).delegate_size_limit(MAX_SIZE).build();
        regex.map(|regex| NamePattern::Regex(Box::new(regex))).map_err(|error| {
            format!(
                "names or regular expressions of at most {MAX_SIZE} bytes compiled ({pattern:.100?}: {error})"
            )
        })
    }

    /// # Errors
    /// `InvalidModel` for an expression that takes too long.
    pub(crate) fn matches(&self, module: &str) -> Result<bool> {
        let fits = |module: &str, name: &[Option<char>]| {
            let mut chars = module.chars();
            name.iter().all(|wanted| match (wanted, chars.next()) {
                (_, None) => false,
                (None, Some(c)) => c != '\n',
                (Some(wanted), Some(c)) => *wanted == c,
            })
        };
        match self {
            NamePattern::Name(Part::Start, name) => Ok(fits(module, name)),
            NamePattern::Name(Part::End, name) => {
                let length = module.chars().count();
                let Some(before) = length.checked_sub(name.len()) else { return Ok(false) };
                let at = module.char_indices().nth(before).map_or(module.len(), |(at, _)| at);
                let (front, end) = module.split_at(at);
                Ok((front.is_empty() || front.ends_with('.') && !front.contains('\n')) && fits(end, name))
            }
            NamePattern::Regex(regex) => regex.is_match(module).map_err(|error| {
                let (pattern, module) = (quoted(regex.as_str()), quoted(module));
                Error::invalid_model(format!("the pattern {pattern} on {module}: {error}"))
            }),
        }
    }
}

/// The characters of a pattern that stands for a name.
fn name(pattern: &str) -> Option<Vec<Option<char>>> {
    let mut chars = pattern.chars();
    let mut name = Vec::new();
    while let Some(c) = chars.next() {
        name.push(match c {
            '.' => None,
            '\\' if chars.next() == Some('.') => Some('.'),
            c if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') => Some(c),
            _ => return None,
        });
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, part: Part, module: &str) -> bool {
        NamePattern::parse(pattern, part, &mut Limit::default()).unwrap().matches(module).unwrap()
    }

    #[test]
    fn names_match_as_their_expressions_do() {
        let modules = ["", "a", "b.a", "ba", "a.b", "b.axb", "x.a.b", "a.b.c", "\u{e9}.a", "a\n.a", "a.\n"];
        for pattern in ["a", "a.b", r"a\.b", "b", "", "a.", ".", "a-b_c"] {
            for module in modules {
                for part in [Part::Start, Part::End] {
                    // In a group it is no name any more.
                    let expression = format!("(?:{pattern})");
                    assert!(name(pattern).is_some() && name(&expression).is_none());
                    let (found, expected) =
                        (matches(pattern, part, module), matches(&expression, part, module));
                    assert_eq!(found, expected, "{pattern} {part:?} {module:?}");
                }
            }
        }
        assert!(matches(r"layers\.\d+\.q", Part::End, "model.layers.12.q"));
        assert!(!matches(r"layers\.\d+", Part::Start, "model.layers.12.q"));
    }

    #[test]
    fn expressions_are_counted_and_bounded() {
        let mut limit = Limit::default();
        let mut parse = |pattern: &str| NamePattern::parse(pattern, Part::Start, &mut limit).map(|_| ());
        assert!(parse(r"\w{100}").unwrap_err().contains("compiled"));
        assert!(parse(&"a".repeat(1001)).unwrap_err().contains("1000 bytes"));
        assert!(parse("(").unwrap_err().contains("regular expressions"));
        (2..MAX_REGEXES).for_each(|_| parse("a+").unwrap());
        assert!(parse("a+").unwrap_err().contains("at most 256"));
        parse("layers.0").unwrap();
    }
}
