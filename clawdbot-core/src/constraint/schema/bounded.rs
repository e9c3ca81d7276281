//! Bounds for numbers that have none: what every reader of JSON can hold.

use serde_json::{Map, Value, json};

/// Whole numbers up to this are exact in floating point.
const LARGEST: i64 = 1 << 53;
/// Keywords whose values are no schemas.
const VALUES: [&str; 2] = ["const", "enum"];
/// Keywords that bound numbers.
const BOUNDS: [(&str, &str, i64); 2] =
    [("minimum", "exclusiveMinimum", -LARGEST), ("maximum", "exclusiveMaximum", LARGEST)];
/// Keywords whose schemas hold in the same place.
const HERE: [&str; 4] = ["allOf", "anyOf", "oneOf", "$ref"];
/// Keywords whose values are schemas by names.
const NAMED: [&str; 3] = ["properties", "patternProperties", "$defs"];
/// The types of values; whole numbers are numbers.
const TYPES: [&str; 6] = ["null", "boolean", "number", "string", "array", "object"];
/// The name of the schema of any value, which no schema that was read has.
const ANY: &str = "any";

/// Gives `schema`, which was read, bounds where a value may be a number without bounds: those may have exponents, and any count of
/// digits. Values that it says nothing of are bounded too, unless several schemas hold for one value.
pub(in crate::constraint) fn bound_numbers(schema: &mut Value) {
    if schema == &Value::Bool(true) {
        *schema = json!({});
    }
    let mut bounds = Bounds { any: !refers_and_more(schema), used: false };
    bounds.schema(schema, false);
    if let Value::Object(object) = schema
        && bounds.used
    {
        let any = json!({
            "type": TYPES, "minimum": -LARGEST, "maximum": LARGEST, "items": of_any(), "additionalProperties": of_any(),
        });
        let defs = object.entry("$defs").or_insert_with(|| json!({}));
        if let Value::Object(defs) = defs {
            defs.insert(ANY.to_owned(), any);
        }
    }
}

fn reference() -> String {
    format!("#/$defs/{ANY}")
}

fn of_any() -> Value {
    json!({"$ref": reference()})
}

/// Whether a reference has keywords next to it, so that what it refers to meets other schemas.
fn refers_and_more(schema: &Value) -> bool {
    match schema {
        Value::Array(list) => list.iter().any(refers_and_more),
        Value::Object(object) => {
            let more = object.keys().filter(|key| *key != "$defs").count() > 1;
            (more && object.get("$ref").is_some_and(Value::is_string)) || object.values().any(refers_and_more)
        }
        _ => false,
    }
}

struct Bounds {
    /// Whether values that a schema says nothing of are bounded.
    any: bool,
    /// Whether there are some.
    used: bool,
}

impl Bounds {
    /// `met`: whether another schema holds for the same value.
    fn schema(&mut self, schema: &mut Value, met: bool) {
        let Value::Object(object) = schema else {
            if schema == &Value::Bool(true) && !met && self.any {
                self.used = true;
                *schema = of_any();
            }
            return;
        };
        let here = HERE.iter().filter(|key| object.contains_key(**key)).count();
        let others = object.keys().filter(|key| *key != "$defs").count() > 1;
        let several = object.get("allOf").and_then(Value::as_array).is_some_and(|all| all.len() > 1);
        let met = met || (here > 0 && others) || several;
        for (key, inner) in object.iter_mut() {
            match inner {
                Value::Object(named) if NAMED.contains(&key.as_str()) => {
                    named.values_mut().for_each(|schema| self.schema(schema, met && key != "$defs"));
                }
                Value::Array(list) if !VALUES.contains(&key.as_str()) => {
                    list.iter_mut().for_each(|schema| self.schema(schema, met));
                }
                _ if VALUES.contains(&key.as_str()) || key == "$ref" => {}
                // Next to other names, it stands for additional properties.
                Value::Bool(_) | Value::Object(_) => self.schema(inner, met),
                _ => {}
            }
        }
        if here == 0 && !VALUES.iter().any(|key| object.contains_key(*key)) {
            self.values(object, met);
        }
    }

    /// Bounds what `object`, which is no combination of schemas, leaves open.
    fn values(&mut self, object: &mut Map<String, Value>, met: bool) {
        if object.keys().all(|key| key == "$defs") {
            if !met && self.any {
                self.used = true;
                object.insert("$ref".to_owned(), reference().into());
            }
            return;
        }
        let may_be = |names: &[&str]| {
            let among = |name: &Value| name.as_str().is_some_and(|name| names.contains(&name));
            match object.get("type") {
                Some(Value::Array(types)) => types.iter().any(among),
                Some(name) => among(name),
                None => true,
            }
        };
        let (numbers, lists, objects) =
            (may_be(&["number", "integer"]), may_be(&["array"]), may_be(&["object"]));
        if numbers {
            for (key, other, bound) in BOUNDS {
                if !object.contains_key(key) && !object.contains_key(other) {
                    object.insert(key.to_owned(), json!(bound));
                }
            }
        }
        if met || !self.any {
            return;
        }
        object.entry("type").or_insert_with(|| json!(TYPES));
        for (may_be, key) in [(lists, "items"), (objects, "additionalProperties")] {
            if may_be && !object.contains_key(key) {
                self.used = true;
                object.insert(key.to_owned(), of_any());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounded(mut schema: Value) -> Value {
        bound_numbers(&mut schema);
        schema
    }

    #[test]
    fn numbers_get_the_bounds_that_they_lack() {
        let bound = 1_i64 << 53;
        let schema = bounded(json!({
            "type": "object", "additionalProperties": false, "properties": {
                "type": {"type": ["integer", "null"]}, "a": {"type": "number", "minimum": 3}, "b": {"type": "string"},
                "const": {"const": {"type": "number"}},
            },
        }));
        let properties = &schema["properties"];
        assert_eq!(
            properties["type"],
            json!({"type": ["integer", "null"], "minimum": -bound, "maximum": bound})
        );
        assert_eq!(properties["a"], json!({"type": "number", "minimum": 3, "maximum": bound}));
        assert_eq!(properties["b"], json!({"type": "string"}));
        assert_eq!(properties["const"], json!({"const": {"type": "number"}}));
        assert!(schema.get("$defs").is_none());
    }

    #[test]
    fn values_of_any_kind_are_bounded_where_one_schema_holds() {
        let any = of_any();
        for (schema, expected) in [
            (json!({"type": "array"}), json!({"type": "array", "items": any})),
            (
                json!({"type": "object", "additionalProperties": true}),
                json!({"type": "object", "additionalProperties": any}),
            ),
            (json!({}), any.clone()),
            (
                json!({"anyOf": [{"type": "string"}, {"type": "array", "items": true}]}),
                json!({"anyOf": [{"type": "string"}, {"type": "array", "items": any}]}),
            ),
        ] {
            let mut found = bounded(schema);
            let defs = found.as_object_mut().expect("an object").remove("$defs").expect("definitions");
            assert_eq!(found, expected);
            assert!(defs[ANY]["maximum"].is_i64() && defs[ANY]["items"] == any, "{defs}");
        }
        for schema in [
            json!({"type": "object", "anyOf": [{"required": ["a"]}, {"properties": {"b": true}}]}),
            json!({"type": "array", "items": {"$ref": "#/$defs/r0", "type": "object"}, "$defs": {"r0": {"type": "object"}}}),
        ] {
            assert!(bounded(schema.clone())["$defs"].get(ANY).is_none(), "{schema}");
        }
    }
}
