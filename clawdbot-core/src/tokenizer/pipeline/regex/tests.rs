//! Patterns compared with the fancy-regex crate, and the steps of searches.

use proptest::prelude::*;

use super::*;
use crate::tokenizer::pipeline::work;
use crate::{CancelHandle, Error, ErrorKind};

/// The matches found until `cancel` is cancelled.
fn matches_until(pattern: &str, text: &str, cancel: &CancelHandle) -> crate::Result<Vec<(usize, usize)>> {
    let regex = Regex::new(pattern).unwrap();
    work::run(Some(cancel), &mut work::Allowance::default(), || {
        let mut found = Vec::new();
        let done = regex.each(text, |start, end| found.push((start, end)));
        done.map(|()| found).map_err(|error| Error::internal(error.to_string()))
    })
}

fn matches(pattern: &str, text: &str) -> crate::Result<Vec<(usize, usize)>> {
    matches_until(pattern, text, &CancelHandle::default())
}

fn agree(pattern: &str, text: &str) {
    let theirs = fancy_regex::Regex::new(pattern).unwrap();
    let theirs: Result<Vec<_>, _> =
        theirs.find_iter(text).map(|found| found.map(|found| (found.start(), found.end()))).collect();
    let Ok(theirs) = theirs else { return };
    assert_eq!(matches(pattern, text).unwrap(), theirs, "{pattern} in {text:?}");
}

/// Patterns that compile, over two letters, a longer one, and white space.
fn pattern() -> impl Strategy<Value = String> {
    let one = prop::sample::select(vec!["a", "b", "é", "[ab]", "[^a]", r"\s", ".", "(?s:.)", "(?i:a)"]);
    let place = prop::sample::select(vec![
        r"\A",
        r"\z",
        "(?m:$)",
        "(?=a)",
        "(?!a)",
        "(?<=b)",
        "(?<!é)",
        "(?<=a|éb)",
        "(?<!a|bé)",
        r"(?!\S)",
        "(?=.*b)",
        "",
    ]);
    let times =
        prop::sample::select(vec!["", "", "*", "+", "?", "*?", "+?", "??", "{2}", "{1,2}", "{2,}", "{0,2}?"]);
    let run = (one, times.clone()).prop_map(|(one, times)| format!("{one}{times}"));
    let leaf = prop_oneof![4 => run, 1 => place.prop_map(str::to_owned)];
    leaf.prop_recursive(3, 16, 3, move |inner| {
        let some = prop::collection::vec(inner.clone(), 1..4);
        let solid = inner.clone();
        prop_oneof![
            3 => some.clone().prop_map(|some| some.concat()),
            2 => some.prop_map(|some| format!("(?:{})", some.join("|"))),
            1 => inner.prop_map(|inner| format!("(?>{inner})")),
            // Empty expressions are not repeated.
            1 => (solid, times.clone()).prop_map(|(inner, times)| format!("(?:{inner}b){times}")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn matches_agree_with_fancy_regex(pattern in pattern(), other in pattern(), text in "[abAé \n]{0,12}") {
        agree(&pattern, &text);
        agree(&format!("{pattern}|{other}"), &text);
    }
}

#[test]
fn classes_agree_with_fancy_regex() {
    let text: String = (0..0x3_0000).filter_map(char::from_u32).collect();
    for pattern in [
        r"\p{L}+",
        r"[^\s\p{L}\p{N}]+",
        r"[\p{Lu}\p{Lt}\p{M}&&[^\p{Han}]]+",
        r"(?i:k+|s)",
        r"(?i:[a-z])+",
        r"\w\W",
        r"[\x{10000}-\x{10010}a]+",
        r"[a&&b]|[b]",
    ] {
        agree(pattern, &text);
    }
}

/// Repeated parts of texts that may make patterns backtrack.
const TEXTS: [&str; 14] =
    ["a", "A", "Aa", " ", "  a", "\n", " \n", "1", "'s", "!", "é", "日", " !\n", "\u{301}"];

#[test]
fn endless_backtracking_is_an_error() {
    let text = "a".repeat(100_000);
    for (pattern, linear) in [
        (r"a*b|a", true),
        (r"[^b]*b|a", true),
        (r"a*?b|a", true),
        (r"\s+$|a", true),
        (r"(?=[\s\S]*b)a", false),
        (r"(?!a*b)a", false),
        (r"(?>a?)a*b|a", false),
        (r"(?:a+)+b", false),
        (r"(?<=b{1000})a|a", false),
        (r"(?:a|aa)+b", false),
        (r"(?:a|b)*c", false),
    ] {
        match matches(pattern, &text) {
            Ok(_) => assert!(linear, "{pattern}"),
            Err(error) => assert!(!linear && error.message().contains("too long"), "{pattern}: {error:?}"),
        }
    }
    let spaces = " ".repeat(100_000) + "x";
    assert_eq!(matches(r"\s+$", &spaces).unwrap(), []);
    assert_eq!(matches(r"\s+(?!\S)|\s+", &spaces).unwrap(), [(0, 99_999), (99_999, 100_000)]);
}

#[test]
fn a_search_is_cancelled() {
    let cancel = CancelHandle::default();
    cancel.cancel();
    let error = matches_until("a", "b", &cancel).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
}

/// Checks that searches take steps in proportion to the text.
pub(in crate::tokenizer) fn check_linear(pattern: &str, translated: &str) {
    let regex = Regex::new(translated).unwrap();
    let steps = |text: &str| {
        let share = search::share(&regex.0, text);
        let before = work::left();
        regex.each(text, |_, _| ()).unwrap();
        before + share - work::left()
    };
    for (text, end) in TEXTS.iter().flat_map(|text| [(text, ""), (text, "x"), (text, "\u{ff01}")]) {
        let [short, long] = [1000, 2000].map(|times| steps(&(text.repeat(times) + end)));
        let bytes = text.len() as u64 * 2000;
        assert!(long <= short * 2 + 100, "{pattern} in {text:?}: {short}, then {long}");
        assert!(long < bytes * 48, "{pattern} in {text:?}: {long} for {bytes} bytes");
    }
}
