//! Reads a schema, and what it refers to.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::draft::Draft;
use super::formats::{self, Format};
use super::keywords::{Keyword, kind};
use super::{limits, multiples, numbers, pattern, values};
use crate::error::{Error, Result};

/// The names of types.
const TYPES: [&str; 7] = ["null", "boolean", "number", "integer", "string", "array", "object"];

/// `schema` with what is enforced alone, in the keywords of draft 2020-12.
///
/// # Errors
/// `InvalidConstraint` with keyword and place for what is malformed or not enforced.
pub(in crate::constraint) fn read(schema: &Value) -> Result<Value> {
    read_at(schema, "")
}

/// An error about `keyword` at `pointer` in a schema.
pub(in crate::constraint) fn refused(pointer: &str, keyword: &str, reason: &str) -> Error {
    Place(pointer.to_owned()).refused(keyword, reason)
}

/// As [`read`], of the part of `schema` at `pointer`, which is there.
///
/// # Errors
/// As [`read`].
pub(in crate::constraint) fn read_at(schema: &Value, pointer: &str) -> Result<Value> {
    limits::check(schema)?;
    let place = Place(String::new());
    let draft = Draft::of(schema).map_err(|found| {
        place.refused("$schema", &format!("expected a draft from 4 to 2020-12, found {found:.80}"))
    })?;
    let mut reader = Reader {
        root: schema,
        draft,
        names: BTreeMap::new(),
        open: Vec::new(),
        nested_id: None,
        optional: 0,
    };
    let part = schema.pointer(pointer).unwrap_or(schema);
    let mut read = reader.schema(part, &Place(pointer.to_owned()))?;
    let mut definitions = Map::new();
    while let Some((pointer, name)) = reader.open.pop() {
        let place = Place(pointer);
        // Known to be there.
        let target = schema.pointer(&place.0).unwrap_or(&Value::Null);
        definitions.insert(name, reader.schema(target, &place)?);
    }
    if let Some(place) = reader.nested_id.filter(|_| !definitions.is_empty()) {
        return Err(place.refused("$id", "expected one at the root alone, next to references"));
    }
    match (&mut read, definitions.is_empty()) {
        (Value::Object(object), false) => {
            object.insert("$defs".to_owned(), Value::Object(definitions));
            Ok(read)
        }
        (Value::Bool(false), _) => {
            let message = "option json_schema: expected a schema that some value satisfies, found false";
            Err(Error::invalid_constraint(message).with("option", "json_schema"))
        }
        _ => Ok(read),
    }
}

/// A place in the schema: a JSON pointer (RFC 6901).
#[derive(Clone)]
struct Place(String);

impl Place {
    fn at(&self, key: impl std::fmt::Display) -> Self {
        let key = key.to_string().replace('~', "~0").replace('/', "~1");
        Place(format!("{}/{key}", self.0))
    }

    fn refused(&self, keyword: &str, reason: &str) -> Error {
        Error::invalid_constraint(format!("option json_schema: {keyword} at \"#{}\": {reason}", self.0))
            .with("option", "json_schema")
            .with("keyword", keyword)
            .with("place", format!("#{}", self.0))
    }
}

struct Reader<'a> {
    root: &'a Value,
    draft: Draft,
    /// Names of what is referred to, by pointers.
    names: BTreeMap<String, String>,
    /// Pointers and names of what is referred to and not read yet.
    open: Vec<(String, String)>,
    /// A place other than the root with an id, which changes what references mean.
    nested_id: Option<Place>,
    /// Properties so far that may be left out.
    optional: usize,
}

