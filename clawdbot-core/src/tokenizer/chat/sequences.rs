//! Filters on sequences, as in jinja2. Each element read is charged to the budget.

use std::cmp::Ordering;

use minijinja::value::{Tuple, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};

use super::args::Args;
use super::iteration::{collect, iterate};
use super::numeric::{self, Number};
use super::objects::{Generator, Group};
use super::sorting::Direction;
use super::values::{self, MAX_DEPTH, type_error, type_name, unsupported};
use super::{budget, comparisons, operators, sorting};

type Filtered = Result<Value, Error>;

/// All elements for a `for`. With `count` names to assign to, elements that are not lists or tuples are unpacked.
pub(super) fn for_loop(value: &Value, count: usize) -> Filtered {
    if count == 0 && (values::is_list(value) || value.is_tuple()) {
        budget::walk(value.len().unwrap_or(0))?;
        return Ok(value.clone());
    }
    let mut items = collect(value)?;
    if count > 0 {
        for item in &mut items {
            // An element that cannot be unpacked is an error when the loop reaches it.
            *item = unpack(item, count).unwrap_or_else(|_| Value::from(()));
        }
    }
    Ok(Value::from(items))
}

/// Unpacks `value` into `count` values.
pub(super) fn unpack(value: &Value, count: usize) -> Filtered {
    let mut items = Vec::with_capacity(count);
    for item in iterate(value)? {
        if items.len() == count {
            return Err(type_error(format!("too many values to unpack (expected {count})")));
        }
        items.push(item?);
    }
    if items.len() < count {
        return Err(type_error(format!(
            "not enough values to unpack (expected {count}, got {})",
            items.len()
        )));
    }
    Ok(Value::from(Tuple::from(items)))
}

/// jinja2's `make_attrgetter`.
pub(super) struct Getter {
    parts: Vec<Value>,
    default: Option<Value>,
}

impl Getter {
    pub(super) fn new(attribute: Option<&Value>, default: Option<Value>) -> Self {
        let parts = match attribute {
            None => Vec::new(),
            Some(attribute) if attribute.is_none() => Vec::new(),
            // jinja2 looks up anything else as it is.
            Some(attribute) => match attribute.as_str() {
                Some(path) => path
                    .split('.')
                    .map(|part| match part.parse::<i64>() {
                        Ok(at) if part.bytes().all(|byte| byte.is_ascii_digit()) => Value::from(at),
                        _ => Value::from(part),
                    })
                    .collect(),
                None => vec![attribute.clone()],
            },
        };
        Getter { parts, default }
    }

    pub(super) fn get(&self, item: &Value) -> Filtered {
        let mut found = item.clone();
        for part in &self.parts {
            found = operators::item(&found, part)?;
            if let (true, Some(default)) = (found.is_undefined(), &self.default) {
                found = default.clone();
            }
        }
        Ok(found)
    }
}

/// jinja2's `ignore_case`.
fn key_of(value: Value, case_sensitive: bool) -> Filtered {
    match value.as_str() {
        Some(text) if !case_sensitive => {
            budget::text(Some(text.len()))?;
            Ok(Value::from(text.to_lowercase()))
        }
        _ => Ok(value),
    }
}

/// Sorts by key as Python does.
fn sort_by_key(mut items: Vec<(Value, Value)>, direction: Direction) -> Result<Vec<(Value, Value)>, Error> {
    sorting::sort(&mut items, direction, |(key, _)| key)?;
    Ok(items)
}

pub(super) fn list(_: &mut State<'_, '_>, args: &Args) -> Filtered {
    collect(args.value()).map(Value::from)
}

pub(super) fn batch(_: &mut State<'_, '_>, args: &Args) -> Filtered {
    let mut batches = Vec::new();
    let items = collect(args.value())?;
    // jinja2 compares the number with the length of a batch. One that is never equal leaves all items in one batch; zero
    // is equal once, before the first item.
    let count = args.get(1).unwrap_or(&Value::UNDEFINED);
    let size = match numeric::number(count) {
        Some(Number::Int(int)) => usize::try_from(int).ok(),
        Some(Number::Float(_)) => return Err(args.error("expected a whole number of items")),
        None if args.some(2).is_some() => return Err(args.error("expected a number of items")),
        None => None,
    };
    if size == Some(0) && !items.is_empty() {
        batches.push(Value::from(Vec::<Value>::new()));
    }
    let size = size.filter(|size| *size > 0).unwrap_or(items.len().max(1));
    for part in items.chunks(size) {
        let mut part = part.to_vec();
        if let Some(fill) = args.some(2) {
            budget::make(size - part.len())?;
            part.resize(size, fill.clone());
        }
        batches.push(Value::from(part));
    }
    Ok(Generator::wrap(batches))
}

