//! Values of options that are more than a number or a text.

use std::path::PathBuf;

use clawdbot_core::{Cache, Error};
use serde_json::Value;

/// A whole number of that range, ends included.
pub(super) fn between(least: u32, most: u32) -> impl Fn(&str) -> Result<u32, String> + Clone + Send + Sync {
    move |text: &str| {
        let number = text.parse::<u32>().ok().filter(|number| (least..=most).contains(number));
        number.ok_or_else(|| format!("expected a whole number from {least} to {most}"))
    }
}

/// A value of the option `cache`.
pub(super) fn switch_or_dir(text: &str) -> Result<Cache, String> {
    text.parse().map_err(|error: Error| {
        let expected = error.detail().get("expected").and_then(|expected| expected.as_str());
        expected.map_or_else(|| error.to_string(), |expected| format!("expected {expected}"))
    })
}

/// JSON has no infinities, so they must not get that far.
pub(super) fn finite(text: &str) -> Result<f32, String> {
    let number: f32 = text.parse().map_err(|_| "expected a number".to_owned())?;
    if number.is_finite() { Ok(number) } else { Err("expected a finite number".to_owned()) }
}

/// A name and a directory, whose own name is taken where there is none.
pub(super) fn lora(text: &str) -> Result<(String, PathBuf), String> {
    let (name, dir) = match text.split_once('=') {
        Some((name, dir)) => (name.to_owned(), PathBuf::from(dir)),
        None => {
            let dir = PathBuf::from(text);
            let name = dir.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
            (name, dir)
        }
    };
    match name.is_empty() || dir.as_os_str().is_empty() {
        true => Err("expected DIR or NAME=DIR".to_owned()),
        false => Ok((name, dir)),
    }
}

/// A name, and JSON or else a text.
pub(super) fn variable(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or("expected NAME=VALUE, such as enable_thinking=false")?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
    Ok((name.to_owned(), value))
}

/// A token id and what to add to its logit.
pub(super) fn bias(text: &str) -> Result<(u32, f32), String> {
    let (id, bias) = text.split_once('=').ok_or("expected ID=BIAS, such as 50=-2.5")?;
    Ok((id.parse().map_err(|_| format!("expected a token id, found {id:?}"))?, finite(bias)?))
}

/// Token ids with commas between them.
pub(super) fn ids(text: &str) -> Result<Vec<u32>, String> {
    let id = |id: &str| id.trim().parse().map_err(|_| format!("expected a token id, found {id:?}"));
    text.split(',').map(id).collect()
}

/// A number of bytes, with or without a unit.
pub(super) fn byte_size(text: &str) -> Result<u64, String> {
    let expected = || format!("expected a number of bytes such as 500000000, 500M or 1.5GiB, found {text:?}");
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
    use serde_json::json;

    #[test]
    fn variables() {
        for (text, name, value) in [
            ("enable_thinking=false", "enable_thinking", json!(false)),
            ("a=b=c", "a", json!("b=c")),
            ("a=\"1\"", "a", json!("1")),
            ("a=", "a", json!("")),
            ("a=[1, {}]", "a", json!([1, {}])),
        ] {
            assert_eq!(variable(text), Ok((name.to_owned(), value)));
        }
        assert!(["", "a", "=1"].map(variable).iter().all(Result::is_err));
    }

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
            assert_eq!(byte_size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "G", "-1", "1X", "1 G", "nanG", "infinity", "99999999999T", "1e30", "1e3"] {
            assert!(byte_size(bad).is_err(), "{bad}");
        }
    }
}
