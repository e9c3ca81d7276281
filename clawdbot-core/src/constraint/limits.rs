//! How much work a constraint may take.

use llguidance::api::ParserLimits;

/// Bounds of the parser. What takes more is an error.
pub(super) fn limits() -> ParserLimits {
    ParserLimits {
        // Of ambiguous grammars: what takes longer than milliseconds for each token.
        max_items_in_row: 2000,
        // About 20 ms.
        initial_lexer_fuel: 1_000_000,
        // About 14 ms.
        step_lexer_fuel: 200_000,
        // About 3 ms.
        step_max_items: 50_000,
        // About 2 kB each.
        max_lexer_states: 30_000,
        max_grammar_size: 200_000,
        precompute_large_lexemes: true,
        verbose_errors: false,
    }
}