pub(super) fn slice(_: &mut State<'_, '_>, args: &Args) -> Filtered {
    let count = args.integer(1, 0)?;
    if count == 0 {
        return Err(args.error("expected a positive number of slices, found 0"));
    }
    let count = usize::try_from(count).unwrap_or(0);
    let items = collect(args.value())?;
    budget::make(count)?;
    let size = items.len().checked_div(count).unwrap_or(0);
    let longer = items.len() - size * count;
    let mut slices = Vec::new();
    let mut at = 0;
    for place in 0..count {
        let length = size + usize::from(place < longer);
        let mut part = items[at..at + length].to_vec();
        at += length;
        if let Some(fill) = args.some(2).filter(|_| place >= longer) {
            part.push(fill.clone());
        }
        slices.push(Value::from(part));
    }
    Ok(Generator::wrap(slices))
}

pub(super) fn first(_: &mut State<'_, '_>, args: &Args) -> Filtered {
    iterate(args.value())?.next().unwrap_or(Ok(Value::UNDEFINED))
}

pub(super) fn last(_: &mut State<'_, '_>, args: &Args) -> Filtered {
    let value = args.value();
    if value.downcast_object_ref::<Generator>().is_some() {
        return Err(args.error("'generator' object is not reversible"));
    }
    if let Some(text) = value.as_str() {
        return Ok(text.chars().next_back().map_or(Value::UNDEFINED, |c| Value::from(c.to_string())));
    }
    let mut last = Value::UNDEFINED;
    for item in iterate(value)? {
        last = item?;
    }
    Ok(last)
}

pub(super) fn reverse(_: &mut State<'_, '_>, args: &Args) -> Filtered {
    let value = args.value();
    if let Some(text) = value.as_str() {
        budget::text(Some(text.len()))?;
        return Ok(Value::from(text.chars().rev().collect::<String>()));
    }
    let mut items = collect(value).map_err(|error| {
        if error.kind() == ErrorKind::InvalidOperation {
            args.error("argument must be iterable")
        } else {
            error
        }
    })?;
    items.reverse();
    Ok(if value.downcast_object_ref::<Generator>().is_some() {
        Value::from(items)
    } else {
        Generator::wrap(items)
    })
}

pub(super) fn length(_: &mut State<'_, '_>, args: &Args) -> Filtered {
    let value = args.value();
    let length = match value.kind() {
        ValueKind::Undefined => Some(0),
        ValueKind::String => {
            budget::scan(value.as_str().map_or(0, str::len))?;
            value.len()
        }
        _ if type_name(value) == "object" => None,
        _ => value.len(),
    };
    length
        .map(Value::from)
        .ok_or_else(|| type_error(format!("object of type '{}' has no len()", type_name(value))))
}

pub(super) fn join(_: &mut State<'_, '_>, args: &Args) -> Filtered {
    let separator = args.get(1).map_or(Ok(String::new()), values::to_str)?;
    let getter = Getter::new(args.get(2), None);
    let mut out = String::new();
    for (at, item) in iterate(args.value())?.enumerate() {
        if at > 0 {
            budget::text(Some(separator.len()))?;
            out.push_str(&separator);
        }
        values::write_str(&mut out, &getter.get(&item?)?)?;
    }
    Ok(Value::from(out))
}

fn extreme(args: &Args, wanted: Ordering) -> Filtered {
    let case_sensitive = args.flag(1, false);
    let getter = Getter::new(args.get(2), None);
    let mut best: Option<(Value, Value)> = None;
    for item in iterate(args.value())? {
        let item = item?;
        let key = key_of(getter.get(&item)?, case_sensitive)?;
        let better = match &best {
            None => true,
            Some((known, _)) => {
                comparisons::order(if wanted == Ordering::Less { "<" } else { ">" }, &key, known, MAX_DEPTH)?
                    == Some(wanted)
            }
        };
        if better {
            best = Some((key, item));
        }
    }
    Ok(best.map_or(Value::UNDEFINED, |(_, item)| item))
}

pub(super) fn min(_: &mut State<'_, '_>, args: &Args) -> Filtered {
    extreme(args, Ordering::Less)
}

pub(super) fn max(_: &mut State<'_, '_>, args: &Args) -> Filtered {
    extreme(args, Ordering::Greater)
}

/// Python's `sorted` needs an integer for `reverse`.
fn direction(args: &Args, at: usize) -> Result<Direction, Error> {
    match args.get(at) {
        Some(value) if numeric::integer(value)? != 0 => Ok(Direction::Descending),
        _ => Ok(Direction::Ascending),
    }
}

