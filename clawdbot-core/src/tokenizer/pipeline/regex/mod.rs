//! Searches for patterns in text. With the patterns of published tokenizers, time is linear in the text; other patterns
//! can take exponential time. The steps of a search are counted, so that it ends, and it can be cancelled.
//!
//! A search backtracks like Oniguruma's, so it finds the same. The fancy-regex crate does not count the steps that it
//! delegates to the regex crate.

use fancy_regex::Expr;

use program::Program;
use search::Search;

mod program;
mod search;
mod set;
#[cfg(test)]
pub(super) mod tests;

/// A compiled pattern.
#[derive(Debug)]
pub(in crate::tokenizer) struct Regex(Box<Program>);

impl Regex {
    /// Compiles `pattern`, in the syntax of the fancy-regex crate.
    ///
    /// # Errors
    /// With what was expected and found.
    pub(in crate::tokenizer) fn new(pattern: &str) -> Result<Self, String> {
        let tree = Expr::parse_tree(pattern).map_err(|error| error.to_string())?;
        Program::compile(&tree.expr).map(|program| Regex(Box::new(program)))
    }

    /// Whether all characters that it can match satisfy `such`.
    pub(in crate::tokenizer) fn only(&self, such: fn(char) -> bool) -> bool {
        self.0.sets.iter().all(|set| set.only(such))
    }

    /// Calls `found` with the range of each match. Matches do not overlap, and an empty one never directly follows
    /// another.
    ///
    /// # Errors
    /// If the work should stop, and if it takes too long.
    pub(in crate::tokenizer) fn each(
        &self,
        text: &str,
        mut found: impl FnMut(usize, usize),
    ) -> tokenizers::Result<()> {
        let mut search = Search::new(&self.0, text);
        let (mut from, mut last) = (0, None);
        while from <= text.len() {
            let Some((start, end)) = search.find(from)? else { break };
            from = end;
            if start == end {
                from += text[end..].chars().next().map_or(1, char::len_utf8);
                if last == Some(end) {
                    continue;
                }
            }
            last = Some(end);
            found(start, end);
        }
        Ok(())
    }
}