impl Reader<'_> {
    fn schema(&mut self, schema: &Value, place: &Place) -> Result<Value> {
        let object = match schema {
            Value::Bool(_) => return Ok(schema.clone()),
            Value::Object(object) => object,
            other => {
                let found = values::kind(other);
                return Err(
                    place.refused("a schema", &format!("expected an object, true or false, found {found}"))
                );
            }
        };
        // Schemas that must hold too.
        let (mut out, mut more) = (Map::new(), Vec::new());
        for (keyword, value) in object {
            let refused = |reason: String| place.refused(keyword, &reason);
            match kind(keyword) {
                Err(reason) => return Err(refused(reason)),
                Ok(Keyword::Annotation) => {}
                Ok(_) if object.contains_key("$ref") && self.draft <= Draft::Seven && keyword != "$ref" => {
                    if !matches!(keyword.as_str(), "$schema" | "$id" | "id") {
                        return Err(refused(
                            "expected nothing next to $ref, where the draft ignores it".into(),
                        ));
                    }
                }
                Ok(Keyword::Schema) => {
                    let schema = self.schema(value, &place.at(keyword))?;
                    out.insert(keyword.clone(), schema);
                }
                Ok(Keyword::Schemas) => {
                    let schemas = self.schemas(value, keyword, place)?;
                    if schemas.is_empty() {
                        return Err(refused("expected at least one schema, found none".into()));
                    }
                    out.insert(keyword.clone(), schemas.into());
                }
                Ok(Keyword::Properties) => {
                    self.count_optional(object, place)?;
                    let properties = self.properties(value, keyword, place, |name| {
                        values::writable(name).map(|()| name.to_owned())
                    })?;
                    out.insert(keyword.clone(), properties);
                }
                Ok(Keyword::Patterns) => {
                    let properties = self.properties(value, keyword, place, pattern::translated)?;
                    out.insert(keyword.clone(), properties);
                }
                Ok(Keyword::Count) => {
                    out.insert(keyword.clone(), values::count(value).map_err(refused)?.into());
                }
                Ok(Keyword::Number) => {
                    out.insert(keyword.clone(), values::number(value).map_err(refused)?);
                }
                Ok(Keyword::Special) => self.special(keyword, object, place, (&mut out, &mut more))?,
            }
        }
        match out.get_mut("allOf").and_then(Value::as_array_mut) {
            Some(schemas) => schemas.append(&mut more),
            None if more.is_empty() => {}
            None => {
                out.insert("allOf".to_owned(), more.into());
            }
        }
        if out.get("multipleOf").is_some_and(|of| of.as_f64().is_none_or(|of| of <= 0.0)) {
            return Err(place.refused("multipleOf", "expected a number above 0"));
        }
        multiples::enumerate(&mut out).map_err(|reason| place.refused("multipleOf", &reason))?;
        numbers::split(&mut out).map_err(|(keyword, reason)| place.refused(keyword, &reason))?;
        Ok(Value::Object(out))
    }

    /// Refuses too many properties that may be left out, early: it takes long to compile them.
    fn count_optional(&mut self, object: &Map<String, Value>, place: &Place) -> Result<()> {
        let count = |key: &str| match object.get(key) {
            Some(Value::Object(of)) => of.len(),
            Some(Value::Array(of)) => of.len(),
            _ => 0,
        };
        let here = count("properties").saturating_sub(count("required"));
        self.optional += here;
        if here <= limits::MAX_OPTIONAL && self.optional <= limits::MAX_ALL_OPTIONAL {
            return Ok(());
        }
        let (most, all) = (limits::MAX_OPTIONAL, limits::MAX_ALL_OPTIONAL);
        let reason = format!(
            "expected at most {most} properties that are not required, {all} in all, found {here}, {} in all",
            self.optional
        );
        Err(place.refused("properties", &reason))
    }

    fn schemas(&mut self, value: &Value, keyword: &str, place: &Place) -> Result<Vec<Value>> {
        let place = place.at(keyword);
        let Some(schemas) = value.as_array() else {
            return Err(place.refused(keyword, &format!("expected a list, found {}", values::kind(value))));
        };
        schemas.iter().enumerate().map(|(at, schema)| self.schema(schema, &place.at(at))).collect()
    }

    fn properties(
        &mut self,
        value: &Value,
        keyword: &str,
        place: &Place,
        name: impl Fn(&str) -> Result<String, String>,
    ) -> Result<Value> {
        let Some(properties) = value.as_object() else {
            return Err(place.refused(keyword, &format!("expected an object, found {}", values::kind(value))));
        };
        let mut read = Map::new();
        for (key, schema) in properties {
            let name = name(key).map_err(|reason| place.refused(keyword, &reason))?;
            read.insert(name, self.schema(schema, &place.at(keyword).at(key))?);
        }
        Ok(Value::Object(read))
    }

    fn special(
        &mut self,
        keyword: &str,
        object: &Map<String, Value>,
        place: &Place,
        (out, more): (&mut Map<String, Value>, &mut Vec<Value>),
    ) -> Result<()> {
        let refused = |reason: String| place.refused(keyword, &reason);
        let value = &object[keyword];
        let mut put = |value: Value| {
            out.insert(keyword.to_owned(), value);
        };
        match keyword {
            "$schema" if place.0.is_empty() => {}
            "$schema" => return Err(refused("expected it at the root alone".into())),
            "$id" | "id" => {
                if !place.0.is_empty() && !value.as_str().is_some_and(|id| id.starts_with('#')) {
                    self.nested_id = Some(place.clone());
                }
            }
            "$ref" => put(self.reference(value).map_err(refused)?.into()),
            "type" => {
                let names = match value {
                    Value::Array(names) if !names.is_empty() => names.clone(),
                    other => vec![other.clone()],
                };
                let unknown =
                    names.iter().find(|name| !name.as_str().is_some_and(|name| TYPES.contains(&name)));
                if let Some(unknown) = unknown {
                    return Err(refused(format!(
                        "expected names of types ({}), found {unknown:.80}",
                        TYPES.join(", ")
                    )));
                }
                put(value.clone());
            }
            "const" => put(values::written(value).map_err(refused)?),
            "enum" => {
                let list = value.as_array().filter(|list| !list.is_empty());
                let list = list.ok_or_else(|| refused("expected a list of at least one value".into()))?;
                let list: Result<Vec<Value>, String> = list.iter().map(values::written).collect();
                put(list.map_err(refused)?.into());
            }
            "exclusiveMaximum" | "exclusiveMinimum" => match (value, self.draft) {
                (Value::Bool(false), Draft::Four) => {}
                (Value::Bool(true), Draft::Four) => {
                    let bound = if keyword == "exclusiveMaximum" { "maximum" } else { "minimum" };
                    let bound =
                        object.get(bound).ok_or_else(|| refused(format!("expected {bound} next to it")))?;
                    put(values::number(bound).map_err(refused)?);
                }
                _ => put(values::number(value).map_err(refused)?),
            },
            "format" => {
                let name = value.as_str().unwrap_or_default();
                let format = formats::find(name).ok_or_else(|| {
                    refused(format!(
                        "expected a format that is enforced ({}), found {value:.80}",
                        formats::names()
                    ))
                })?;
                match format {
                    Format::Known => put(value.clone()),
                    // A pattern may be there too.
                    Format::Pattern(pattern) => more.push(json!({"pattern": pattern})),
                }
            }
            "pattern" => {
                let text = value.as_str().ok_or_else(|| refused("expected a text".into()))?;
                put(pattern::translated(text).map_err(refused)?.into());
            }
            "required" => {
                let names = value.as_array().filter(|names| names.iter().all(Value::is_string));
                let names = names.ok_or_else(|| refused("expected a list of names".into()))?;
                for name in names.iter().filter_map(Value::as_str) {
                    values::writable(name).map_err(refused)?;
                }
                put(value.clone());
            }
            "minProperties" => {
                let least = values::count(value).map_err(refused)?;
                let required = object.get("required").and_then(Value::as_array).map_or(0, Vec::len) as u64;
                // Names that are not in the schema could be written twice, so more than one cannot be counted.
                if least > required.saturating_add(1) {
                    return Err(refused(
                        "expected at most one more than there are required properties".into(),
                    ));
                }
                if least > required {
                    put(least.into());
                }
            }
            "uniqueItems" => {
                let few = object.get("maxItems").and_then(Value::as_u64).is_some_and(|most| most <= 1);
                if value != &Value::Bool(false) && !few {
                    return Err(refused("expected a keyword that is enforced".into()));
                }
            }
            "items" => match value {
                Value::Array(_) if self.draft <= Draft::Of2019 => {
                    let items = self.schemas(value, keyword, place)?;
                    out.insert("prefixItems".to_owned(), items.into());
                    if let Some(more) = object.get("additionalItems") {
                        let more = self.schema(more, &place.at("additionalItems"))?;
                        out.insert("items".to_owned(), more);
                    }
                }
                _ => put(self.schema(value, &place.at(keyword))?),
            },
            // Read with `items`; without a list there, drafts ignore it.
            "additionalItems" if self.draft <= Draft::Of2019 => {}
            "prefixItems" if self.draft == Draft::Of2020 => put(self.schemas(value, keyword, place)?.into()),
            _ => return Err(refused("expected a keyword of the draft that $schema names".into())),
        }
        Ok(())
    }

    /// The reference to what `value` refers to, under the name that it gets.
    fn reference(&mut self, value: &Value) -> Result<String, String> {
        let reference = value.as_str().ok_or("expected a text")?;
        let id = ["$id", "id"].into_iter().find_map(|key| self.root.get(key)?.as_str()).unwrap_or_default();
        let id = id.trim_end_matches('#');
        let fragment = reference.strip_prefix(id).filter(|_| !id.is_empty()).unwrap_or(reference);
        let pointer = match fragment.strip_prefix('#') {
            Some("") => String::new(),
            Some(pointer) if pointer.starts_with('/') => unescaped(pointer),
            None if fragment.is_empty() => String::new(),
            _ => return Err(format!("expected a place in this schema (\"#/...\"), found {reference:.80?}")),
        };
        if self.root.pointer(&pointer).is_none() {
            return Err(format!("expected a place that exists, found {reference:.80?}"));
        }
        let next = format!("r{}", self.names.len());
        let name = self.names.entry(pointer.clone()).or_insert_with(|| {
            self.open.push((pointer, next.clone()));
            next
        });
        Ok(format!("#/$defs/{name}"))
    }
}

