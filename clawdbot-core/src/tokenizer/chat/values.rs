//! Python values in the template engine: from JSON, their types, `str()` and `repr()`.

use std::fmt::{self, Write as _};

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};

use super::budget;
pub(super) use super::errors::type_error;
use super::method_names::{DICT, LIST, NUMBER, STR, TUPLE};
pub(super) use super::objects::pairs;
use super::objects::{Dict, DictView, Generator, Group, Namespace, Range};

/// Deepest nesting of lists and dictionaries that is read from the caller, printed or serialized.
pub(super) const MAX_DEPTH: usize = 100;

/// The template value of a JSON value. Objects keep the order of their keys.
///
/// # Errors
/// If `json` is nested deeper than [`MAX_DEPTH`].
pub(super) fn from_json(json: &serde_json::Value) -> Result<Value, Error> {
    convert(json, MAX_DEPTH)
}

fn convert(json: &serde_json::Value, depth: usize) -> Result<Value, Error> {
    use serde_json::Value as Json;
    let inner = || {
        depth
            .checked_sub(1)
            .ok_or_else(|| type_error(format!("expected input nested at most {MAX_DEPTH} levels deep")))
    };
    Ok(match json {
        Json::Null => Value::from(()),
        Json::Bool(flag) => Value::from(*flag),
        Json::Number(number) => {
            if let Some(int) = number.as_i64() {
                Value::from(int)
            } else if let Some(int) = number.as_u64() {
                Value::from(int)
            } else {
                Value::from(number.as_f64().unwrap_or(f64::NAN))
            }
        }
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => {
            let inner = inner()?;
            Value::from(items.iter().map(|item| convert(item, inner)).collect::<Result<Vec<_>, _>>()?)
        }
        Json::Object(map) => {
            let inner = inner()?;
            let mut dict = Dict::default();
            for (key, item) in map {
                dict.push(key, convert(item, inner)?);
            }
            Value::from_object(dict)
        }
    })
}

/// Whether `value` is a Python list.
pub(super) fn is_list(value: &Value) -> bool {
    value.kind() == ValueKind::Seq
        && !value.is_tuple()
        && !is_group(value)
        && value.downcast_object_ref::<Range>().is_none()
}

/// Whether `value` is a Python dictionary.
pub(super) fn is_dict(value: &Value) -> bool {
    value.downcast_object_ref::<Dict>().is_some() || is_engine_map(value)
}

fn is_engine_map(value: &Value) -> bool {
    value.kind() == ValueKind::Map && !Namespace::is(value) && !value.is_kwargs() && is_plain_map(value)
}

/// Other objects of the engine also look like maps, such as `loop`.
fn is_plain_map(value: &Value) -> bool {
    value.as_object().is_some_and(|object| object.type_name().contains("Map<"))
}

/// Whether `value` is a tuple made by the filter `groupby`.
pub(super) fn is_group(value: &Value) -> bool {
    value.downcast_object_ref::<Group>().is_some()
}

/// The type of `value`, if it is a dictionary view.
pub(super) fn is_view(value: &Value) -> Option<&'static str> {
    match value.downcast_object_ref::<DictView>()?.name {
        "keys" => Some("dict_keys"),
        "values" => Some("dict_values"),
        _ => Some("dict_items"),
    }
}

/// Whether both are the same object.
pub(super) fn same_object(a: &Value, b: &Value) -> bool {
    a.as_object().is_some() && minijinja::tests::is_sameas(a, b)
}

/// The entry of a dictionary. The caller has checked that the key is hashable.
pub(super) fn entry(dict: &Value, key: &Value) -> Result<Option<Value>, Error> {
    budget::walk(1)?;
    Ok(dict.as_object().and_then(|object| object.get_value(key)))
}

