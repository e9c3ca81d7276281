//! Numbers of bytes as people write them.

use crate::error::{Error, Result};

/// A number of bytes, with or without a unit: `500000000`, `500M`, `1.5GiB`.
///
/// # Errors
/// `InvalidArgument` for another text, and for 2^64 bytes or more.
pub fn byte_size(text: &str) -> Result<u64> {
    let expected = || {
        let message = format!("expected a number of bytes such as 500000000, 500M or 1.5GiB, found {text:?}");
        Error::invalid_argument(message).with("found", text)
    };
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1000,
        "m" | "mb" => 1000_u64.pow(2),
        "g" | "gb" => 1000_u64.pow(3),
        "t" | "tb" => 1000_u64.pow(4),
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return Err(expected()),
    };
    if let Ok(number) = digits.parse::<u64>() {
        return number.checked_mul(unit).ok_or_else(expected);
    }
    // Decimals alone: no exponents, no words such as "inf".
    if !digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(expected());
    }
    let number: f64 = digits.parse().map_err(|_| expected())?;
    let bytes = number * unit as f64;
    if (0.0..1e18).contains(&bytes) { Ok(bytes as u64) } else { Err(expected()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("12", 12),
            ("3b", 3),
            ("2K", 2000),
            ("2KiB", 2048),
            ("1.5GiB", 3 << 29),
            ("4gb", 4_000_000_000),
            ("1T", 1_000_000_000_000),
        ] {
            assert_eq!(byte_size(text).unwrap(), bytes, "{text}");
        }
        for bad in ["", "G", "-1", "1X", "1 G", "nanG", "infinity", "99999999999T", "1e30", "1e3"] {
            assert!(byte_size(bad).is_err(), "{bad}");
        }
    }
}
