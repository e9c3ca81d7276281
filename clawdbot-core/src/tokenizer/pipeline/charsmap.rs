//! SentencePiece's replacement rules for characters (`precompiled_charsmap`): the length of a trie, the trie, and the
//! replacements it points to. The crate trusts all three, so they are checked first.

use tokenizers::normalizers::Precompiled;

/// Key of the rules in a normalizer.
pub(super) const KEY: &str = "precompiled_charsmap";
/// Most bytes of a replacement; Unicode's longest have 33.
pub(super) const MAX_REPLACEMENT: usize = 64;

/// The rules in `text`, which is base64.
///
/// # Errors
/// With what was expected and found.
pub(super) fn read(text: &str) -> Result<Precompiled, String> {
    check_length(text)?;
    let bytes = decode(text).ok_or_else(|| format!("{KEY}: expected base64"))?;
    check(&bytes).map_err(|reason| format!("{KEY}: {reason}"))?;
    Precompiled::from(&bytes).map_err(|error| error.to_string())
}

/// Whether ASCII letters and digits stay something other than white space, and ASCII white space stays white space.
pub(super) fn keeps_words(rules: &Precompiled) -> bool {
    let becomes = |text: &str| rules.normalize_string(text);
    let mut ascii = (0..128_u8).map(char::from);
    // "\r\n" is one character for the rules.
    becomes("\r\n").contains(char::is_whitespace)
        && ascii.all(|c| match becomes(c.encode_utf8(&mut [0; 4])) {
            found if c.is_ascii_alphanumeric() => found.contains(|c: char| !c.is_whitespace()),
            found if c.is_ascii_whitespace() => found.contains(char::is_whitespace),
            _ => true,
        })
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

/// Checks that the trie is within the rules, before memory is allocated.
fn check_length(text: &str) -> Result<(), String> {
    // Six base64 digits hold the four bytes of the length.
    let first: Option<Vec<u8>> = text.bytes().take(6).map(digit).collect();
    let Some(digits) = first.filter(|digits| digits.len() == 6) else {
        return Err(format!("{KEY}: expected the length of a table in base64"));
    };
    let bits = digits.iter().fold(0_u64, |bits, &digit| bits << 6 | u64::from(digit)) >> 4;
    let length = (bits as u32).swap_bytes();
    let most = text.len() / 4 * 3;
    match usize::try_from(length) {
        Ok(length) if length <= most => Ok(()),
        _ => Err(format!(
            "{KEY}: expected a table within the {most} bytes of the rules, found one of {length}"
        )),
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=').as_bytes();
    let filling = text.len() - digits.len();
    if !text.len().is_multiple_of(4) || filling > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    for group in digits.chunks(4) {
        let mut bits = 0_u32;
        for &byte in group {
            bits = bits << 6 | u32::from(digit(byte)?);
        }
        bits <<= 6 * (4 - group.len());
        bytes.extend(bits.to_be_bytes().iter().skip(1).take(group.len() - 1));
    }
    Some(bytes)
}

/// Checks that no text leads outside of the trie (a double array, <https://github.com/s-yata/darts-clone>) or of the
/// replacements.
fn check(bytes: &[u8]) -> Result<(), String> {
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or("expected the length of a table")?;
    let length = u32::from_le_bytes(*length) as usize / 4 * 4;
    let (table, replacements) = rest.split_at_checked(length).ok_or("expected a whole table")?;
    let table: Vec<u32> =
        table.chunks_exact(4).map(|unit| u32::from_le_bytes([unit[0], unit[1], unit[2], unit[3]])).collect();
    let replacements = std::str::from_utf8(replacements).map_err(|_| "expected replacements in UTF-8")?;
    if let Some(long) = replacements.split('\0').map(str::len).find(|&len| len > MAX_REPLACEMENT) {
        return Err(format!("expected replacements of at most {MAX_REPLACEMENT} bytes, found one of {long}"));
    }
    let inside = |at: usize| at < table.len();
    // The children of each unit: any of 256, selected by the next byte of a text.
    for (at, &unit) in table.iter().enumerate() {
        // A unit with a value has no children. The root is always followed.
        if unit >> 31 == 1 && at != 0 {
            continue;
        }
        let offset = (unit as usize >> 10) << ((unit & 1 << 9) >> 6);
        let children = at ^ offset;
        if !inside(children | 0xff) {
            return Err("a unit of the table points outside of it".to_owned());
        }
        if unit >> 8 & 1 == 1 {
            let value = (table[children] & !(1 << 31)) as usize;
            if !replacements.is_char_boundary(value) {
                return Err("a unit of the table points outside of the replacements".to_owned());
            }
        }
    }
    if table.is_empty() { Err("expected a table that is not empty".to_owned()) } else { Ok(()) }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// As base64.
    fn encode(bytes: &[u8]) -> String {
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for group in bytes.chunks(3) {
            let bits =
                (0..3).fold(0_u32, |bits, i| bits << 8 | u32::from(group.get(i).copied().unwrap_or(0)));
            for i in 0..4 {
                let digit = alphabet[(bits >> (18 - 6 * i)) as usize & 63] as char;
                text.push(if i <= group.len() { digit } else { '=' });
            }
        }
        text
    }

    /// Rules with one that replaces "a" by "b": the root leads to 'a', and that to a leaf with the value 0.
    fn rules(change: impl Fn(&mut Vec<u32>), replacements: &str) -> String {
        let mut table = vec![0_u32; 512];
        table[0] = 256 << 10;
        table[256 ^ 0x61] = 0x61 | 1 << 8 | (0x161 ^ 0x180) << 10;
        table[0x180] = 1 << 31;
        change(&mut table);
        let units: Vec<u8> = table.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        encode(&[&(units.len() as u32).to_le_bytes()[..], &units, replacements.as_bytes()].concat())
    }

    pub(in crate::tokenizer) fn b_for_a() -> String {
        rules(|_| {}, "b\0")
    }

    #[test]
    fn rules_are_read() {
        let rules = read(&b_for_a()).unwrap();
        assert_eq!(rules.normalize_string("cab"), "cbb");
    }

    #[test]
    fn words_are_kept_if_their_letters_are() {
        for (replacement, kept) in [("b\0", true), ("\0", false), (" \0", false)] {
            assert_eq!(keeps_words(&read(&rules(|_| {}, replacement)).unwrap()), kept, "{replacement:?}");
        }
    }

    #[test]
    fn links_to_the_outside_are_refused() {
        for (what, text) in [
            ("outside of it", rules(|table| table[7] = 1000 << 10, "b\0")),
            ("outside of it", rules(|table| table[0] = u32::MAX, "b\0")),
            ("outside of the replacements", rules(|table| table[0x180] = 1 << 31 | 3, "b\0")),
            ("outside of the replacements", rules(|table| table[0x180] = 1 << 31 | 1, "\u{e9}\0")),
            ("at most 64 bytes", rules(|_| {}, &"b".repeat(65))),
            ("not empty", encode(&[0, 0, 0, 0, b'b'])),
            ("base64", "AAAAAA?A".to_owned()),
            ("base64", "AAAAAAA".to_owned()),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.contains(what), "{what}: {error}");
        }
    }

    #[test]
    fn a_missing_table_is_refused() {
        // Lengths 2^30 and 2^32 - 1, little-endian, then one unit of the table and a zero.
        for (rules, length) in [("AAAAQAAAAAAA", "1073741824"), ("/////wAAAAAA", "4294967295")] {
            let error = read(rules).unwrap_err();
            assert!(error.contains("within the 9 bytes") && error.contains(length), "{error}");
            let plain = json!({"type": "Precompiled", "precompiled_charsmap": rules}).to_string();
            let hidden = plain.replace("precompiled_", "\\u0070recompiled_");
            // The rules are refused before later parts of the file.
            for file in [
                format!(
                    r#"{{"version": "1.0", "normalizer": {plain}, "model": {{"type": "BPE", "vocab": {{}}, "merges": []}}}}"#
                ),
                format!(r#"{{"normalizer": {hidden}}}"#),
                format!(r#"{{"normalizer": {plain}"#),
                format!(r#"{{"normalizer": null, "normalizer": {plain}, ?"#),
                format!(r#"{{"normalizer": {plain}, "normalizer": null}}"#),
            ] {
                let refused = crate::Tokenizer::from_bytes(file.as_bytes()).unwrap_err();
                assert!(refused.message().contains(&error), "{file}: {refused}");
            }
        }
    }
}