/// The name of `value`'s Python type.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value.kind() {
        ValueKind::Undefined => "Undefined",
        ValueKind::None => "NoneType",
        ValueKind::Bool => "bool",
        ValueKind::Number if value.is_integer() => "int",
        ValueKind::Number => "float",
        ValueKind::String => "str",
        ValueKind::Bytes => "bytes",
        ValueKind::Seq if value.is_tuple() || is_group(value) => "tuple",
        _ if is_list(value) => "list",
        _ if is_dict(value) => "dict",
        _ if value.downcast_object_ref::<Generator>().is_some() => "generator",
        _ if value.downcast_object_ref::<Range>().is_some() => "range",
        _ => is_view(value).unwrap_or("object"),
    }
}

/// Whether the type of `value` has the method `name`.
pub(super) fn has_method(value: &Value, name: &str) -> bool {
    let names = match type_name(value) {
        "str" => STR,
        "list" => LIST,
        "tuple" | "range" => TUPLE,
        "dict" => DICT,
        "int" | "float" | "bool" => NUMBER,
        _ => return false,
    };
    names.contains(&name)
}

/// An error `message` with the type of `value`; for undefined values the error that jinja2 raises.
pub(super) fn unsupported(message: &str, value: &Value) -> Error {
    if value.is_undefined() {
        return Error::new(ErrorKind::UndefinedError, "the value is undefined");
    }
    type_error(format!("{message} '{}'", type_name(value)))
}

/// Python's `repr` of a float: the shortest digits that read back, with an exponent below 1e-4 and from 1e16 on.
/// See <https://docs.python.org/3/library/stdtypes.html#float> and `float_repr_style`.
pub(super) fn float_repr(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{number:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if number != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs());
    }
    let plain = number.to_string();
    if plain.contains('.') { plain } else { plain + ".0" }
}

/// Writes Python's `str(value)`.
pub(super) fn write_str(out: &mut dyn fmt::Write, value: &Value) -> Result<(), Error> {
    match value.as_str() {
        Some(text) => {
            budget::text(Some(text.len()))?;
            Ok(out.write_str(text)?)
        }
        None if value.is_undefined() => Ok(()),
        None => write_repr(out, value, MAX_DEPTH),
    }
}

/// Python's `str(value)`.
pub(super) fn to_str(value: &Value) -> Result<String, Error> {
    let mut text = String::new();
    write_str(&mut text, value)?;
    Ok(text)
}

/// Python's `repr(value)`.
pub(super) fn to_repr(value: &Value) -> Result<String, Error> {
    let mut text = String::new();
    write_repr(&mut text, value, MAX_DEPTH)?;
    Ok(text)
}

