//! The table of all options. Everything that lists options reads it: the command line, and what `cargo xtask generate` writes
//! for Python and C and as documentation.

use super::embed::{EmbedOptions, RerankOptions};
use super::generate::GenerateOptions;
use super::hub::HubOptions;
use super::load::{EvaluateOptions, ModelOptions, PackOptions, RuntimeOptions};
use super::spec::{OptionGroup, OptionSet};

/// Every option.
pub const OPTIONS: &[OptionGroup] = &[
    GenerateOptions::GROUP,
    ModelOptions::GROUP,
    RuntimeOptions::GROUP,
    EmbedOptions::GROUP,
    RerankOptions::GROUP,
    PackOptions::GROUP,
    EvaluateOptions::GROUP,
    HubOptions::GROUP,
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Tables and `--help` have room for so much.
    const LONGEST: usize = 200;

    #[test]
    fn documentation_is_short_and_complete() {
        for group in OPTIONS {
            assert!(group.documentation().ends_with('.'), "{}", group.name);
            for option in group.options {
                let (name, doc) = (option.name, option.documentation());
                assert!(doc.ends_with('.') && doc.len() <= LONGEST, "{name}: {} characters", doc.len());
                assert!(!option.default.is_empty() && option.default.len() <= LONGEST, "{name}");
                assert!(!option.default.ends_with('.'), "{name}");
            }
        }
    }
}
