//! Sets of characters.

use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Class, HirKind};

/// Sets with more ranges than this get a lookup table.
const FEW: usize = 8;
/// Characters in a table: the basic multilingual plane.
const PLANE: usize = 1 << 16;

/// Ranges from first to last character, ascending and disjoint.
pub(super) type Ranges = Vec<(char, char)>;

pub(super) const ANY: (char, char) = ('\0', char::MAX);

/// Whether upper and lower case are different characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Case {
    Distinct,
    Ignored,
}

/// The characters of a class in the syntax of the regex crate.
///
/// # Errors
/// With the parser's message; for text that is not a class.
pub(super) fn parse(class: &str, case: Case) -> Result<Ranges, String> {
    let mut parser = ParserBuilder::new().case_insensitive(case == Case::Ignored).build();
    let parsed = parser.parse(class).map_err(|error| error.to_string())?;
    let none = || format!("expected a class of characters, found {class:.50?}");
    let ranges = match parsed.kind() {
        HirKind::Class(Class::Unicode(class)) => {
            class.iter().map(|range| (range.start(), range.end())).collect()
        }
        // Empty sets, and subsets of ASCII.
        HirKind::Class(Class::Bytes(class)) => {
            class.iter().map(|range| (range.start().into(), range.end().into())).collect()
        }
        HirKind::Literal(literal) => {
            let mut chars = std::str::from_utf8(&literal.0).map_err(|_| none())?.chars();
            match (chars.next(), chars.next()) {
                (Some(c), None) => vec![(c, c)],
                _ => return Err(none()),
            }
        }
        _ => return Err(none()),
    };
    Ok(ranges)
}

/// Sorts and merges ranges.
pub(super) fn union(mut ranges: Ranges) -> Ranges {
    ranges.sort_unstable();
    let mut apart: Ranges = Vec::new();
    for (first, last) in ranges {
        match apart.last_mut() {
            Some((_, before)) if first <= *before => *before = last.max(*before),
            _ => apart.push((first, last)),
        }
    }
    apart
}

/// Sets the bits of the characters that `bits` covers.
fn mark(bits: &mut [u64], ranges: &Ranges) {
    for &(first, last) in ranges {
        let (first, last) = (u32::from(first) as usize, u32::from(last) as usize);
        for (at, word) in bits.iter_mut().enumerate().take(last / 64 + 1).skip(first / 64) {
            let from = !0 << if at == first / 64 { first % 64 } else { 0 };
            let to = !0 >> if at == last / 64 { 63 - last % 64 } else { 0 };
            *word |= from & to;
        }
    }
}

#[derive(Debug)]
pub(super) struct Set {
    /// The ASCII characters, as bits.
    ascii: u128,
    table: Option<Box<[u64]>>,
    ranges: Ranges,
}

impl Set {
    pub(super) fn new(ranges: Ranges) -> Self {
        let mut ascii = [0; 2];
        mark(&mut ascii, &ranges);
        let ascii = u128::from(ascii[1]) << 64 | u128::from(ascii[0]);
        let table = (ranges.len() > FEW).then(|| {
            let mut table = vec![0; PLANE / 64];
            mark(&mut table, &ranges);
            table.into()
        });
        Set { ascii, table, ranges }
    }

    pub(super) fn ascii(&self) -> u128 {
        self.ascii
    }

    pub(super) fn ranges(&self) -> impl Iterator<Item = (char, char)> {
        self.ranges.iter().copied()
    }

    pub(super) fn has_others(&self) -> bool {
        self.ranges.last().is_some_and(|(_, last)| !last.is_ascii())
    }

    pub(super) fn only(&self, such: fn(char) -> bool) -> bool {
        self.ranges.iter().all(|&(first, last)| (first..=last).all(such))
    }

    /// Bytes of the character at `at` of `text`, if it is in the set.
    pub(super) fn at(&self, text: &str, at: usize) -> Option<usize> {
        let first = *text.as_bytes().get(at)?;
        if first < 128 {
            return (self.ascii >> first & 1 == 1).then_some(1);
        }
        let c = text.get(at..)?.chars().next()?;
        self.has(c).then(|| c.len_utf8())
    }

    fn has(&self, c: char) -> bool {
        let code = u32::from(c) as usize;
        match &self.table {
            Some(table) if code < PLANE => table[code / 64] >> (code % 64) & 1 == 1,
            _ => {
                let at = self.ranges.partition_point(|&(_, last)| last < c);
                self.ranges.get(at).is_some_and(|&(first, _)| first <= c)
            }
        }
    }
}
