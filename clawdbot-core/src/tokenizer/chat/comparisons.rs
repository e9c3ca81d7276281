//! `==`, `<`, `in` and the other comparisons, as in Python. What they read is charged to the budget.

use std::cmp::Ordering;

use minijinja::value::ValueKind;
use minijinja::{Error, Value};

use super::numeric::{Number, number};
use super::objects::Range;
use super::values::{self, MAX_DEPTH, type_error, type_name, unsupported};
use super::{budget, iteration};

/// `a < b in c ...`: every neighbouring pair.
pub(super) fn comparison(operands: &[Value]) -> Result<bool, Error> {
    let mut left = &operands[0];
    for pair in operands[1..].chunks_exact(2) {
        if !compare(pair[0].as_str().unwrap_or_default(), left, &pair[1])? {
            return Ok(false);
        }
        left = &pair[1];
    }
    Ok(true)
}

/// `a sign b` for a comparison.
pub(super) fn compare(sign: &str, a: &Value, b: &Value) -> Result<bool, Error> {
    Ok(match sign {
        "==" => equal(a, b, MAX_DEPTH)?,
        "!=" => !equal(a, b, MAX_DEPTH)?,
        "in" => contains(b, a)?,
        "not in" => !contains(b, a)?,
        _ => {
            let order = order(sign, a, b, MAX_DEPTH)?;
            match sign {
                "<" => order == Some(Ordering::Less),
                "<=" => matches!(order, Some(Ordering::Less | Ordering::Equal)),
                ">" => order == Some(Ordering::Greater),
                _ => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
            }
        }
    })
}

fn deeper(depth: usize) -> Result<usize, Error> {
    depth
        .checked_sub(1)
        .ok_or_else(|| type_error(format!("the value is nested deeper than {MAX_DEPTH} levels")))
}

/// Charges for all of `value`, where the engine itself compares or hashes it.
pub(super) fn walk(value: &Value, depth: usize) -> Result<(), Error> {
    budget::walk(1)?;
    if let Some(text) = value.as_str() {
        return budget::scan(text.len());
    }
    if values::is_dict(value) {
        let inner = deeper(depth)?;
        for (key, item) in values::pairs(value) {
            walk(&key, inner)?;
            walk(&item, inner)?;
        }
    } else if values::is_list(value) || value.is_tuple() {
        let inner = deeper(depth)?;
        for item in value.try_iter()? {
            walk(&item, inner)?;
        }
    }
    Ok(())
}

/// Refuses values that cannot be keys, and charges for hashing the others.
pub(super) fn hashable(value: &Value) -> Result<(), Error> {
    if values::is_dict(value) || values::is_list(value) || values::is_view(value).is_some() {
        return Err(type_error(format!("unhashable type: '{}'", type_name(value))));
    }
    if value.is_tuple() {
        for item in value.try_iter()? {
            budget::walk(1)?;
            if item.is_tuple() {
                return Err(type_error("keys that are tuples of tuples are not supported"));
            }
            hashable(&item)?;
        }
    }
    budget::scan(value.as_str().map_or(0, str::len))
}

