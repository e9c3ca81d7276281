//! Did-you-mean: the known name that a misspelt one is closest to.

/// The name of `known` closest to `found`, if it is close enough for a typing error: one edit in three characters, or in two.
pub(crate) fn closest<'a>(found: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // No name is that long, and the distance costs the product of both lengths.
    if found.len() > 64 {
        return None;
    }
    let plain = |text: &str| text.to_lowercase().replace(['-', '_', ' '], "");
    let wanted = plain(found);
    let distances = known.into_iter().map(|name| (distance(&wanted, &plain(name)), name));
    let (errors, name) = distances.min_by_key(|&(errors, _)| errors)?;
    let length = wanted.chars().count();
    // Of one character, nothing would be left.
    (errors * 3 <= length.max(3) && errors * 2 <= length).then_some(name)
}

/// `; did you mean "name"?`, or nothing.
pub(crate) fn hint(name: Option<&str>) -> String {
    name.map_or_else(String::new, |name| format!("; did you mean {name:?}?"))
}

/// Edit distance: characters to insert, remove, replace or swap with their neighbour to turn `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_names_are_found_and_other_words_are_not() {
        let known = ["max_tokens", "temperature", "top_k", "top_p", "stop", "seed"];
        let found = |name| closest(name, known);
        for (slip, meant) in [
            ("max_token", "max_tokens"),
            ("maxTokens", "max_tokens"),
            ("temprature", "temperature"),
            ("tempeartuer", "temperature"),
            ("top-p", "top_p"),
            ("Seed", "seed"),
            ("sotp", "stop"),
        ] {
            assert_eq!(found(slip), Some(meant), "{slip}");
        }
        for other in ["nonsense", "x", "", "frequency", "ütf"] {
            assert_eq!(found(other), None, "{other}");
        }
        assert_eq!(
            (closest("q", ["a"]), closest("A", ["a"]), closest("ac", ["ab"])),
            (None, Some("a"), Some("ab"))
        );
        assert_eq!(closest(&"a".repeat(1 << 20), known), None);
        assert_eq!((distance("", "abc"), distance("abc", "acb"), distance("kitten", "sitting")), (3, 1, 3));
    }
}
