//! The keywords of JSON Schema.

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

/// Keywords with their kinds. Others are refused.
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

/// What is done with `keyword`; `None` if it is not enforced. Names that begin with `x-` are for other programs.
pub(super) fn kind(keyword: &str) -> Option<Keyword> {
    if keyword.starts_with("x-") {
        return Some(Keyword::Annotation);
    }
    KEYWORDS.iter().find(|(known, _)| *known == keyword).map(|(_, kind)| *kind)
}
