//! Shapes of JSON that are small in a file and large in memory, deep, or not JSON at all.

use crate::rng::Rng;

/// Most repetitions.
const MANY: usize = 30_000;

/// A value to put in place of another.
pub fn json_value(rng: &mut Rng) -> Vec<u8> {
    let most = if rng.one_in(4) { MANY } else { 200 };
    let count = rng.below(most);
    let filled = |open: &str, element: &str, close: &str| {
        format!("{open}{}{close}", vec![element; count.max(1)].join(",")).into_bytes()
    };
    match rng.below(12) {
        0 => "[".repeat(count).into_bytes(),
        1 => format!("{}0{}", "[".repeat(count), "]".repeat(count)).into_bytes(),
        2 => format!("{}0{}", "{\"a\":".repeat(count), "}".repeat(count)).into_bytes(),
        3 => filled("[", "0", "]"),
        4 => filled("[", "[]", "]"),
        5 => filled("[", "{}", "]"),
        6 => filled("[", "\"\"", "]"),
        // The same key many times, and many keys.
        7 => filled("{", "\"a\":0", "}"),
        8 => {
            let keys: Vec<String> = (0..count).map(|i| format!("\"{i}\":{i}")).collect();
            format!("{{{}}}", keys.join(",")).into_bytes()
        }
        9 => format!("\"{}\"", "\\u00e9".repeat(count)).into_bytes(),
        10 => format!("\"{}\"", "x".repeat(count)).into_bytes(),
        _ => rng
            .pick(&["Infinity", "-Infinity", "NaN", "[NaN]", "{\"__float__\":\"NaN\"}", "-"])
            .as_bytes()
            .to_vec(),
    }
}

/// What may stand before a text, wanted or not.
pub fn mark(rng: &mut Rng) -> &'static [u8] {
    const MARKS: &[&[u8]] = &[b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b" \n"];
    let mark: &&[u8] = rng.pick(MARKS);
    mark
}