fn write_repr(out: &mut dyn fmt::Write, value: &Value, depth: usize) -> Result<(), Error> {
    budget::walk(2)?;
    let inner = || {
        depth
            .checked_sub(1)
            .ok_or_else(|| type_error(format!("cannot print a value nested deeper than {MAX_DEPTH} levels")))
    };
    let separator = |at: usize| if at > 0 { ", " } else { "" };
    match value.kind() {
        ValueKind::Undefined => out.write_str("Undefined")?,
        ValueKind::None => out.write_str("None")?,
        ValueKind::Bool => out.write_str(if value.is_true() { "True" } else { "False" })?,
        ValueKind::Number if value.is_integer() => write!(out, "{value}")?,
        ValueKind::Number => out.write_str(&float_repr(f64::try_from(value.clone()).unwrap_or(f64::NAN)))?,
        ValueKind::String if value.is_safe() => {
            out.write_str("Markup(")?;
            write_text_repr(out, value.as_str().unwrap_or_default())?;
            out.write_char(')')?;
        }
        ValueKind::String => write_text_repr(out, value.as_str().unwrap_or_default())?,
        ValueKind::Invalid => {
            let mut sink = String::new();
            write!(sink, "{value}")?;
            return Err(type_error(sink));
        }
        _ if is_dict(value) => {
            let inner = inner()?;
            out.write_char('{')?;
            for (at, (key, item)) in pairs(value).enumerate() {
                out.write_str(separator(at))?;
                write_repr(out, &key, inner)?;
                out.write_str(": ")?;
                write_repr(out, &item, inner)?;
            }
            out.write_char('}')?;
        }
        _ if let Some(range) = value.downcast_object_ref::<Range>() => range.write(out)?,
        ValueKind::Seq => {
            let inner = inner()?;
            let is_tuple = value.is_tuple() || is_group(value);
            out.write_char(if is_tuple { '(' } else { '[' })?;
            for (at, item) in value.try_iter()?.enumerate() {
                out.write_str(separator(at))?;
                write_repr(out, &item, inner)?;
            }
            out.write_str(if is_tuple && value.len() == Some(1) { "," } else { "" })?;
            out.write_char(if is_tuple { ')' } else { ']' })?;
        }
        _ if is_view(value).is_some() => {
            let inner = inner()?;
            write!(out, "{}([", is_view(value).unwrap_or_default())?;
            for (at, item) in value.try_iter()?.enumerate() {
                out.write_str(separator(at))?;
                write_repr(out, &item, inner)?;
            }
            out.write_str("])")?;
        }
        // For others Python writes the address.
        _ => return Err(type_error(format!("values of type {} cannot be printed", type_name(value)))),
    }
    Ok(())
}

/// Python's `repr` of a string: in single quotes unless it contains single and no double quotes, with unprintable
/// characters escaped.
fn write_text_repr(out: &mut dyn fmt::Write, text: &str) -> Result<(), Error> {
    budget::text(text.len().checked_mul(2))?;
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.write_char(quote)?;
    for c in text.chars() {
        match c {
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            c if c == '\\' || c == quote => write!(out, "\\{c}")?,
            c if is_printable(c) => out.write_char(c)?,
            c => match u32::from(c) {
                code @ ..=0xff => write!(out, "\\x{code:02x}")?,
                code @ ..=0xffff => write!(out, "\\u{code:04x}")?,
                code => write!(out, "\\U{code:08x}")?,
            },
        }
    }
    out.write_char(quote)?;
    Ok(())
}

/// `str.isprintable` for one character: no control, format, surrogate, private or unassigned code, no separator but the
/// space. The standard library escapes just those, and combining marks only at the start of a string.
pub(super) fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return (' '..='~').contains(&c);
    }
    let mut text = [0_u8; 8];
    text[0] = b'a';
    let length = 1 + c.encode_utf8(&mut text[1..]).len();
    std::str::from_utf8(&text[..length]).is_ok_and(|text| text.escape_debug().count() == 2)
}

#[cfg(test)]
mod tests {
    use minijinja::value::Tuple;

    use super::*;

    #[test]
    fn floats_are_written_as_in_python() {
        for (number, text) in [
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (0.1, "0.1"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (123_456.789, "123456.789"),
            (f64::NAN, "nan"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(float_repr(number), text);
        }
    }

    #[test]
    fn containers_are_written_as_in_python() {
        let value =
            from_json(&serde_json::json!({"a": [1, 2.0, null, true, "it's"], "b": {}})).expect("shallow");
        assert_eq!(to_str(&value).expect("shallow"), r#"{'a': [1, 2.0, None, True, "it's"], 'b': {}}"#);
        assert_eq!(to_str(&Value::from(Tuple::from([Value::from(1)]))).expect("shallow"), "(1,)");
        assert_eq!(to_str(&Value::UNDEFINED).expect("flat"), "");
    }

    #[test]
    fn deeply_nested_input_is_refused() {
        let nest = |depth| (0..depth).fold(serde_json::json!(1), |inner, _| serde_json::json!([inner]));
        assert!(from_json(&nest(MAX_DEPTH)).is_ok());
        assert!(from_json(&nest(MAX_DEPTH + 1)).is_err());
    }
}
