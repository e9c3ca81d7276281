//! `include/clawdbot.h`: what cbindgen reads from clawdbot-capi, the table of errors, and lists of options.

use std::collections::HashMap;
use std::fmt::Write;
use std::path::Path;

use cbindgen::{Builder, Config, DocumentationStyle, Language, Style};
use clawdbot_core::{ErrorKind, OPTIONS};

use crate::words::{group, item, wrapped};

/// The contract that holds for every function, and the start of the file.
const HEAD: &str = include_str!("header_head.txt");

/// What rustdoc wants to be said and C programmers know from the head.
const RUST_ONLY: &str = "\n *\n * # Safety\n * As the head of the header says.";

/// A line that stands for a list of options: a link in Rust's documentation.
const OPTIONS_OF: &str = " * Options: [`clawdbot_core::";
/// The longest line of a list.
const WIDTH: usize = 117;

/// The text of the header.
pub(crate) fn generate(root: &Path) -> Result<String, String> {
    let config = Config {
        language: Language::C,
        cpp_compat: true,
        header: Some(HEAD.trim_end().to_owned()),
        include_guard: Some("CLAWDBOT_H".to_owned()),
        no_includes: true,
        sys_includes: vec!["stddef.h".to_owned(), "stdint.h".to_owned()],
        after_includes: Some(constants()),
        documentation_style: DocumentationStyle::Doxy,
        style: Style::Type,
        usize_is_size_t: true,
        defines: HashMap::from([("feature = hub".to_owned(), "CLAWDBOT_HUB".to_owned())]),
        line_length: 120,
        ..Config::default()
    };
    let bindings = Builder::new()
        .with_config(config)
        .with_crate(root.join("clawdbot-capi"))
        .generate()
        .map_err(|error| format!("cbindgen: {error}"))?;
    let mut text = Vec::new();
    bindings.write(&mut text);
    let text = String::from_utf8(text).map_err(|error| format!("cbindgen: {error}"))?;
    with_options(&text.replace(RUST_ONLY, ""))
}

/// The text with a list of options in place of each line that names a struct of the core.
///
/// # Errors
/// A message for a struct that does not exist, and for one that is not named once.
fn with_options(text: &str) -> Result<String, String> {
    let mut written = String::new();
    let mut listed = Vec::new();
    for line in text.lines() {
        let name = line.strip_prefix(OPTIONS_OF).and_then(|rest| rest.strip_suffix("`]."));
        match name {
            None => written += &format!("{line}\n"),
            Some(name) => {
                let group = group(name)?;
                listed.push(group.name);
                // The function says what the first sentence does.
                let doc = group.documentation();
                let more = doc.split_once(". ").map_or("", |(_, more)| more);
                let head = wrapped(&format!("`options`: NULL, or with any of these. {more}"), WIDTH);
                written.extend(head.iter().map(|line| format!(" * {line}\n")));
                for option in group.options {
                    let (values, doc) = (option.values.expected(), option.documentation());
                    let text = format!("{} ({values}): {doc} Default: {}.", option.name, option.default);
                    written.extend(item(&text, WIDTH).iter().map(|line| format!(" * {line}\n")));
                }
            }
        }
    }
    let mut missing =
        OPTIONS.iter().filter(|group| listed.iter().filter(|name| **name == group.name).count() != 1);
    match missing.next() {
        None => Ok(written),
        Some(group) => {
            Err(format!("expected one function of clawdbot-capi with `Options: [..{}]`", group.name))
        }
    }
}

/// Version and error numbers, from their tables in Rust.
fn constants() -> String {
    let mut text = String::new();
    let mut define = |doc: &str, name: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n/**\n * {doc}\n */\n#define {name} {value}\n");
    };
    define(
        "Version of the library that this header belongs to.",
        "CLAWDBOT_VERSION",
        &format!("\"{}\"", env!("CARGO_PKG_VERSION")),
    );
    define(
        "Given as the length of a text: the text ends at its first NUL character.",
        "CLAWDBOT_NUL_TERMINATED",
        "SIZE_MAX",
    );
    define("Status of a call that succeeded.", "CLAWDBOT_OK", "0");
    for kind in ErrorKind::ALL {
        define(kind.summary(), &constant(kind.name()), &kind.code().to_string());
    }
    text.trim_end().to_owned()
}

/// The C constant of an error kind: `CLAWDBOT_ERROR_NOT_FOUND` for `NotFound`.
fn constant(name: &str) -> String {
    let mut constant = "CLAWDBOT_ERROR".to_owned();
    let mut previous = '_';
    for c in name.chars() {
        if c.is_ascii_uppercase() && !previous.is_ascii_uppercase() {
            constant.push('_');
        }
        constant.push(c.to_ascii_uppercase());
        previous = c;
    }
    constant
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_constants() {
        assert_eq!(constant("NotFound"), "CLAWDBOT_ERROR_NOT_FOUND");
        assert_eq!(constant("Io"), "CLAWDBOT_ERROR_IO");
        assert_eq!(constant("InvalidUtf8"), "CLAWDBOT_ERROR_INVALID_UTF8");
    }
}
