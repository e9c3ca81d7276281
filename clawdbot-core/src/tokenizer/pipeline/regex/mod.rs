//! Patterns in a text. Of a published tokenizer's patterns any text's time is in proportion to its length; others are
//! possible whose time is a power of it. What a search does is counted, so that it ends, and it can be cancelled.
//!
//! A search goes back to where it had a choice, as Oniguruma's does: what it finds is the same. The engine of the
//! fancy-regex crate counts nothing of what it leaves to that of the regex crate.

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

    /// Whether all characters that it looks for are such.
    pub(in crate::tokenizer) fn only(&self, such: fn(char) -> bool) -> bool {
        self.0.sets.iter().all(|set| set.only(such))
    }

    /// Calls `found` with the range of each match: they do not overlap, and none that is empty follows another one at once.
    ///
    /// # Errors
    /// When the work should stop, and when it takes too long.
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
