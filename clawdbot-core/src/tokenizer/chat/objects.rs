//! Python objects in the template engine: dictionaries whose methods hide keys of the same name, views of them,
//! generators that can be read once, ranges, and objects of jinja2's global functions.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use minijinja::value::{Enumerator, Object, ObjectRepr, Tuple};
use minijinja::{Error, State, Value};

use super::errors::type_error;
use super::{budget, method_names};

/// A Python `dict` with string keys. `d.items` is the method even if there is a key `items`; `d['items']` is the entry.
#[derive(Debug, Default)]
pub(super) struct Dict {
    entries: Vec<(Value, Value)>,
    index: HashMap<String, usize>,
}

impl Dict {
    pub(super) fn push(&mut self, key: &str, value: Value) {
        self.index.insert(key.to_owned(), self.entries.len());
        self.entries.push((Value::from(key), value));
    }

    fn entry(&self, key: &str) -> Option<Value> {
        self.index.get(key).map(|&at| self.entries[at].1.clone())
    }
}

impl Object for Dict {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.entry(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        BoundMethod::of(&Value::from_dyn_object(self.clone()), key).or_else(|| self.entry(key))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.entries.iter().map(|(key, _)| key.clone()).collect())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.entries.len())
    }
}

/// A dictionary's method, not yet called.
#[derive(Debug)]
pub(super) struct BoundMethod {
    receiver: Value,
    name: &'static str,
}

impl BoundMethod {
    /// The method `name` of the dictionary `receiver`, if it has one.
    pub(super) fn of(receiver: &Value, name: &str) -> Option<Value> {
        let name = method_names::DICT.iter().find(|known| **known == name)?;
        Some(Value::from_object(BoundMethod { receiver: receiver.clone(), name }))
    }
}

impl Object for BoundMethod {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        self.receiver.call_method(state, self.name, args)
    }
}

/// A Python generator: always true, without a length, readable once.
#[derive(Debug)]
pub(super) struct Generator(Mutex<std::vec::IntoIter<Value>>);

impl Generator {
    pub(super) fn wrap(items: Vec<Value>) -> Value {
        Value::from_object(Generator(Mutex::new(items.into_iter())))
    }

    pub(super) fn next(&self) -> Option<Value> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).next()
    }
}

impl Object for Generator {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    /// Generators cannot be indexed; by default the engine would count to the item.
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
}

/// The pairs of a dictionary.
pub(super) fn pairs(dict: &Value) -> impl Iterator<Item = (Value, Value)> {
    dict.as_object().and_then(|object| object.try_iter_pairs()).into_iter().flatten()
}

/// The result of `dict.keys()`, `dict.values()` and `dict.items()`: has a length and can be iterated repeatedly.
#[derive(Debug)]
pub(super) struct DictView {
    pub(super) name: &'static str,
    items: Vec<Value>,
}

impl DictView {
    /// The view called `name` ("keys", "values" or "items") of `dict`.
    pub(super) fn of(name: &'static str, dict: &Value) -> Result<Value, Error> {
        let items = DictView::items(name, dict)?;
        Ok(Value::from_object(DictView { name, items }))
    }

    /// The items of that view.
    pub(super) fn items(name: &str, dict: &Value) -> Result<Vec<Value>, Error> {
        budget::make(dict.len().unwrap_or(0).saturating_mul(3))?;
        Ok(pairs(dict)
            .map(|(key, value)| match name {
                "keys" => key,
                "values" => value,
                _ => Value::from(Tuple::from([key, value])),
            })
            .collect())
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
}

/// `range(...)`.
#[derive(Debug)]
pub(super) struct Range {
    start: i64,
    stop: i64,
    step: i64,
    length: usize,
}

impl Range {
    /// Longest range, as in jinja2's sandbox.
    const MAX: usize = 100_000;

    pub(super) fn make(bounds: &[i64]) -> Result<Value, Error> {
        let (start, stop, step) = match *bounds {
            [stop] => (0, stop, 1),
            [start, stop] => (start, stop, 1),
            [start, stop, step] => (start, stop, step),
            _ => return Err(type_error(format!("range expects 1 to 3 arguments, found {}", bounds.len()))),
        };
        if step == 0 {
            return Err(type_error("range() arg 3 must not be zero"));
        }
        let distance = if step > 0 {
            i128::from(stop) - i128::from(start)
        } else {
            i128::from(start) - i128::from(stop)
        };
        let length = (distance.max(0) as u128).div_ceil(u128::from(step.unsigned_abs()));
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > Self::MAX {
            return Err(type_error(format!(
                "expected a range of at most {} items, found {length}",
                Self::MAX
            )));
        }
        Ok(Value::from_object(Range { start, stop, step, length }))
    }

    fn at(&self, place: usize) -> Option<Value> {
        (place < self.length).then(|| Value::from(self.start + self.step * place as i64))
    }

