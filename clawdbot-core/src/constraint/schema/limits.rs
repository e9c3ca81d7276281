//! Bounds of schemas.

use serde_json::Value;

use crate::error::{Error, Result};

/// Most values in a schema.
pub(super) const MAX_VALUES: usize = 1 << 16;
/// Most properties of one object that may be left out, and of all objects.
pub(super) const MAX_OPTIONAL: usize = 1024;
pub(super) const MAX_ALL_OPTIONAL: usize = 4096;
/// Most values inside of each other.
pub(super) const MAX_DEPTH: usize = 128;

/// Refuses a schema that is too deep or too large. Does not recurse.
///
/// # Errors
/// `InvalidConstraint`.
pub(super) fn check(schema: &Value) -> Result<()> {
    let (mut open, mut count) = (vec![(schema, 0)], 0_usize);
    while let Some((value, depth)) = open.pop() {
        count += 1;
        if depth > MAX_DEPTH || count.saturating_add(open.len()) > MAX_VALUES {
            let message = format!(
                "option json_schema: expected at most {MAX_VALUES} values, nested at most {MAX_DEPTH} times, found more"
            );
            return Err(Error::invalid_constraint(message).with("option", "json_schema"));
        }
        match value {
            Value::Array(items) => open.extend(items.iter().map(|item| (item, depth + 1))),
            Value::Object(object) => open.extend(object.values().map(|item| (item, depth + 1))),
            _ => {}
        }
    }
    Ok(())
}
