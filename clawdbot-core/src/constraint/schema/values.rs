//! Values of `const` and `enum`, and numbers.

use serde_json::{Number, Value};

/// Largest whole number that f64 holds exactly, with all smaller ones.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// `value` as it is written: whole numbers without a fraction.
///
/// # Errors
/// What was expected and found, for numbers that f64 does not hold and texts that cannot be written.
pub(super) fn written(value: &Value) -> Result<Value, String> {
    Ok(match value {
        Value::Number(number) => number_of(number)?,
        Value::String(text) => {
            writable(text)?;
            value.clone()
        }
        Value::Array(items) => Value::Array(items.iter().map(written).collect::<Result<_, _>>()?),
        Value::Object(object) => {
            let entries = object.iter().map(|(key, value)| {
                writable(key)?;
                Ok((key.clone(), written(value)?))
            });
            Value::Object(entries.collect::<Result<_, String>>()?)
        }
        Value::Null | Value::Bool(_) => value.clone(),
    })
}

/// A number that f64 holds exactly.
///
/// # Errors
/// What was expected and found.
pub(super) fn number(value: &Value) -> Result<Value, String> {
    match value {
        Value::Number(number) => number_of(number),
        other => Err(format!("expected a number, found {}", kind(other))),
    }
}

fn number_of(number: &Number) -> Result<Value, String> {
    // As f64, larger whole numbers would be rounded to this bound.
    let whole = number.as_i128().is_none_or(|whole| whole.unsigned_abs() <= 1 << 53);
    let value = number.as_f64().filter(|value| whole && value.is_finite() && value.abs() <= EXACT);
    let value = value.ok_or_else(|| format!("expected a number of at most 2^53, found {number}"))?;
    if value.fract() == 0.0 {
        // At most 2^53, so it fits.
        #[allow(clippy::cast_possible_truncation, reason = "bounded above")]
        return Ok(Value::from(value as i64));
    }
    Ok(Value::Number(number.clone()))
}

/// A whole number, 0 or more; `2.0` is one.
///
/// # Errors
/// What was expected and found.
pub(super) fn count(value: &Value) -> Result<u64, String> {
    let found = value.as_f64().filter(|count| (0.0..=EXACT).contains(count) && count.fract() == 0.0);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a whole number of at most 2^53"
    )]
    found
        .map(|count| count as u64)
        .ok_or_else(|| format!("expected a whole number, 0 or more, found {value}"))
}

/// Refuses text with control characters that have no short escape: they are not written.
///
/// # Errors
/// What was expected and found.
pub(super) fn writable(text: &str) -> Result<(), String> {
    let short = ['\n', '\r', '\t', '\u{8}', '\u{c}'];
    match text.chars().find(|c| c.is_ascii_control() && !short.contains(c)) {
        Some(c) => Err(format!("expected text without control characters, found U+{:04X}", u32::from(c))),
        None => Ok(()),
    }
}

/// What a value is, for messages.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
