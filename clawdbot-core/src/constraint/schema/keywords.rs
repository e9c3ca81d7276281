//! The keywords of JSON Schema.

use crate::suggest::{closest, hint};

/// What is done with a keyword.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keyword {
    /// It says nothing about which instances are valid.
    Annotation,
    /// Its value is a schema: `additionalProperties`.
    Schema,
    /// Its value is a list of schemas: `anyOf`.
    Schemas,
    /// Its value is an object of schemas, by names of properties: `properties`.
    Properties,
    /// Its value is an object of schemas, by patterns.
    Patterns,
    /// Its value is a whole number, 0 or more: `minLength`.
    Count,
    /// Its value is a number: `multipleOf`.
    Number,
    /// Read by a function of its own.
    Special,
}

/// Keywords with their kinds.
const KEYWORDS: &[(&str, Keyword)] = &[
    ("$anchor", Keyword::Annotation),
    ("$comment", Keyword::Annotation),
    ("$defs", Keyword::Annotation),
    ("$dynamicAnchor", Keyword::Annotation),
    ("$recursiveAnchor", Keyword::Annotation),
    ("contentEncoding", Keyword::Annotation),
    ("contentMediaType", Keyword::Annotation),
    ("contentSchema", Keyword::Annotation),
    ("default", Keyword::Annotation),
    ("defaultSnippets", Keyword::Annotation),
    ("definitions", Keyword::Annotation),
    ("deprecated", Keyword::Annotation),
    ("deprecationMessage", Keyword::Annotation),
    ("description", Keyword::Annotation),
    ("enumDescriptions", Keyword::Annotation),
    ("enumNames", Keyword::Annotation),
    ("example", Keyword::Annotation),
    ("examples", Keyword::Annotation),
    ("markdownDescription", Keyword::Annotation),
    ("markdownEnumDescriptions", Keyword::Annotation),
    ("propertyOrder", Keyword::Annotation),
    ("readOnly", Keyword::Annotation),
    ("title", Keyword::Annotation),
    ("writeOnly", Keyword::Annotation),
    ("additionalProperties", Keyword::Schema),
    ("allOf", Keyword::Schemas),
    ("anyOf", Keyword::Schemas),
    ("oneOf", Keyword::Schemas),
    ("properties", Keyword::Properties),
    ("patternProperties", Keyword::Patterns),
    ("maxItems", Keyword::Count),
    ("maxLength", Keyword::Count),
    ("maxProperties", Keyword::Count),
    ("minItems", Keyword::Count),
    ("minLength", Keyword::Count),
    ("maximum", Keyword::Number),
    ("minimum", Keyword::Number),
    ("multipleOf", Keyword::Number),
    ("$id", Keyword::Special),
    ("$ref", Keyword::Special),
    ("$schema", Keyword::Special),
    ("additionalItems", Keyword::Special),
    ("const", Keyword::Special),
    ("enum", Keyword::Special),
    ("exclusiveMaximum", Keyword::Special),
    ("exclusiveMinimum", Keyword::Special),
    ("format", Keyword::Special),
    ("id", Keyword::Special),
    ("items", Keyword::Special),
    ("minProperties", Keyword::Special),
    ("pattern", Keyword::Special),
    ("prefixItems", Keyword::Special),
    ("required", Keyword::Special),
    ("type", Keyword::Special),
    ("uniqueItems", Keyword::Special),
];

/// Keywords that are not enforced: of the drafts, of those before draft 4, and of OpenAPI.
const REFUSED: [&str; 21] = [
    "$dynamicRef",
    "$recursiveRef",
    "$vocabulary",
    "contains",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "disallow",
    "divisibleBy",
    "else",
    "extends",
    "if",
    "maxContains",
    "minContains",
    "not",
    "nullable",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
    "x-guidance",
];

/// What is done with `keyword`. A name that no draft knows is an annotation, as the drafts say, unless it looks like one
/// that was meant to be enforced.
///
/// # Errors
/// The reason why it is refused.
pub(super) fn kind(keyword: &str) -> Result<Keyword, String> {
    if let Some((_, kind)) = KEYWORDS.iter().find(|(known, _)| *known == keyword) {
        return Ok(*kind);
    }
    if REFUSED.contains(&keyword) {
        return Err("expected a keyword that is enforced".to_owned());
    }
    let plain = keyword.starts_with(|c: char| c.is_ascii_alphabetic()) && !keyword.starts_with("x-");
    let known = KEYWORDS.iter().map(|(known, _)| *known).chain(REFUSED);
    let meant = closest(keyword, known).filter(|_| plain).filter(|meant| {
        let annotation = KEYWORDS.iter().any(|(known, kind)| known == meant && *kind == Keyword::Annotation);
        let far = keyword.len().abs_diff(meant.len()) > 2 || meant.len() < 5;
        !annotation && !far
    });
    match meant {
        Some(_) => Err(format!("expected a keyword that is known{}", hint(meant))),
        None => Ok(Keyword::Annotation),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keywords_are_annotations_unless_they_look_like_others() {
        for keyword in
            ["title", "x-minLength", "_format", "javaName", "decription", "image", "version", "readonly"]
        {
            assert_eq!(kind(keyword), Ok(Keyword::Annotation), "{keyword}");
        }
        for keyword in ["minLenght", "additionalproperties", "require", "not", "nullable", "patern"] {
            assert!(kind(keyword).is_err(), "{keyword}");
        }
        assert_eq!(
            kind("minLenght").unwrap_err(),
            "expected a keyword that is known; did you mean \"minLength\"?"
        );
        assert!(KEYWORDS.iter().all(|(known, _)| !REFUSED.contains(known)));
    }
}
