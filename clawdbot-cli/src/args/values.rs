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
}
