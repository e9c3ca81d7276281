//! Random schemas with random values: a constraint accepts what a validator of a few lines accepts.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::tests::{schema as constraint, vocabulary};
use super::{Constraint, ConstraintSpec};

/// A generator of whole numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn text(&mut self) -> String {
        (0..self.below(5))
            .map(|_| ["a", "b", "\"", "\\", "é", "\n", "{", " "][self.below(8) as usize])
            .collect()
    }
}

fn schema(random: &mut Random, depth: u64) -> Value {
    match random.below(if depth == 0 { 5 } else { 8 }) {
        0 => json!({"type": ["null", "boolean"]}),
        1 => {
            let least = random.below(200) as i64 - 100;
            json!({"type": "integer", "minimum": least, "maximum": least + random.below(30) as i64})
        }
        2 => {
            let least = random.below(3);
            json!({"type": "string", "minLength": least, "maxLength": least + random.below(3)})
        }
        3 => json!({"enum": [random.text(), random.below(20), null, [random.below(3)]]}),
        4 => json!({"type": "string", "pattern": "^a*b?$"}),
        5 => {
            let least = random.below(3);
            json!({"type": "array", "items": schema(random, depth - 1), "minItems": least,
                "maxItems": least + random.below(3)})
        }
        6 => {
            let properties = ["a", "b\"", "c d"].map(|name| (name.to_owned(), schema(random, depth - 1)));
            let required: Vec<&str> =
                ["a", "b\"", "c d"].into_iter().filter(|_| random.below(2) == 0).collect();
            json!({"type": "object", "properties": Map::from_iter(properties), "required": required,
                "additionalProperties": false})
        }
        _ => json!({"anyOf": [schema(random, depth - 1), schema(random, depth - 1)]}),
    }
}

/// A value that is often an instance of `schema`.
fn value(random: &mut Random, schema: &Value) -> Value {
    if random.below(12) == 0 {
        return [json!(null), json!(true), json!(7), json!("ab"), json!([]), json!({}), json!([1])]
            [random.below(7) as usize]
            .clone();
    }
    if let Some(any) = schema["anyOf"].as_array() {
        let of = random.below(2) as usize;
        return value(random, &any[of]);
    }
    if let Some(list) = schema["enum"].as_array() {
        return list[random.below(list.len() as u64) as usize].clone();
    }
    match schema["type"].as_str() {
        Some("integer") => json!(schema["minimum"].as_i64().unwrap_or(0) + random.below(30) as i64),
        Some("string") if schema.get("pattern").is_some() => {
            json!("a".repeat(random.below(3) as usize) + "b")
        }
        Some("string") => json!(random.text()),
        Some("array") => (0..random.below(5)).map(|_| value(random, &schema["items"])).collect(),
        Some("object") => {
            let properties = schema["properties"].as_object().expect("an object");
            let some = properties.iter().filter(|_| random.below(4) > 0).collect::<Vec<_>>();
            Value::Object(
                some.into_iter().map(|(name, schema)| (name.clone(), value(random, schema))).collect(),
            )
        }
        _ => [json!(null), json!(false)][random.below(2) as usize].clone(),
    }
}

