//! Bounds of numbers, so that the parser's crate enforces them exactly. It takes an exclusive bound of whole value for an inclusive
//! one if the other bound is less than 1 away, and forbids numbers that are cut from a bound (`1.8` below `1.85`).

use serde_json::{Map, Value, json};

/// Most digits after the point of a bound.
const MAX_DIGITS: usize = 32;
/// Decimal places that a number next to 0 may have more than the other bound.
const PLACES: i32 = 16;
/// The types of values that are no numbers.
const OTHERS: [&str; 5] = ["null", "boolean", "string", "array", "object"];
/// Keywords of numbers.
const OF_NUMBERS: [&str; 5] = ["minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf"];
/// Keywords whose schemas or values hold in the same place.
const HERE: [&str; 6] = ["allOf", "anyOf", "oneOf", "$ref", "const", "enum"];

/// A bound, and whether it is exclusive.
type Bound = Option<(f64, bool)>;

/// Writes the bounds of `object`, whose keywords were read, as ranges that are enforced exactly.
///
/// # Errors
/// The keyword with what was expected and found, for a bound with too many digits.
pub(super) fn split(object: &mut Map<String, Value>) -> Result<(), (&'static str, String)> {
    let types: Vec<String> = match object.get("type") {
        None => ["number"].into_iter().chain(OTHERS).map(str::to_owned).collect(),
        Some(Value::String(name)) => vec![name.clone()],
        Some(names) => {
            names.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        }
    };
    if !types.iter().any(|name| name == "number") {
        return Ok(());
    }
    let least = bound(object, "minimum", "exclusiveMinimum", f64::gt)?;
    let most = bound(object, "maximum", "exclusiveMaximum", f64::lt)?;
    let (closed_least, closed_most) = closed(least, most);
    let mut cuts: Vec<f64> = [least.filter(|bound| bound.0 < 0.0), most.filter(|bound| bound.0 > 0.0)]
        .into_iter()
        .flatten()
        .flat_map(|(bound, _)| cut(bound))
        .filter(|cut| {
            let above = |(low, open): (f64, bool)| if open { *cut > low } else { *cut >= low };
            let below = |(high, open): (f64, bool)| if open { *cut < high } else { *cut <= high };
            least.is_none_or(above) && most.is_none_or(below)
        })
        .collect();
    if cuts.is_empty() && (closed_least, closed_most) == (least, most) {
        return Ok(());
    }
    cuts.sort_by(f64::total_cmp);
    let inner: Vec<Bound> = cuts.iter().map(|&cut| Some((cut, false))).collect();
    let begins = std::iter::once(closed_least).chain(inner.iter().copied());
    let ends = inner.iter().copied().chain([closed_most]);
    let multiple = object.get("multipleOf").cloned();
    let mut options: Vec<Value> =
        begins.zip(ends).map(|(least, most)| range(least, most, multiple.as_ref())).collect();
    let others: Vec<&String> =
        types.iter().filter(|name| !matches!(name.as_str(), "number" | "integer")).collect();
    let mut rest = std::mem::take(object);
    rest.retain(|key, _| !OF_NUMBERS.contains(&key.as_str()));
    for key in HERE {
        object.extend(rest.remove_entry(key));
    }
    if !others.is_empty() {
        rest.insert("type".to_owned(), json!(others));
        options.push(Value::Object(rest));
    }
    if object.is_empty() {
        object.insert("anyOf".to_owned(), options.into());
        return Ok(());
    }
    let all = object.entry("allOf").or_insert_with(|| json!([]));
    if let Value::Array(all) = all {
        all.push(json!({"anyOf": options}));
    }
    Ok(())
}

/// The tighter one of two keywords' bounds.
fn bound(
    object: &Map<String, Value>,
    inclusive: &'static str,
    exclusive: &'static str,
    tighter: fn(&f64, &f64) -> bool,
) -> Result<Bound, (&'static str, String)> {
    let read = |key: &'static str| -> Result<Option<f64>, (&'static str, String)> {
        let Some(value) = object.get(key).and_then(Value::as_f64) else { return Ok(None) };
        match digits(value) {
            count if count > MAX_DIGITS => {
                Err((key, format!("expected at most {MAX_DIGITS} digits after the point, found {count}")))
            }
            _ => Ok(Some(value)),
        }
    };
    Ok(match (read(inclusive)?, read(exclusive)?) {
        (Some(bound), Some(open)) if tighter(&bound, &open) => Some((bound, false)),
        (_, Some(open)) => Some((open, true)),
        (bound, None) => bound.map(|bound| (bound, false)),
    })
}