    pub(super) fn is_equal(&self, other: &Range) -> bool {
        self.length == other.length
            && (self.length == 0
                || self.start == other.start && (self.length == 1 || self.step == other.step))
    }

    /// `range[start:stop:step]`, with bounds already resolved.
    pub(super) fn slice(&self, first: i64, stop: i64, step: i64) -> Value {
        let distance = if step > 0 { stop.saturating_sub(first) } else { first.saturating_sub(stop) };
        let length = usize::try_from(distance.max(0)).unwrap_or(0).div_ceil(step.unsigned_abs() as usize);
        let at = |place: i64| self.start.saturating_add(self.step.saturating_mul(place));
        Value::from_object(Range {
            start: at(first),
            stop: at(stop),
            step: self.step.saturating_mul(step),
            length,
        })
    }

    pub(super) fn write(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        match self.step {
            1 => write!(out, "range({}, {})", self.start, self.stop),
            step => write!(out, "range({}, {}, {step})", self.start, self.stop),
        }
    }
}

impl Object for Range {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.at(key.as_usize()?)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.length)
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.length)
    }
}

/// A group of the filter `groupby`: a tuple of two with named items.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) grouper: Value,
    pub(super) list: Value,
}

impl Object for Group {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match key.as_usize() {
            Some(0) => Some(self.grouper.clone()),
            Some(1) => Some(self.list.clone()),
            _ => self.get_value_by_str(key.as_str()?),
        }
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        match key {
            "grouper" => Some(self.grouper.clone()),
            "list" => Some(self.list.clone()),
            _ => None,
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(2)
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(2)
    }
}

/// `cycler(...)`.
#[derive(Debug)]
pub(super) struct Cycler {
    items: Vec<Value>,
    at: AtomicUsize,
}

impl Cycler {
    pub(super) fn make(items: Vec<Value>) -> Result<Value, Error> {
        if items.is_empty() {
            return Err(type_error("cycler: expected at least one item"));
        }
        Ok(Value::from_object(Cycler { items, at: AtomicUsize::new(0) }))
    }
}

impl Object for Cycler {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        (key == "current").then(|| self.items[self.at.load(Ordering::Relaxed)].clone())
    }

    fn call_method(
        self: &Arc<Self>,
        _: &mut State<'_, '_>,
        method: &str,
        args: &[Value],
    ) -> Result<Value, Error> {
        let () = minijinja::value::from_args(args)?;
        match method {
            "next" => {
                let at = self.at.load(Ordering::Relaxed);
                self.at.store((at + 1) % self.items.len(), Ordering::Relaxed);
                Ok(self.items[at].clone())
            }
            "reset" => {
                self.at.store(0, Ordering::Relaxed);
                Ok(Value::from(()))
            }
            _ => Err(Error::from(minijinja::ErrorKind::UnknownMethod)),
        }
    }
}

/// `joiner(separator)`: empty at its first call.
#[derive(Debug)]
pub(super) struct Joiner {
    separator: Value,
    calls: AtomicUsize,
}

impl Joiner {
    pub(super) fn make(separator: Value) -> Value {
        Value::from_object(Joiner { separator, calls: AtomicUsize::new(0) })
    }
}

impl Object for Joiner {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, _: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        let () = minijinja::value::from_args(args)?;
        let first = self.calls.swap(1, Ordering::Relaxed) == 0;
        Ok(if first { Value::from("") } else { self.separator.clone() })
    }
}

/// Stands for the engine's `namespace`, which is private.
pub(super) struct Namespace;

impl Namespace {
    pub(super) fn is(value: &Value) -> bool {
        value.as_object().is_some_and(|object| object.type_name().ends_with("::Namespace"))
    }
}

/// Whether `value` is a mutable object of the engine, which could contain itself.
pub(super) fn may_hold_itself(value: &Value) -> bool {
    Namespace::is(value) || value.as_object().is_some_and(|object| object.type_name().ends_with("::Loop"))
}

/// The values inside an object that is not a list, tuple or dictionary.
pub(super) fn held(value: &Value) -> Result<Vec<Value>, Error> {
    let items = if let Some(generator) = value.downcast_object_ref::<Generator>() {
        let items = generator.0.lock().unwrap_or_else(PoisonError::into_inner);
        budget::make(items.as_slice().len())?;
        return Ok(items.as_slice().to_vec());
    } else if let Some(view) = value.downcast_object_ref::<DictView>() {
        &view.items
    } else if let Some(cycler) = value.downcast_object_ref::<Cycler>() {
        &cycler.items
    } else if let Some(joiner) = value.downcast_object_ref::<Joiner>() {
        std::slice::from_ref(&joiner.separator)
    } else if let Some(method) = value.downcast_object_ref::<BoundMethod>() {
        std::slice::from_ref(&method.receiver)
    } else {
        return Ok(Vec::new());
    };
    budget::make(items.len())?;
    Ok(items.to_vec())
}
