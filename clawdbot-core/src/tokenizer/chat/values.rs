//! Python values inside the template engine: dictionaries whose methods win over same-named keys, generators that
//! can be read once, dictionary views, and `str()` of all of them.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use minijinja::value::{DynObject, Enumerator, Object, ObjectRepr, Tuple, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};

use super::methods;

/// Deepest nesting of lists and dictionaries that is read from the caller, printed or serialised.
pub(super) const MAX_DEPTH: usize = 100;

/// Most values that are printed at once: lists that hold the same list twice grow exponentially when printed.
const MAX_NODES: usize = 1_000_000;

/// A template error that says what Python would say.
pub(super) fn type_error(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

/// The template value of a JSON value. Objects keep the order of their keys.
///
/// # Errors
/// When `json` is nested deeper than [`MAX_DEPTH`].
pub(super) fn from_json(json: &serde_json::Value) -> Result<Value, Error> {
    convert(json, MAX_DEPTH)
}

fn convert(json: &serde_json::Value, depth: usize) -> Result<Value, Error> {
    use serde_json::Value as Json;
    let inner = || {
        depth
            .checked_sub(1)
            .ok_or_else(|| type_error(format!("the input is nested deeper than {MAX_DEPTH} levels")))
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
                dict.index.insert(key.clone(), dict.entries.len());
                dict.entries.push((Value::from(key.as_str()), convert(item, inner)?));
            }
            Value::from_object(dict)
        }
    })
}

/// A Python `dict` with string keys. `d.items` is the method even when there is a key `items`; `d['items']` is the
/// entry.
#[derive(Debug, Default)]
struct Dict {
    entries: Vec<(Value, Value)>,
    index: HashMap<String, usize>,
}

impl Dict {
    fn entry(&self, key: &str) -> Option<Value> {
        self.index.get(key).map(|&at| self.entries[at].1.clone())
    }
}

impl Object for Dict {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.entry(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        match methods::DICT_METHODS.iter().find(|name| **name == key) {
            Some(name) => {
                Some(Value::from_object(BoundMethod { receiver: Value::from_dyn_object(self.clone()), name }))
            }
            None => self.entry(key),
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.entries.iter().map(|(key, _)| key.clone()).collect())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.entries.len())
    }
}

/// A method taken from a dictionary without being called.
#[derive(Debug)]
struct BoundMethod {
    receiver: Value,
    name: &'static str,
}

impl Object for BoundMethod {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        self.receiver.call_method(state, self.name, args)
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<built-in method {} of dict object>", self.name)
    }
}

/// A Python generator: always true, without a length, read once.
#[derive(Debug)]
pub(super) struct Generator(Mutex<std::vec::IntoIter<Value>>);

impl Generator {
    pub(super) fn wrap(items: Vec<Value>) -> Value {
        Value::from_object(Generator(Mutex::new(items.into_iter())))
    }

    fn next(&self) -> Option<Value> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).next()
    }
}

impl Object for Generator {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    /// A generator has no items to take by index, and the engine would otherwise count its way to one.
    fn get_value(self: &Arc<Self>, _key: &Value) -> Option<Value> {
        Some(Value::UNDEFINED)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let generator = self.clone();
        Enumerator::Iter(Box::new(std::iter::from_fn(move || generator.next())))
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        None
    }

    fn is_true(self: &Arc<Self>) -> bool {
        true
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<generator object>")
    }
}

/// What `dict.keys()`, `dict.values()` and `dict.items()` return: iterable again and again, with a length.
#[derive(Debug)]
pub(super) struct DictView {
    name: &'static str,
    items: Vec<Value>,
}

impl DictView {
    /// The view called `name` ("keys", "values" or "items") of the map `dict`.
    pub(super) fn of(name: &'static str, dict: &DynObject) -> Value {
        let pairs = dict.try_iter_pairs().into_iter().flatten();
        let items = match name {
            "keys" => pairs.map(|(key, _)| key).collect(),
            "values" => pairs.map(|(_, value)| value).collect(),
            _ => pairs.map(|(key, value)| Value::from(Tuple::from([key, value]))).collect(),
        };
        Value::from_object(DictView { name, items })
    }
}

impl Object for DictView {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.items.clone())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.items.len())
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dict_{}({:?})", self.name, self.items)
    }
}

