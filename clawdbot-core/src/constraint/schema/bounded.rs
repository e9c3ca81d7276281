//! Bounds for numbers that have none: what every reader of JSON can hold.

use serde_json::{Value, json};

/// Whole numbers up to this are exact in floating point.
const LARGEST: i64 = 1 << 53;
/// Keywords whose values are no schemas.
const VALUES: [&str; 2] = ["const", "enum"];
/// Keywords that bound numbers.
const BOUNDS: [(&str, &str, i64); 2] =
    [("minimum", "exclusiveMinimum", -LARGEST), ("maximum", "exclusiveMaximum", LARGEST)];

/// Gives `schema`, which was read, bounds where it has a number's type and no bounds: numbers without them may have exponents and
/// any count of digits.
pub(in crate::constraint) fn bound_numbers(schema: &mut Value) {
    match schema {
        Value::Array(list) => list.iter_mut().for_each(bound_numbers),
        Value::Object(object) => {
            let number = |name: &Value| matches!(name.as_str(), Some("number" | "integer"));
            let numbers = match object.get("type") {
                Some(Value::Array(names)) => names.iter().any(number),
                Some(name) => number(name),
                None => false,
            };
            if numbers && !VALUES.iter().any(|key| object.contains_key(*key)) {
                for (key, other, bound) in BOUNDS {
                    if !object.contains_key(key) && !object.contains_key(other) {
                        object.insert(key.to_owned(), json!(bound));
                    }
                }
            }
            for (_, inner) in object.iter_mut().filter(|(key, _)| !VALUES.contains(&key.as_str())) {
                bound_numbers(inner);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_get_the_bounds_that_they_lack() {
        let mut schema = json!({
            "properties": {"type": {"type": ["integer", "null"]}, "a": {"type": "number", "minimum": 3}, "b": {"type": "string"}},
            "const": {"type": "number"},
        });
        bound_numbers(&mut schema);
        let bound = 1_i64 << 53;
        assert_eq!(
            schema["properties"]["type"],
            json!({"type": ["integer", "null"], "minimum": -bound, "maximum": bound})
        );
        assert_eq!(schema["properties"]["a"], json!({"type": "number", "minimum": 3, "maximum": bound}));
        assert_eq!(schema["properties"]["b"], json!({"type": "string"}));
        assert_eq!(schema["const"], json!({"type": "number"}));
    }
}
