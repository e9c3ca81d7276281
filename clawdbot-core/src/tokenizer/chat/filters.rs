//! Filters, tests and global functions where the engine's own differ from those of jinja2 under transformers.

use minijinja::value::{Kwargs, Rest, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Environment, Error, State, Value, filters};

use super::source::{ITER_FILTER, STORE_FILTER, STORE_IN_FILTER};
use super::values::{self, Generator, type_error};
use super::{json, methods};

/// Filters of the engine that iterate over their input, where Python refuses what is not iterable. They stay
/// reachable under their name with a `#` in front, which no template can write.
const ITERATING: &[&str] = &["batch", "first", "join", "last", "list", "max", "min", "slice", "sort", "sum"];

/// Those of which jinja2 makes a generator.
const GENERATING: &[&str] = &["map", "reject", "rejectattr", "select", "selectattr", "unique"];

/// Registers everything on `env`.
pub(super) fn install(env: &mut Environment<'_>) {
    for name in ["split", "lines", "bool", "chain", "zip"] {
        env.remove_filter(name);
    }
    for name in ["startingwith", "endingwith", "containing"] {
        env.remove_test(name);
    }
    env.remove_global("debug");

    env.add_filter("#batch", filters::batch);
    env.add_filter("#first", filters::first);
    env.add_filter("#join", filters::join);
    env.add_filter("#last", filters::last);
    env.add_filter("#list", filters::list);
    env.add_filter("#max", filters::max);
    env.add_filter("#min", filters::min);
    env.add_filter("#slice", filters::slice);
    env.add_filter("#sort", filters::sort);
    env.add_filter("#sum", filters::sum);
    env.add_filter("#map", filters::map);
    env.add_filter("#reject", filters::reject);
    env.add_filter("#rejectattr", filters::rejectattr);
    env.add_filter("#select", filters::select);
    env.add_filter("#selectattr", filters::selectattr);
    env.add_filter("#unique", filters::unique);
    for name in ITERATING {
        let inner = format!("#{name}");
        env.add_filter(*name, move |state: &mut State<'_, '_>, args: Rest<ValueOrKwargs>| {
            state.apply_filter(&inner, &with_iterable(args)?)
        });
    }
    for name in GENERATING {
        let inner = format!("#{name}");
        env.add_filter(*name, move |state: &mut State<'_, '_>, args: Rest<ValueOrKwargs>| {
            let items = state.apply_filter(&inner, &with_iterable(args)?)?;
            Ok::<_, Error>(Generator::wrap(items.try_iter()?.collect()))
        });
    }

    // What cannot be converted becomes the default, never an error.
    env.add_filter("#int", filters::int);
    env.add_filter("#float", filters::float);
    env.add_filter("int", |state: &mut State<'_, '_>, args: Rest<ValueOrKwargs>| {
        number_or_default(state, "#int", args, Value::from(0))
    });
    env.add_filter("float", |state: &mut State<'_, '_>, args: Rest<ValueOrKwargs>| {
        number_or_default(state, "#float", args, Value::from(0.0))
    });

    env.add_filter(ITER_FILTER, iter);
    env.add_filter(STORE_FILTER, |value: &Value| store(value, 1));
    env.add_filter(STORE_IN_FILTER, |value: &Value| store(value, 0));
    env.add_filter("items", items);
    env.add_filter("reverse", reverse);
    env.add_filter("length", length);
    env.add_filter("count", length);
    env.add_filter("string", |value: &Value| values::to_str(value).map(Value::from));
    env.add_filter("trim", trim);
    env.add_filter("replace", replace);
    env.add_filter("center", |value: &Value, width: Option<i64>| {
        methods::pad(&values::to_str(value)?, "center", width.unwrap_or(80), " ")
    });
    env.add_filter("wordcount", |value: &Value| {
        values::to_str(value).map(|text| {
            text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|w| !w.is_empty()).count()
        })
    });
    env.add_filter("tojson", json::tojson);

    env.add_test("sequence", |value: &Value| {
        matches!(value.kind(), ValueKind::Undefined | ValueKind::String | ValueKind::Seq | ValueKind::Map)
            || (value.kind() == ValueKind::Iterable && values::is_not_a_list(value).is_none())
    });
    env.add_test("iterable", |value: &Value| iter(value).is_ok());
    env.add_test("callable", |value: &Value| {
        value.kind() == ValueKind::Plain || matches!(values::type_name(value), "object")
    });

    env.add_function("raise_exception", |message: &Value| -> Result<Value, Error> {
        let message = values::to_str(message)?;
        Err(type_error(message.clone()).with_source(Raised(message)))
    });
}