/// `a == b`.
pub(super) fn equal(a: &Value, b: &Value, depth: usize) -> Result<bool, Error> {
    budget::walk(1)?;
    if let (Some(x), Some(y)) = (a.as_str(), b.as_str()) {
        if x.len() == y.len() {
            budget::scan(x.len())?;
        }
        return Ok(x == y);
    }
    if let (Some(x), Some(y)) = (number(a), number(b)) {
        return Ok(order_numbers(x, y) == Some(Ordering::Equal));
    }
    let same_kind = values::is_list(a) && values::is_list(b) || a.is_tuple() && b.is_tuple();
    if same_kind {
        let inner = deeper(depth)?;
        if a.len() != b.len() {
            return Ok(false);
        }
        for (x, y) in a.try_iter()?.zip(b.try_iter()?) {
            if !equal(&x, &y, inner)? {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    if values::is_dict(a) && values::is_dict(b) {
        let inner = deeper(depth)?;
        if a.len() != b.len() {
            return Ok(false);
        }
        for (key, x) in values::pairs(a) {
            match values::entry(b, &key)? {
                Some(y) if equal(&x, &y, inner)? => {}
                _ => return Ok(false),
            }
        }
        return Ok(true);
    }
    if let (Some(x), Some(y)) = (a.downcast_object_ref::<Range>(), b.downcast_object_ref::<Range>()) {
        return Ok(x.is_equal(y));
    }
    match (a.as_object(), b.as_object()) {
        (Some(_), Some(_)) if values::same_object(a, b) => Ok(true),
        (Some(_), Some(_)) if values::is_view(a).is_some() && values::is_view(b).is_some() => {
            Err(type_error("== of dictionary views is not supported"))
        }
        (None, None) => {
            Ok(a.kind() == b.kind() && matches!(a.kind(), ValueKind::None | ValueKind::Undefined))
        }
        _ => Ok(false),
    }
}

pub(super) fn order_numbers(a: Number, b: Number) -> Option<Ordering> {
    match (a, b) {
        (Number::Int(x), Number::Int(y)) => Some(x.cmp(&y)),
        (Number::Float(x), Number::Float(y)) => x.partial_cmp(&y),
        (Number::Int(x), Number::Float(y)) => order_mixed(x, y),
        (Number::Float(x), Number::Int(y)) => order_mixed(y, x).map(Ordering::reverse),
    }
}

fn order_mixed(int: i128, float: f64) -> Option<Ordering> {
    const BEYOND: f64 = 1.7e38;
    if float.is_nan() {
        None
    } else if float.abs() >= BEYOND {
        Some(if float > 0.0 { Ordering::Less } else { Ordering::Greater })
    } else {
        Some(
            int.cmp(&(float.trunc() as i128))
                .then_with(|| 0.0_f64.partial_cmp(&float.fract()).unwrap_or(Ordering::Equal)),
        )
    }
}

/// The order of `a` and `b`; `None` if one is NaN. `sign` is for the message.
pub(super) fn order(sign: &str, a: &Value, b: &Value, depth: usize) -> Result<Option<Ordering>, Error> {
    budget::walk(1)?;
    if let (Some(x), Some(y)) = (a.as_str(), b.as_str()) {
        budget::scan(x.len().min(y.len()))?;
        return Ok(Some(x.cmp(y)));
    }
    if let (Some(x), Some(y)) = (number(a), number(b)) {
        return Ok(order_numbers(x, y));
    }
    if values::is_list(a) && values::is_list(b) || a.is_tuple() && b.is_tuple() {
        let inner = deeper(depth)?;
        for (x, y) in a.try_iter()?.zip(b.try_iter()?) {
            if !equal(&x, &y, inner)? {
                return order(sign, &x, &y, inner);
            }
        }
        return Ok(Some(a.len().cmp(&b.len())));
    }
    if a.is_undefined() || b.is_undefined() {
        return Err(unsupported("", &Value::UNDEFINED));
    }
    Err(type_error(format!(
        "'{sign}' not supported between instances of '{}' and '{}'",
        type_name(a),
        type_name(b)
    )))
}

/// `needle in haystack`.
pub(super) fn contains(haystack: &Value, needle: &Value) -> Result<bool, Error> {
    if let Some(text) = haystack.as_str() {
        let needle = needle.as_str().ok_or_else(|| {
            type_error(format!("'in <string>' requires string as left operand, not {}", type_name(needle)))
        })?;
        budget::scan(text.len())?;
        return Ok(text.contains(needle));
    }
    if values::is_dict(haystack) {
        hashable(needle)?;
        return Ok(values::entry(haystack, needle)?.is_some());
    }
    if haystack.is_none() || number(haystack).is_some() {
        return Err(type_error(format!("argument of type '{}' is not iterable", type_name(haystack))));
    }
    if values::is_view(haystack) == Some("dict_keys") {
        hashable(needle)?;
    }
    for item in iteration::iterate(haystack)? {
        if equal(&item?, needle, MAX_DEPTH)? {
            return Ok(true);
        }
    }
    Ok(false)
}