fn digits(value: f64) -> usize {
    value.to_string().split_once('.').map_or(0, |(_, digits)| digits.len())
}

/// Bounds with an inclusive one in place of an exclusive one of whole value, if the other one is less than 1 away: the next number,
/// or next to 0 one that is far smaller than the other bound.
fn closed(least: Bound, most: Bound) -> (Bound, Bound) {
    let (Some((low, low_open)), Some((high, high_open))) = (least, most) else { return (least, most) };
    let near = |whole: f64, other: f64| whole.fract() == 0.0 && (whole - other).abs() < 1.0 && whole != other;
    if low_open && low >= 0.0 && near(low, high) {
        return (Some((next(low, high), false)), most);
    }
    if high_open && high <= 0.0 && near(high, low) {
        return (least, Some((-next(-high, -low), false)));
    }
    (least, most)
}

/// The number after `bound`, which is 0 or more, on the way to `other`.
fn next(bound: f64, other: f64) -> f64 {
    if bound > 0.0 {
        return bound.next_up();
    }
    let exponent =
        format!("{other:e}").split_once('e').and_then(|(_, exponent)| exponent.parse::<i32>().ok());
    format!("1e{}", exponent.unwrap_or(0).saturating_sub(PLACES)).parse().unwrap_or(other)
}

/// `bound` with fewer digits after the point, but at least one.
fn cut(bound: f64) -> Vec<f64> {
    let text = bound.to_string();
    let Some(point) = text.find('.') else { return Vec::new() };
    let mut cuts: Vec<f64> = (point + 2..text.len())
        .filter_map(|end| text[..end].parse().ok())
        .filter(|&cut| cut != 0.0)
        .collect();
    // Some end in zeros.
    cuts.dedup();
    cuts
}

fn range(least: Bound, most: Bound, multiple: Option<&Value>) -> Value {
    let mut range = Map::new();
    range.insert("type".to_owned(), "number".into());
    for (bound, inclusive, exclusive) in
        [(least, "minimum", "exclusiveMinimum"), (most, "maximum", "exclusiveMaximum")]
    {
        if let Some((bound, open)) = bound {
            range.insert(if open { exclusive } else { inclusive }.to_owned(), bound.into());
        }
    }
    range.extend(multiple.map(|multiple| ("multipleOf".to_owned(), multiple.clone())));
    Value::Object(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(schema: Value) -> Result<Value, (&'static str, String)> {
        let Value::Object(mut object) = schema else { return Ok(schema) };
        split(&mut object).map(|()| object.into())
    }

    #[test]
    fn bounds_are_ranges() {
        for (schema, expected) in [
            (json!({"type": "number", "maximum": 1.8}), json!({"type": "number", "maximum": 1.8})),
            (json!({"type": "integer", "maximum": 1.85}), json!({"type": "integer", "maximum": 1.85})),
            (json!({"exclusiveMinimum": 0, "maximum": 1}), json!({"exclusiveMinimum": 0, "maximum": 1})),
            (
                json!({"type": "number", "minimum": 0, "maximum": 1.85}),
                json!({"anyOf": [
                    {"type": "number", "minimum": 0.0, "maximum": 1.8}, {"type": "number", "minimum": 1.8, "maximum": 1.85}
                ]}),
            ),
            (
                json!({"type": ["number", "string"], "exclusiveMinimum": 0, "maximum": 0.5, "minLength": 1}),
                json!({"anyOf": [
                    {"type": "number", "minimum": 1e-17, "maximum": 0.5}, {"type": ["string"], "minLength": 1}
                ]}),
            ),
            (
                json!({"type": "number", "minimum": -2.5, "exclusiveMaximum": -2, "multipleOf": 0.5, "enum": [-2.5]}),
                json!({"enum": [-2.5], "allOf": [{"anyOf": [
                    {"type": "number", "minimum": -2.5, "maximum": -2.000_000_000_000_000_4, "multipleOf": 0.5}
                ]}]}),
            ),
        ] {
            assert_eq!(read(schema), Ok(expected));
        }
        let (keyword, reason) = read(json!({"maximum": 1e-300})).expect_err("refused");
        assert!(keyword == "maximum" && reason.contains("found 300"), "{reason}");
    }
}
