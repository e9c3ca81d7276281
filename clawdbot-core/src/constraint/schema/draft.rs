//! Drafts of JSON Schema.

use serde_json::Value;

/// Drafts, the oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Draft {
    Four,
    Six,
    Seven,
    Of2019,
    Of2020,
}

/// Addresses of the drafts' own schemas, without scheme and fragment.
const DRAFTS: [(&str, Draft); 5] = [
    ("json-schema.org/draft-04/schema", Draft::Four),
    ("json-schema.org/draft-06/schema", Draft::Six),
    ("json-schema.org/draft-07/schema", Draft::Seven),
    ("json-schema.org/draft/2019-09/schema", Draft::Of2019),
    ("json-schema.org/draft/2020-12/schema", Draft::Of2020),
];

impl Draft {
    /// The draft that `schema` names with `$schema`; the newest if it names none.
    ///
    /// # Errors
    /// The value, if it is not a known draft.
    pub(super) fn of(schema: &Value) -> Result<Self, String> {
        let Some(named) = schema.get("$schema") else { return Ok(Draft::Of2020) };
        let address = named.as_str().unwrap_or_default();
        let address =
            address.strip_prefix("http://").or(address.strip_prefix("https://")).unwrap_or_default();
        let address = address.trim_end_matches('#');
        let known = DRAFTS.iter().find(|(known, _)| *known == address);
        known.map(|(_, draft)| *draft).ok_or_else(|| named.to_string())
    }
}
