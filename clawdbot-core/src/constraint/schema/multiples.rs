//! `multipleOf`, as far as the parser's crate can enforce it: its automaton has a state for each remainder.

use serde_json::{Map, Value, json};

/// Largest divisor, in units of its last decimal place. Beyond it a mask may take minutes.
const MAX_DIVISOR: f64 = 512.0;
/// Most multiples that are written out instead.
const MAX_VALUES: f64 = 1000.0;
/// Most decimal places that the parser's crate takes.
const MAX_PLACES: i32 = 9;

/// Writes integers between bounds as a list where the divisor of `object`, whose keywords were read, is large.
///
/// # Errors
/// What was expected and found, for a large divisor without bounds.
pub(super) fn enumerate(object: &mut Map<String, Value>) -> Result<(), String> {
    let number = |keyword: &str| object.get(keyword).and_then(Value::as_f64);
    let Some(divisor) = number("multipleOf") else { return Ok(()) };
    let scaled = (0..=MAX_PLACES).map(|places| divisor * 10_f64.powi(places));
    let units = scaled.into_iter().find(|units| (units - units.round()).abs() <= 1e-9 * units);
    // What has more places is refused by the parser's crate.
    let Some(units) = units.map(f64::round).filter(|units| *units > MAX_DIVISOR) else { return Ok(()) };
    let first = |keyword: &str, open: &str| {
        let closed = number(keyword).map(|bound| (bound / divisor).ceil());
        let open = number(open).map(|bound| (bound / divisor).floor() + 1.0);
        [closed, open].into_iter().flatten().reduce(f64::max)
    };
    let last = |keyword: &str, open: &str| {
        let closed = number(keyword).map(|bound| (bound / divisor).floor());
        let open = number(open).map(|bound| (bound / divisor).ceil() - 1.0);
        [closed, open].into_iter().flatten().reduce(f64::min)
    };
    let range = first("minimum", "exclusiveMinimum").zip(last("maximum", "exclusiveMaximum"));
    let range = range.filter(|(first, last)| last - first < MAX_VALUES);
    let whole = divisor.fract() == 0.0 && object.get("type").is_some_and(|kind| kind == "integer");
    let Some((first, last)) = range.filter(|_| whole) else {
        return Err(format!(
            "expected at most {MAX_DIVISOR} units of its last decimal place, or the type integer and bounds with at most \
             {MAX_VALUES} multiples between them, found {units} units"
        ));
    };
    if first > last {
        return Err("expected bounds with a multiple between them, found none".to_owned());
    }
    // All are at most 2^53.
    #[allow(clippy::cast_possible_truncation, reason = "bounded above")]
    let (divisor, first, last) = (divisor as i64, first as i64, last as i64);
    let values: Vec<i64> = (first..=last).map(|number| number * divisor).collect();
    for keyword in ["multipleOf", "minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"] {
        object.remove(keyword);
    }
    match object.entry("allOf").or_insert_with(|| json!([])) {
        Value::Array(all) => all.push(json!({"enum": values})),
        _ => debug_assert!(false, "allOf was read"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(schema: Value) -> Result<Value, String> {
        let Value::Object(mut object) = schema else { panic!("an object") };
        enumerate(&mut object).map(|()| object.into())
    }

    #[test]
    fn large_divisors_are_lists() {
        for (schema, values) in [
            (json!({"minimum": 0, "maximum": 3000}), vec![0, 1000, 2000, 3000]),
            (json!({"minimum": 1, "maximum": 2999}), vec![1000, 2000]),
            (json!({"exclusiveMinimum": 0, "exclusiveMaximum": 3000}), vec![1000, 2000]),
            (json!({"exclusiveMinimum": -1000.5, "minimum": -5000, "maximum": 999.5}), vec![-1000, 0]),
        ] {
            let mut with = schema.clone();
            with["type"] = json!("integer");
            with["multipleOf"] = json!(1000);
            let expected = json!({"type": "integer", "allOf": [{"enum": values}]});
            assert_eq!(read(with).unwrap(), expected, "{schema}");
        }
        let other =
            json!({"type": "integer", "multipleOf": 600, "minimum": 5, "maximum": 700, "allOf": [{}]});
        assert_eq!(read(other).unwrap()["allOf"], json!([{}, {"enum": [600]}]));
    }

    #[test]
    fn what_the_parser_enforces_stays() {
        for divisor in
            [json!(1), json!(512), json!(0.01), json!(51.2), json!(1e-9), json!(2.5e-7), json!(1e-12)]
        {
            let schema = json!({"multipleOf": divisor, "type": "number"});
            assert_eq!(read(schema.clone()), Ok(schema));
        }
    }

    #[test]
    fn other_large_divisors_are_refused() {
        let bounds = json!({"multipleOf": 1000, "minimum": 0, "maximum": 5000, "type": "integer"});
        for (keyword, value) in [
            ("multipleOf", json!(1000.5)),
            ("maximum", json!(1_000_001)),
            ("maximum", Value::Null),
            ("minimum", Value::Null),
            ("type", json!("number")),
            ("type", json!(["integer", "null"])),
        ] {
            let mut schema = bounds.clone();
            schema[keyword] = value;
            let error = read(schema).unwrap_err();
            assert!(error.starts_with("expected at most 512 units of its last decimal place"), "{error}");
        }
        let mut none = bounds;
        (none["minimum"], none["maximum"]) = (json!(1), json!(999));
        assert_eq!(read(none).unwrap_err(), "expected bounds with a multiple between them, found none");
    }
}
