//! SentencePiece's rules for characters (`precompiled_charsmap`) begin with the length of a table, for which their parser
//! allocates before it looks whether there is so much. So a length that cannot be is refused first.

use serde_json::Value;

/// Where the rules are, in a tokenizer's normalizer.
const KEY: &str = "precompiled_charsmap";

/// Checks the rules in `normalizer`, of a `tokenizer.json` file.
///
/// # Errors
/// With what was expected and found.
pub(super) fn check(normalizer: &Value) -> Result<(), String> {
    match normalizer {
        Value::Array(values) => values.iter().try_for_each(check),
        Value::Object(map) => map.iter().try_for_each(|(key, value)| match value {
            Value::String(text) if key == KEY => check_length(text),
            value => check(value),
        }),
        _ => Ok(()),
    }
}

/// `text`: the rules in base64.
fn check_length(text: &str) -> Result<(), String> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    // Six digits have the four bytes of the length; without them there is none, and no memory is asked for.
    let first: Option<Vec<u8>> = text.bytes().take(6).map(digit).collect();
    let Some(digits) = first.filter(|digits| digits.len() == 6) else { return Ok(()) };
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn normalizer(rules: &str) -> Value {
        let rules = json!({"type": "Precompiled", "precompiled_charsmap": rules});
        json!({"type": "Sequence", "normalizers": [{"type": "NFC"}, rules]})
    }

    #[test]
    fn a_table_that_is_not_there_is_refused() {
        // Lengths 4, 2^30 and 2^32 - 1, little-endian, then one unit of the table and a zero.
        check(&normalizer("BAAAAAAAAAAA")).unwrap();
        for (rules, length) in [("AAAAQAAAAAAA", "1073741824"), ("/////wAAAAAA", "4294967295")] {
            let normalizer = normalizer(rules);
            let error = check(&normalizer).unwrap_err();
            assert!(error.contains("within the 9 bytes") && error.contains(length), "{error}");
            let plain = normalizer.to_string();
            let hidden = plain.replace("precompiled_", "\\u0070recompiled_");
            // The rules are refused before anything that is wrong behind them.
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
        for other in ["", "AAAA", "====AAAA", "AA\u{e9}AAAA"] {
            check(&normalizer(other)).unwrap();
        }
    }
}