pub(super) fn sort(_: &mut State<'_, '_>, args: &Args) -> Filtered {
    let (direction, case_sensitive) = (direction(args, 1)?, args.flag(2, false));
    let getters = match args.get(3).and_then(Value::as_str) {
        Some(several) => several.split(',').map(|one| Getter::new(Some(&Value::from(one)), None)).collect(),
        None => vec![Getter::new(args.get(3), None)],
    };
    let mut items = Vec::new();
    for item in iterate(args.value())? {
        let item = item?;
        let mut keys = Vec::with_capacity(getters.len());
        for getter in &getters {
            keys.push(key_of(getter.get(&item)?, case_sensitive)?);
        }
        budget::make(1 + keys.len())?;
        items.push((Value::from(keys), item));
    }
    let items = sort_by_key(items, direction)?;
    Ok(Value::from(items.into_iter().map(|(_, item)| item).collect::<Vec<_>>()))
}

pub(super) fn dictsort(_: &mut State<'_, '_>, args: &Args) -> Filtered {
    let (case_sensitive, direction) = (args.flag(1, false), direction(args, 3)?);
    let by_value = match args.get(2).map(|by| by.as_str().unwrap_or_default()) {
        None | Some("key") => false,
        Some("value") => true,
        _ => return Err(args.error("You can only sort by either \"key\" or \"value\"")),
    };
    let value = args.value();
    if !values::is_dict(value) {
        return Err(unsupported("expected a dictionary, found", value));
    }
    let mut items = Vec::new();
    for (key, item) in values::pairs(value) {
        budget::make(3)?;
        let by = key_of(if by_value { item.clone() } else { key.clone() }, case_sensitive)?;
        items.push((by, Value::from(Tuple::from([key, item]))));
    }
    let items = sort_by_key(items, direction)?;
    Ok(Value::from(items.into_iter().map(|(_, item)| item).collect::<Vec<_>>()))
}

pub(super) fn groupby(_: &mut State<'_, '_>, args: &Args) -> Filtered {
    let case_sensitive = args.flag(3, false);
    let getter = Getter::new(args.get(1), args.some(2).cloned());
    let mut items = Vec::new();
    for item in iterate(args.value())? {
        let item = item?;
        budget::make(2)?;
        items.push((key_of(getter.get(&item)?, case_sensitive)?, item));
    }
    let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
    for (key, item) in sort_by_key(items, Direction::Ascending)? {
        match groups.last_mut() {
            Some((known, group)) if comparisons::equal(known, &key, MAX_DEPTH)? => group.push(item),
            _ => groups.push((key, vec![item])),
        }
    }
    let mut out = Vec::with_capacity(groups.len());
    for (key, list) in groups {
        let grouper = if case_sensitive { key } else { getter.get(&list[0])? };
        out.push(Value::from_object(Group { grouper, list: Value::from(list) }));
    }
    Ok(Value::from(out))
}

pub(super) fn unique(_: &mut State<'_, '_>, args: &Args) -> Filtered {
    let case_sensitive = args.flag(1, false);
    let getter = Getter::new(args.get(2), None);
    let mut seen: std::collections::HashSet<String> = std::collections::HashSet::new();
    let mut items = Vec::new();
    for item in iterate(args.value())? {
        let item = item?;
        let key = key_of(getter.get(&item)?, case_sensitive)?;
        comparisons::hashable(&key)?;
        budget::make(2)?;
        if seen.insert(identity(&key)?) {
            items.push(item);
        }
    }
    Ok(Generator::wrap(items))
}

/// A string that is the same for equal keys and different for others.
fn identity(key: &Value) -> Result<String, Error> {
    match numeric::number(key) {
        Some(Number::Float(float)) if float.fract() == 0.0 && float.abs() < 1e30 => {
            Ok((float as i128).to_string())
        }
        Some(Number::Float(float)) if float.is_nan() => {
            Err(type_error("expected keys that are equal to themselves, found nan".to_owned()))
        }
        Some(Number::Int(int)) => Ok(int.to_string()),
        _ if key.is_tuple() => {
            let parts = key.try_iter()?.map(|item| identity(&item)).collect::<Result<Vec<_>, _>>()?;
            Ok(format!("({})", parts.join(",")))
        }
        _ => values::to_repr(key),
    }
}

pub(super) fn sum(_: &mut State<'_, '_>, args: &Args) -> Filtered {
    let getter = Getter::new(args.get(1), None);
    let mut total = args.get(2).cloned().unwrap_or_else(|| Value::from(0));
    if total.as_str().is_some() {
        return Err(args.error("strings cannot be summed, use join"));
    }
    for item in iterate(args.value())? {
        total = operators::add(&total, &getter.get(&item?)?)?;
    }
    Ok(total)
}

pub(super) fn items(_: &mut State<'_, '_>, args: &Args) -> Filtered {
    let value = args.value();
    if value.is_undefined() {
        return Ok(Generator::wrap(Vec::new()));
    }
    if !values::is_dict(value) {
        return Err(args.error("Can only get item pairs from a mapping."));
    }
    super::objects::DictView::items("items", value).map(Generator::wrap)
}