/// Whether Python's `json` module would refuse `value` although it can be iterated.
pub(super) fn is_not_a_list(value: &Value) -> Option<&'static str> {
    if value.downcast_object_ref::<Generator>().is_some() {
        return Some("generator");
    }
    match value.downcast_object_ref::<DictView>()?.name {
        "keys" => Some("dict_keys"),
        "values" => Some("dict_values"),
        _ => Some("dict_items"),
    }
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
        ValueKind::Seq if value.is_tuple() => "tuple",
        ValueKind::Map => "dict",
        ValueKind::Seq | ValueKind::Iterable => is_not_a_list(value).unwrap_or("list"),
        _ => "object",
    }
}

/// Python's `repr` of a float: the shortest digits that read back, an exponent below 1e-4 and from 1e16 on.
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
        Some(text) => Ok(out.write_str(text)?),
        None => write_repr(out, value, MAX_DEPTH, &mut { MAX_NODES }),
    }
}

/// Python's `str(value)`.
pub(super) fn to_str(value: &Value) -> Result<String, Error> {
    let mut text = String::new();
    write_str(&mut text, value)?;
    Ok(text)
}

fn write_repr(out: &mut dyn fmt::Write, value: &Value, depth: usize, nodes: &mut usize) -> Result<(), Error> {
    *nodes = nodes
        .checked_sub(1)
        .ok_or_else(|| type_error(format!("cannot print a value of more than {MAX_NODES} parts")))?;
    let inner = || {
        depth
            .checked_sub(1)
            .ok_or_else(|| type_error(format!("cannot print a value nested deeper than {MAX_DEPTH} levels")))
    };
    match value.kind() {
        ValueKind::Undefined if depth == MAX_DEPTH => {}
        ValueKind::Undefined => out.write_str("Undefined")?,
        ValueKind::Number if !value.is_integer() => {
            out.write_str(&float_repr(f64::try_from(value.clone()).unwrap_or(f64::NAN)))?;
        }
        ValueKind::Map if value.as_object().is_some() => {
            let inner = inner()?;
            out.write_char('{')?;
            let pairs = value.as_object().and_then(|dict| dict.try_iter_pairs());
            for (at, (key, item)) in pairs.into_iter().flatten().enumerate() {
                out.write_str(if at > 0 { ", " } else { "" })?;
                write_repr(out, &key, inner, nodes)?;
                out.write_str(": ")?;
                write_repr(out, &item, inner, nodes)?;
            }
            out.write_char('}')?;
        }
        ValueKind::Seq | ValueKind::Iterable if is_not_a_list(value).is_none() => {
            let inner = inner()?;
            let (open, close) = if value.is_tuple() { ('(', ')') } else { ('[', ']') };
            out.write_char(open)?;
            let mut length = 0_usize;
            for item in value.try_iter()? {
                out.write_str(if length > 0 { ", " } else { "" })?;
                write_repr(out, &item, inner, nodes)?;
                length += 1;
            }
            out.write_str(if value.is_tuple() && length == 1 { "," } else { "" })?;
            out.write_char(close)?;
        }
        ValueKind::Invalid => {
            let mut sink = String::new();
            write!(sink, "{value}")?;
            return Err(type_error(sink));
        }
        _ => write!(out, "{value:?}")?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_python_does() {
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
    fn containers_are_written_as_python_does() {
        let value =
            from_json(&serde_json::json!({"a": [1, 2.0, null, true, "it's"], "b": {}})).expect("shallow");
        assert_eq!(to_str(&value).expect("shallow"), r#"{'a': [1, 2.0, None, True, "it's"], 'b': {}}"#);
        assert_eq!(to_str(&Value::from(Tuple::from([Value::from(1)]))).expect("shallow"), "(1,)");
        assert_eq!(to_str(&Value::UNDEFINED).expect("flat"), "");
    }

    #[test]
    fn input_that_is_too_deep_is_refused() {
        let nest = |depth| (0..depth).fold(serde_json::json!(1), |inner, _| serde_json::json!([inner]));
        assert!(from_json(&nest(MAX_DEPTH)).is_ok());
        assert!(from_json(&nest(MAX_DEPTH + 1)).is_err());
    }
}