/// `pointer` without the percent signs of an address.
fn unescaped(pointer: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), pointer.as_bytes());
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits.filter(|_| byte == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match escaped {
            Some(escaped) => {
                bytes.push(escaped);
                rest = &after[2..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_enforced_is_named_with_its_place() {
        for (schema, keyword, place) in [
            (json!({"not": {}}), "not", "#"),
            (json!({"properties": {"a/b": {"uniqueItems": true}}}), "uniqueItems", "#/properties/a~1b"),
            (json!({"anyOf": [{}, {"format": "color"}]}), "format", "#/anyOf/1"),
            (json!({"items": [{}]}), "a schema", "#/items"),
            (json!({"additionalItems": {}}), "additionalItems", "#"),
            (json!({"$ref": "http://example.com/schema"}), "$ref", "#"),
            (json!({"$ref": "#name"}), "$ref", "#"),
            (json!({"$ref": "#/$defs/none"}), "$ref", "#"),
            (json!({"$schema": "http://example.com/schema"}), "$schema", "#"),
            (json!({"const": 9_007_199_254_740_993_i64}), "const", "#"),
            (json!({"const": {"a": "\u{1}"}}), "const", "#"),
            (json!({"properties": {"\u{7f}": {}}}), "properties", "#"),
            (json!({"enum": []}), "enum", "#"),
            (json!({"type": "text"}), "type", "#"),
            (json!({"minLength": -1}), "minLength", "#"),
            (json!({"multipleOf": 0}), "multipleOf", "#"),
            (json!({"minProperties": 2, "required": []}), "minProperties", "#"),
            (json!({"pattern": "(?=a)"}), "pattern", "#"),
            (json!({"allOf": []}), "allOf", "#"),
            (json!({"exclusiveMinimum": true, "minimum": 1}), "exclusiveMinimum", "#"),
            (json!([]), "a schema", "#"),
        ] {
            let error = read(&schema).expect_err("refused");
            assert_eq!(error.detail()["keyword"], keyword, "{error}");
            assert_eq!(error.detail()["place"], place, "{error}");
            let start = format!("option json_schema: {keyword} at \"{place}\": expected ");
            assert!(error.message().starts_with(&start), "{error}");
        }
    }

    #[test]
    fn siblings_of_references_are_as_the_draft_says() {
        let schema = |draft: &str| {
            json!({"$schema": draft, "properties": {"a": {"$ref": "#/definitions/b", "maxLength": 2, "title": "c"}},
                "definitions": {"b": {"type": "string"}}})
        };
        assert_eq!(
            read(&schema("https://json-schema.org/draft/2020-12/schema")).expect("enforced"),
            json!({"properties": {"a": {"$ref": "#/$defs/r0", "maxLength": 2}}, "$defs": {"r0": {"type": "string"}}})
        );
        let error = read(&schema("http://json-schema.org/draft-07/schema#")).expect_err("refused");
        assert_eq!(error.detail()["keyword"], "maxLength");
    }

    #[test]
    fn older_drafts_are_rewritten() {
        let draft = "http://json-schema.org/draft-04/schema#";
        assert_eq!(
            read(&json!({"$schema": draft, "minimum": 3, "exclusiveMinimum": true, "items": [{}, {"$ref": "#"}],
                "additionalItems": false, "minItems": 1.0, "enum": [1.0], "description": "x"}))
            .expect("enforced"),
            json!({"minimum": 3, "exclusiveMinimum": 3, "prefixItems": [{}, {"$ref": "#/$defs/r0"}], "items": false,
                "minItems": 1, "enum": [1], "$defs": {"r0": {"minimum": 3, "exclusiveMinimum": 3,
                "prefixItems": [{}, {"$ref": "#/$defs/r0"}], "items": false, "minItems": 1, "enum": [1]}}})
        );
        let format = read(&json!({"format": "date", "allOf": [{"minLength": 1}]})).expect("enforced");
        assert_eq!(format["allOf"].as_array().map(Vec::len), Some(2));
    }

    #[test]
    fn properties_are_bounded() {
        let object = |count: usize, required: usize| {
            let names: Vec<String> = (0..count).map(|at| format!("p{at}")).collect();
            let properties: Map<String, Value> = names.iter().map(|name| (name.clone(), json!({}))).collect();
            json!({"properties": properties, "required": &names[..required]})
        };
        assert!(read(&object(1025, 1)).is_ok());
        for (schema, place) in [
            (object(5000, 3000), "#"),
            (json!({"items": object(1025, 0)}), "#/items"),
            (json!({"anyOf": vec![object(1000, 0); 5]}), "#/anyOf/4"),
        ] {
            let error = read(&schema).expect_err("refused");
            assert_eq!(
                (&error.detail()["keyword"], &error.detail()["place"]),
                (&json!("properties"), &json!(place))
            );
        }
    }

    #[test]
    fn schemas_are_bounded() {
        let mut deep = json!({});
        for _ in 0..200 {
            deep = json!({ "items": deep });
        }
        let wide = json!({"enum": vec![1; limits::MAX_VALUES]});
        for schema in [deep, wide] {
            assert!(read(&schema).expect_err("refused").message().contains("found more"));
        }
    }
}