/// Whether `value` is an instance of `schema`, of the kinds above.
fn valid(schema: &Value, value: &Value) -> bool {
    if let Some(any) = schema["anyOf"].as_array() {
        return any.iter().any(|schema| valid(schema, value));
    }
    if let Some(list) = schema["enum"].as_array() {
        return list.contains(value);
    }
    let within = |count: usize, least: &str, most: &str| {
        let bound = |key: &str| schema.get(key).and_then(Value::as_u64).map(|bound| bound as usize);
        bound(least).is_none_or(|least| count >= least) && bound(most).is_none_or(|most| count <= most)
    };
    match (schema["type"].as_str(), value) {
        (Some("integer"), Value::Number(number)) => number.as_i64().is_some_and(|number| {
            schema["minimum"].as_i64().is_some_and(|least| number >= least)
                && schema["maximum"].as_i64().is_some_and(|most| number <= most)
        }),
        (Some("string"), Value::String(text)) if schema.get("pattern").is_some() => {
            text.strip_suffix('b').unwrap_or(text).bytes().all(|byte| byte == b'a')
        }
        (Some("string"), Value::String(text)) => within(text.chars().count(), "minLength", "maxLength"),
        (Some("array"), Value::Array(items)) => {
            within(items.len(), "minItems", "maxItems")
                && items.iter().all(|item| valid(&schema["items"], item))
        }
        (Some("object"), Value::Object(object)) => {
            let required = schema["required"].as_array().expect("a list");
            required.iter().all(|name| object.contains_key(name.as_str().expect("a name")))
                && object
                    .iter()
                    .all(|(name, value)| schema["properties"].get(name).is_some_and(|of| valid(of, value)))
        }
        (None, value) => value.is_null() || value.is_boolean(),
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_constraint_accepts_instances_alone(seed in any::<u64>()) {
        let mut random = Random(seed);
        let schema = schema(&mut random, 3);
        let Ok(constraint) = Constraint::with(&vocabulary(), &ConstraintSpec::JsonSchema(schema.clone())) else {
            return Ok(());
        };
        for _ in 0..8 {
            let value = value(&mut random, &schema);
            let expected = valid(&schema, &value);
            for text in [value.to_string(), serde_json::to_string_pretty(&value).expect("JSON")] {
                prop_assert_eq!(constraint.accepts(&text).expect("runs"), expected, "{}: {}", schema, text);
                if expected {
                    prop_assert_eq!(constraint.forbidden_at(&text).expect("runs"), None);
                }
            }
        }
    }
}

#[test]
fn the_generator_makes_both() {
    let mut random = Random(1);
    let mut found = [0, 0];
    for _ in 0..200 {
        let schema = schema(&mut random, 2);
        let value = value(&mut random, &schema);
        found[usize::from(valid(&schema, &value))] += 1;
    }
    assert!(found.iter().all(|&count| count > 30), "{found:?}");
    assert!(constraint(json!({"type": "null"})).accepts("null").expect("runs"));
}

/// Twentieths as a decimal number.
fn decimal(twentieths: i64) -> Value {
    serde_json::from_str(&decimal_text(twentieths)).expect("a number")
}

fn decimal_text(twentieths: i64) -> String {
    let (sign, size) = (if twentieths < 0 { "-" } else { "" }, twentieths.abs() * 5);
    match (size / 100, size % 100) {
        (whole, 0) => format!("{sign}{whole}"),
        (whole, rest) => format!("{sign}{whole}.{}", format!("{rest:02}").trim_end_matches('0')),
    }
}

#[test]
fn numbers_are_within_their_bounds() {
    let vocabulary = vocabulary();
    let mut random = Random(3);
    for round in 0..400 {
        let (least, size) = (random.below(90) as i64 - 45, 1 + random.below(30) as i64);
        let (least, size) = if round % 4 == 0 { (least / 20 * 20, size) } else { (least, size) };
        let most = least + size;
        let (open, shut) = (round % 2 == 0, round % 3 == 0);
        let keys = [
            ["minimum", "exclusiveMinimum"][usize::from(open)],
            ["maximum", "exclusiveMaximum"][usize::from(shut)],
        ];
        let schema = json!({"type": "number", keys[0]: decimal(least), keys[1]: decimal(most)});
        let constraint =
            Constraint::with(&vocabulary, &ConstraintSpec::JsonSchema(schema.clone())).expect("compiles");
        for value in least - 21..=most + 21 {
            let valid = value >= least + i64::from(open) && value <= most - i64::from(shut);
            let text = decimal_text(value);
            assert_eq!(constraint.accepts(&text).expect("runs"), valid, "{schema}: {text}");
        }
        let zero = least + i64::from(open) <= 0 && most - i64::from(shut) >= 0;
        assert!(zero || !constraint.accepts("-0").expect("runs"), "{schema}: -0");
    }
    for (schema, valid, invalid) in [
        (json!({"exclusiveMinimum": 0, "maximum": 1e-20}), "0.00000000000000000001", "0"),
        (json!({"exclusiveMinimum": 0, "maximum": 0.5}), "\"a\"", "0"),
        (json!({"type": ["number", "null"], "minimum": -0.5, "exclusiveMaximum": 0}), "null", "-0"),
    ] {
        let constraint = constraint(schema);
        assert!(
            constraint.accepts(valid).expect("runs") && !constraint.accepts(invalid).expect("runs"),
            "{invalid}"
        );
    }
}
