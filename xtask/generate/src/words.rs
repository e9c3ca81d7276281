//! Options in words: lines of text, and what languages write differently.

use clawdbot_core::{NumberRange, OPTIONS, OptionGroup, OptionSpec, OptionType};

/// The options of the struct `name`.
///
/// # Errors
/// A message if there is none of that name.
pub(crate) fn group(name: &str) -> Result<&'static OptionGroup, String> {
    OPTIONS
        .iter()
        .find(|group| group.name == name)
        .ok_or_else(|| format!("{name}: expected the name of a struct of options"))
}

/// Text in lines of at most `width` characters.
pub(crate) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// An item of a list: what goes into its first line, and with an indent into those after it.
pub(crate) fn item(text: &str, width: usize) -> Vec<String> {
    let lines = wrapped(text, width - 2).into_iter().enumerate();
    lines.map(|(i, line)| format!("{}{line}", if i == 0 { "- " } else { "  " })).collect()
}

/// Whether the type alone does not say which values are taken.
pub(crate) fn has_range(option: &OptionSpec) -> bool {
    match option.values {
        OptionType::Whole { least, most } => least > 0 || most < u32::MAX.into(),
        OptionType::Number(range) => range != NumberRange::Finite,
        OptionType::Bytes => true,
        _ => false,
    }
}

/// What the option does, and its default, as Python says it.
pub(crate) fn python(option: &OptionSpec) -> String {
    let range = match has_range(option) {
        true => format!(" Value: {}.", option.values.expected()),
        false => String::new(),
    };
    let text = format!("{}{range} Default: {}.", option.documentation(), option.default);
    let words = text.split_inclusive(|c: char| !c.is_alphanumeric());
    words
        .map(|word| match word.trim_end_matches(|c: char| !c.is_alphanumeric()) {
            "true" => word.replace("true", "True"),
            "false" => word.replace("false", "False"),
            _ => word.to_owned(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_a_width() {
        assert_eq!(wrapped("a bb ccc dddd", 4), ["a bb", "ccc", "dddd"]);
        assert_eq!(item("a bb ccc", 6), ["- a bb", "  ccc"]);
        assert_eq!(wrapped("", 4), Vec::<String>::new());
    }

    #[test]
    fn python_writes_true_large() {
        let options = group("ModelOptions").unwrap().options;
        let said = |name: &str| python(options.iter().find(|option| option.name == name).unwrap());
        assert!(said("mmap").ends_with("Default: True; with `numa`, False."));
        assert!(said("prefill_chunk").ends_with("Value: a whole number from 1 to 65536. Default: 512."));
        assert!(group("Options").is_err());
    }
}
