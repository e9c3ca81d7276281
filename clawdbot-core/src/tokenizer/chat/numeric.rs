//! Python's numbers: `bool`, `int` and `float`.

use minijinja::value::ValueKind;
use minijinja::{Error, Value};

use super::values::{type_error, unsupported};

/// A number. Booleans are integers.
#[derive(Debug, Clone, Copy)]
pub(super) enum Number {
    Int(i128),
    Float(f64),
}

impl Number {
    pub(super) fn float(self) -> f64 {
        match self {
            Number::Int(int) => int as f64,
            Number::Float(float) => float,
        }
    }

    pub(super) fn is_zero(self) -> bool {
        matches!(self, Number::Int(0)) || matches!(self, Number::Float(float) if float == 0.0)
    }
}

/// The number in `value`, if it is one.
pub(super) fn number(value: &Value) -> Option<Number> {
    match value.kind() {
        ValueKind::Bool => Some(Number::Int(i128::from(value.is_true()))),
        ValueKind::Number if value.is_integer() => i128::try_from(value.clone()).ok().map(Number::Int),
        ValueKind::Number => f64::try_from(value.clone()).ok().map(Number::Float),
        _ => None,
    }
}

/// The integer in `value`, or Python's error.
pub(super) fn integer(value: &Value) -> Result<i64, Error> {
    match number(value) {
        Some(Number::Int(int)) => i64::try_from(int).map_err(|_| too_large()),
        _ => Err(unsupported("expected an integer, found", value)),
    }
}

pub(super) fn too_large() -> Error {
    type_error("integers beyond 128 bits are not supported")
}
