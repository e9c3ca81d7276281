//! Python's `iter`. Each element read is charged to the budget.

use minijinja::value::{ValueIter, ValueKind};
use minijinja::{Error, Value};

use super::budget;
use super::values::{self, type_error, type_name};

/// The result of Python's `iter`.
pub(super) enum Items<'v> {
    Chars(std::str::Chars<'v>),
    Values(ValueIter),
    None,
}

impl Iterator for Items<'_> {
    type Item = Result<Value, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let value = match self {
            Items::Chars(chars) => Value::from(chars.next()?.to_string()),
            Items::Values(values) => values.next()?,
            Items::None => return None,
        };
        Some(budget::walk(1).map(|()| value))
    }
}

/// The elements of `value`, each charged to the budget.
///
/// # Errors
/// If Python cannot iterate over it.
pub(super) fn iterate(value: &Value) -> Result<Items<'_>, Error> {
    if let Some(text) = value.as_str() {
        return Ok(Items::Chars(text.chars()));
    }
    match value.kind() {
        ValueKind::Undefined => Ok(Items::None),
        ValueKind::Seq | ValueKind::Iterable => Ok(Items::Values(value.try_iter()?)),
        _ if values::is_dict(value) => Ok(Items::Values(value.try_iter()?)),
        _ => Err(type_error(format!("'{}' object is not iterable", type_name(value)))),
    }
}

/// The elements as a list.
pub(super) fn collect(value: &Value) -> Result<Vec<Value>, Error> {
    let mut items = Vec::new();
    for item in iterate(value)? {
        budget::make(1)?;
        items.push(item?);
    }
    Ok(items)
}
