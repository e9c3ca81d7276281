//! `python/clawdbot/options.py`: options as typed dicts; and the lists of options in Python's docstrings.

use clawdbot_core::{OptionSpec, OptionType};

use crate::words::{group, item, python, wrapped};

const HEAD: &str = r#""""Options as typed dicts: what the keyword arguments of the calls that take options may be.

Generated from the table of options in clawdbot-core by `cargo xtask generate`; do not edit. An option that is absent or
None keeps its default. Names, ranges and messages are the core's.
"""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TypedDict

if TYPE_CHECKING:
    import numpy as np
"#;

/// A typed dict.
struct Dict {
    name: &'static str,
    base: &'static str,
    /// Of this struct of the core.
    options: &'static str,
    /// Instead of the struct's documentation.
    doc: Option<&'static str>,
}

const DICTS: &[Dict] = &[
    Dict { name: "GenerateOptions", base: "TypedDict", options: "GenerateOptions", doc: None },
    Dict { name: "EmbedOptions", base: "TypedDict", options: "EmbedOptions", doc: None },
    Dict { name: "RerankOptions", base: "TypedDict", options: "RerankOptions", doc: None },
    Dict { name: "ModelOptions", base: "TypedDict", options: "ModelOptions", doc: None },
    Dict { name: "PackOptions", base: "TypedDict", options: "PackOptions", doc: None },
    Dict { name: "EvaluateOptions", base: "TypedDict", options: "EvaluateOptions", doc: None },
    Dict {
        name: "LoadOptions",
        base: "ModelOptions",
        options: "RuntimeOptions",
        doc: Some("How to load a model on a runtime of its own."),
    },
];

/// The longest line of text in a file of Python, without its indent.
const WIDTH: usize = 112;

/// What no table has: a function.
const PROCESSOR: &str =
    "logits_processor: \"Callable[[list[int], list[int], np.ndarray], np.ndarray | None] | None\"";
const PROCESSOR_DOC: &str = "A function that may change the logits of each token before it is sampled: it gets the token ids of the \
    prompt and of the output, and the logits as an array of float32, and changes them in place or returns others. Slow: it is \
    called for each token, and other requests of the model wait for it. It must depend on its arguments alone. Default: none.";

/// The text of `options.py`.
pub(crate) fn typed_dicts() -> Result<String, String> {
    let mut text = HEAD.to_owned();
    for dict in DICTS {
        let group = group(dict.options)?;
        let doc = dict.doc.map_or_else(|| group.documentation(), str::to_owned);
        text += &format!("\n\nclass {}({}, total=False):\n{}\n", dict.name, dict.base, docstring(&doc));
        for option in group.options {
            let name = option.name;
            text +=
                &format!("    {name}: {} | None\n{}", annotation(option.values), docstring(&python(option)));
        }
        if dict.name == "GenerateOptions" {
            text += &format!("    {PROCESSOR}\n{}", docstring(PROCESSOR_DOC));
        }
    }
    Ok(text)
}

fn docstring(text: &str) -> String {
    let lines = wrapped(&format!("\"\"\"{text}\"\"\""), WIDTH);
    lines.iter().map(|line| format!("    {line}\n")).collect()
}

/// The type of a value. A text alone is a list of one.
fn annotation(values: OptionType) -> String {
    match values {
        OptionType::Bool => "bool".to_owned(),
        OptionType::Whole { .. } | OptionType::Bytes | OptionType::TokenId => "int".to_owned(),
        OptionType::Number(_) => "float".to_owned(),
        OptionType::Name | OptionType::Text => "str".to_owned(),
        OptionType::JsonSchema => "Mapping[str, object] | bool | str".to_owned(),
        OptionType::Path => "str | os.PathLike[str]".to_owned(),
        OptionType::Choice(names) => format!("Literal[\"{}\"]", names.join("\", \"")),
        OptionType::SwitchOrDir => "bool | str | os.PathLike[str]".to_owned(),
        OptionType::List { of: OptionType::Text, .. } => "str | Collection[str]".to_owned(),
        // The order counts.
        OptionType::List { of: OptionType::Path, .. } => "Sequence[str | os.PathLike[str]]".to_owned(),
        OptionType::List { of: OptionType::List { of, .. }, .. } => {
            format!("Collection[Sequence[{}]]", annotation(**of))
        }
        OptionType::List { of, .. } => format!("Collection[{}]", annotation(*of)),
        OptionType::TokenMap(_) => "Mapping[int, float] | Mapping[str, float]".to_owned(),
    }
}

/// What the first line of a list of options in a docstring says, and which options follow.
const LISTS: &[(&str, &[&str])] = &[
    ("Options (`GenerateOptions`):", &["GenerateOptions"]),
    ("Options (`LoadOptions`):", &["ModelOptions", "RuntimeOptions"]),
    ("Options (`ModelOptions`):", &["ModelOptions"]),
    ("Options (`PackOptions`):", &["PackOptions"]),
    ("Options (`EvaluateOptions`):", &["EvaluateOptions"]),
    ("Options (`EmbedOptions`):", &["EmbedOptions"]),
    ("Options (`RerankOptions`):", &["RerankOptions"]),
    ("Options of a runtime:", &["RuntimeOptions"]),
];

/// The text of a file with docstrings (of Python, or of Rust for Python), with all lists of options as the table has them. A
/// list ends with the paragraph.
///
/// # Errors
/// A message for a group that does not exist, and for text without a list.
pub(crate) fn with_lists(text: &str) -> Result<String, String> {
    let mut lines = text.lines().peekable();
    let mut written = String::new();
    let mut lists = 0;
    while let Some(line) = lines.next() {
        written += line;
        written.push('\n');
        let (prefix, content) = split(line);
        let Some((_, groups)) = LISTS.iter().find(|(first, _)| *first == content) else { continue };
        lists += 1;
        let mut options: Vec<&OptionSpec> = Vec::new();
        for name in *groups {
            options.extend(group(name)?.options);
        }
        for option in options {
            for line in item(&format!("{}: {}", option.name, python(option)), WIDTH) {
                written += &format!("{prefix}{line}\n");
            }
        }
        while lines.next_if(|line| is_of_list(line, prefix)).is_some() {}
    }
    match lists {
        0 => Err("expected a list of options, found none".to_owned()),
        _ => Ok(written),
    }
}

/// What stands before the text of a docstring's line, and the text.
fn split(line: &str) -> (&str, &str) {
    let content = line.trim_start();
    let content = content.strip_prefix("/// ").unwrap_or(content);
    (&line[..line.len() - content.len()], content)
}

fn is_of_list(line: &str, prefix: &str) -> bool {
    line.strip_prefix(prefix).is_some_and(|content| content.starts_with("- ") || content.starts_with("  "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_replaced() {
        for (prefix, end) in
            [("    /// ", "    ///\n    #[x]\n"), ("        ", "        \"\"\"\n    def x():\n")]
        {
            let text = |list: &str| format!("{prefix}Does.\n{prefix}Options (`PackOptions`):\n{list}{end}");
            let old = format!("{prefix}- old: an option\n{prefix}  of two lines\n");
            let new = with_lists(&text(&old)).unwrap();
            assert!(!new.contains("old") && new.ends_with(end), "{new}");
            assert!(new.contains(&format!("\n{prefix}- overwrite: Replace")), "{new}");
            assert_eq!(with_lists(&new).unwrap(), new);
            assert_eq!(with_lists(&text("")).unwrap(), new);
        }
        assert!(with_lists("Options: none\n").is_err());
    }
}