/// The source of the error that `raise_exception` makes.
#[derive(Debug)]
pub(super) struct Raised(pub(super) String);

impl std::fmt::Display for Raised {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

/// Most values inside of a variable's value, counted as often as they occur.
const MAX_PARTS: usize = 100_000;

/// `value`, if it is a tree of moderate size. What contains a namespace could contain itself, and what shares parts
/// again and again could have exponentially many: printing and comparing would have no bound. A namespace itself may
/// be in a variable: `namespaces` says down to which level they are allowed.
fn store(value: &Value, namespaces: usize) -> Result<Value, Error> {
    let mut open = Vec::new();
    let mut seen = 0;
    let mut next = Some(value.clone());
    while let Some(part) = next {
        seen += 1;
        let is_namespace = part.as_object().is_some_and(|object| object.type_name().ends_with("::Namespace"));
        if seen > MAX_PARTS || (is_namespace && seen > namespaces) {
            return Err(type_error(
                "the value of a variable has too many parts, or contains a namespace".to_owned(),
            ));
        }
        if !is_namespace {
            match part.kind() {
                ValueKind::Map => {
                    for key in part.try_iter()? {
                        open.push(part.get_item(&key)?);
                    }
                }
                ValueKind::Seq => open.extend(part.try_iter()?),
                _ => {}
            }
        }
        next = open.pop();
    }
    Ok(value.clone())
}

/// `value` as something that can be iterated over: generators become lists of what is left in them.
fn iter(value: &Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::Iterable if value.downcast_object_ref::<Generator>().is_some() => {
            Ok(Value::from(value.try_iter()?.collect::<Vec<_>>()))
        }
        ValueKind::Undefined | ValueKind::String | ValueKind::Seq | ValueKind::Map | ValueKind::Iterable => {
            Ok(value.clone())
        }
        _ => Err(type_error(format!("'{}' object is not iterable", values::type_name(value)))),
    }
}

/// The arguments of a filter, once the first one was seen to be iterable.
fn with_iterable(args: Rest<ValueOrKwargs>) -> Result<Vec<Value>, Error> {
    let args: Vec<Value> = args.into_values();
    match args.first().map(Value::kind) {
        Some(ValueKind::None | ValueKind::Bool | ValueKind::Number | ValueKind::Plain) => {
            Err(type_error(format!("'{}' object is not iterable", values::type_name(&args[0]))))
        }
        _ => Ok(args),
    }
}

fn number_or_default(
    state: &mut State<'_, '_>,
    inner: &str,
    args: Rest<ValueOrKwargs>,
    default: Value,
) -> Result<Value, Error> {
    let mut args = args.into_values();
    if args.len() == 1 {
        args.push(default);
    }
    if matches!(args[0].kind(), ValueKind::None | ValueKind::Undefined) {
        args[0] = Value::from("");
    }
    state.apply_filter(inner, &args)
}

fn items(value: &Value) -> Result<Value, Error> {
    if value.is_undefined() {
        return Ok(Generator::wrap(Vec::new()));
    }
    match value.as_object() {
        Some(dict) if value.kind() == ValueKind::Map => {
            Ok(Generator::wrap(values::DictView::of("items", dict).try_iter()?.collect()))
        }
        _ => Err(type_error("Can only get item pairs from a mapping.")),
    }
}

fn reverse(value: &Value) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        return Ok(Value::from(text.chars().rev().collect::<String>()));
    }
    let mut items: Vec<Value> = iter(value)?.try_iter()?.collect();
    items.reverse();
    Ok(Generator::wrap(items))
}

fn length(value: &Value) -> Result<usize, Error> {
    match value.kind() {
        ValueKind::Undefined => Ok(0),
        _ => value
            .len()
            .ok_or_else(|| type_error(format!("object of type '{}' has no len()", values::type_name(value)))),
    }
}

fn trim(value: &Value, chars: Option<&str>, kwargs: Kwargs) -> Result<Value, Error> {
    let chars = match chars {
        Some(chars) => Some(chars),
        None => kwargs.get::<Option<&str>>("chars")?,
    };
    kwargs.assert_all_used()?;
    Ok(Value::from(methods::strip(&values::to_str(value)?, chars, true, true)))
}

fn replace(state: &State<'_, '_>, value: &Value, rest: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let rest = rest.into_values();
    let (old, new, count, kwargs): (&Value, &Value, Option<i64>, Kwargs) = from_args(&rest)?;
    let count = match count {
        Some(count) => Some(count),
        None => kwargs.get::<Option<i64>>("count")?,
    };
    kwargs.assert_all_used()?;
    let count = count.and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX);
    methods::replace(state, &values::to_str(value)?, &values::to_str(old)?, &values::to_str(new)?, count)
}
