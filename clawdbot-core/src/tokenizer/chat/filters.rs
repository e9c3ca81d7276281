//! The filters and global functions of jinja2 as used by transformers, in one table.

use minijinja::value::{Rest, ValueOrKwargs};
use minijinja::{Environment, Error, State, Value};

use super::args::{Args, Signature};
use super::objects::{self, Cycler, Joiner, Range};
use super::values::{self, type_error};
use super::{budget, choosing, comparisons, iteration, json, numbers, numeric, operators, sequences, text};

type Filter = fn(&mut State<'_, '_>, &Args) -> Result<Value, Error>;

/// Name, parameters, number of required ones, and the filter. If the last parameter is `*`, it takes any number of
/// arguments.
const FILTERS: &[(&str, &[&str], usize, Filter)] = &[
    ("abs", &["x"], 1, numbers::abs),
    ("attr", &["obj", "name"], 2, attr),
    ("batch", &["value", "linecount", "fill_with"], 2, sequences::batch),
    ("capitalize", &["s"], 1, text::capitalize),
    ("center", &["value", "width"], 1, text::center),
    ("count", &["obj"], 1, sequences::length),
    ("d", &["value", "default_value", "boolean"], 1, default),
    ("default", &["value", "default_value", "boolean"], 1, default),
    ("dictsort", &["value", "case_sensitive", "by", "reverse"], 1, sequences::dictsort),
    ("e", &["s"], 1, text::escape),
    ("escape", &["s"], 1, text::escape),
    ("filesizeformat", &["value", "binary"], 1, numbers::filesizeformat),
    ("first", &["seq"], 1, sequences::first),
    ("float", &["value", "default"], 1, numbers::float),
    ("forceescape", &["value"], 1, text::forceescape),
    ("format", &["value", "*"], 1, text::format),
    ("groupby", &["value", "attribute", "default", "case_sensitive"], 2, sequences::groupby),
    ("indent", &["s", "width", "first", "blank"], 1, text::indent),
    ("int", &["value", "default", "base"], 1, numbers::int),
    ("items", &["value"], 1, sequences::items),
    ("join", &["value", "d", "attribute"], 1, sequences::join),
    ("last", &["seq"], 1, sequences::last),
    ("length", &["obj"], 1, sequences::length),
    ("list", &["value"], 1, sequences::list),
    ("lower", &["s"], 1, text::lower),
    ("map", &["value", "*"], 1, choosing::map),
    ("max", &["value", "case_sensitive", "attribute"], 1, sequences::max),
    ("min", &["value", "case_sensitive", "attribute"], 1, sequences::min),
    ("pprint", &["value"], 1, text::pprint),
    ("reject", &["value", "*"], 1, choosing::reject),
    ("rejectattr", &["value", "*"], 1, choosing::rejectattr),
    ("replace", &["s", "old", "new", "count"], 3, text::replace),
    ("reverse", &["value"], 1, sequences::reverse),
    ("round", &["value", "precision", "method"], 1, numbers::round),
    ("safe", &["value"], 1, text::safe),
    ("select", &["value", "*"], 1, choosing::select),
    ("selectattr", &["value", "*"], 1, choosing::selectattr),
    ("slice", &["value", "slices", "fill_with"], 2, sequences::slice),
    ("sort", &["value", "reverse", "case_sensitive", "attribute"], 1, sequences::sort),
    ("string", &["object"], 1, text::string),
    ("striptags", &["value"], 1, text::striptags),
    ("sum", &["iterable", "attribute", "start"], 1, sequences::sum),
    ("title", &["s"], 1, text::title),
    ("tojson", &["x", "ensure_ascii", "indent", "separators", "sort_keys"], 1, json::tojson),
    ("trim", &["value", "chars"], 1, text::trim),
    ("truncate", &["s", "length", "killwords", "end", "leeway"], 1, text::truncate),
    ("unique", &["value", "case_sensitive", "attribute"], 1, sequences::unique),
    ("upper", &["s"], 1, text::upper),
    ("urlencode", &["value"], 1, text::urlencode),
    ("wordcount", &["s"], 1, text::wordcount),
    ("wordwrap", &["s", "width", "break_long_words", "wrapstring", "break_on_hyphens"], 1, text::wordwrap),
    ("xmlattr", &["d", "autospace"], 1, text::xmlattr),
];

/// Whether there is a filter `name`.
pub(super) fn is_known(name: &str) -> bool {
    FILTERS.iter().any(|(known, ..)| *known == name)
}

/// Registers everything in `env`. Filters and functions of the engine are replaced or removed.
pub(super) fn install(env: &mut Environment<'_>) {
    for name in ["split", "lines", "bool", "chain", "zip"] {
        env.remove_filter(name);
    }
    env.remove_global("debug");
    for &(name, params, needed, filter) in FILTERS {
        let open = params.last() == Some(&"*");
        let params = if open { &params[..params.len() - 1] } else { params };
        let signature = Signature { name, params, needed, open };
        env.add_filter(name, move |state: &mut State<'_, '_>, args: Rest<ValueOrKwargs>| {
            filter(state, &Args::bind(signature, args)?)
        });
    }
    operators::install(env);

    env.add_filter("__iter__", |value: &Value, count: Option<usize>| {
        sequences::for_loop(value, count.unwrap_or(0))
    });
    env.add_filter("__unpack__", |value: &Value, count: usize| sequences::unpack(value, count));
    env.add_filter("__given__", |value: &Value| {
        if value.is_undefined() { Err(values::unsupported("", value)) } else { Ok(value.clone()) }
    });
    env.add_filter("__given_each__", |value: &Value| {
        if value.try_iter()?.any(|item| item.is_undefined()) {
            return Err(values::unsupported("", &Value::UNDEFINED));
        }
        Ok(value.clone())
    });
    // The engine panics without items.
    env.add_filter("__cycle__", |state: &mut State<'_, '_>, args: Rest<ValueOrKwargs>| {
        let args = args.into_values();
        match args.split_first() {
            Some((cycled, choices)) if !choices.is_empty() => cycled.call_method(state, "cycle", choices),
            _ => Err(type_error("cycle: expected at least one item")),
        }
    });
    env.add_filter("__store__", |value: &Value| store(value, Holder::Template));
    env.add_filter("__store_in__", |value: &Value| store(value, Holder::Namespace));

    env.add_function("range", |args: Rest<ValueOrKwargs>| {
        let bounds = args.into_values().iter().map(numeric::integer).collect::<Result<Vec<_>, _>>()?;
        Range::make(&bounds)
    });
    env.add_function("dict", dict);
    env.add_function("namespace", |args: Rest<ValueOrKwargs>| {
        let pairs = dict(args)?;
        for (key, _) in values::pairs(&pairs) {
            if key.as_str().is_none_or(|name| name.starts_with('_')) {
                return Err(type_error(
                    "names in a namespace must be strings that do not begin with an underscore",
                ));
            }
        }
        minijinja::functions::namespace(Some(ValueOrKwargs::from(pairs)))
    });
    env.add_function("cycler", |args: Rest<ValueOrKwargs>| Cycler::make(args.into_values()));
    env.add_function("joiner", |separator: Option<Value>| {
        Joiner::make(separator.unwrap_or_else(|| Value::from(", ")))
    });
    env.add_function("raise_exception", |message: &Value| -> Result<Value, Error> {
        let message = values::to_str(message)?;
        Err(type_error(message.clone()).with_source(Raised(message)))
    });
}

/// Source of the error that `raise_exception` raises.
#[derive(Debug)]
pub(super) struct Raised(pub(super) String);

impl std::fmt::Display for Raised {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

/// Most values inside a variable's value, counted as often as they occur.
const MAX_PARTS: usize = 100_000;

/// What a variable belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holder {
    Template,
    Namespace,
}

/// `value`, if it is a tree of moderate size. A value in a namespace must not contain another one: it could contain
/// itself, and would never be freed.
fn store(value: &Value, holder: Holder) -> Result<Value, Error> {
    const UNITS_PER_PART: u64 = 4;
    let mut open = Vec::new();
    let mut seen = 0;
    let mut next = Some(value.clone());
    while let Some(part) = next {
        seen += 1;
        budget::spend(UNITS_PER_PART)?;
        if seen > MAX_PARTS || holder == Holder::Namespace && objects::may_hold_itself(&part) {
            return Err(type_error(
                "the value of a variable has too many parts, or a namespace contains another",
            ));
        }
        if values::is_dict(&part) {
            open.extend(values::pairs(&part).map(|(_, item)| item));
        } else if values::is_list(&part) || part.is_tuple() || values::is_group(&part) {
            open.extend(part.try_iter()?);
        } else {
            open.extend(objects::held(&part)?);
        }
        next = open.pop();
    }
    Ok(value.clone())
}

/// `dict(pairs, **more)`.
fn dict(args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    const SIGNATURE: Signature = Signature { name: "dict", params: &["mapping"], needed: 0, open: true };
    let mut values = args.into_values();
    // A keyword can have any name.
    let keywords = match values.last() {
        Some(last) if last.is_kwargs() => values.pop(),
        _ => None,
    };
    let args = Args::bind_values(SIGNATURE, values)?;
    if !args.extra.is_empty() {
        return Err(args.error("expected at most 1 argument"));
    }
    let mut pairs: Vec<(Value, Value)> = Vec::new();
    if let Some(given) = args.get(0) {
        if given.is_undefined() {
            return Err(values::unsupported("", given));
        }
        if values::is_dict(given) {
            budget::make(given.len().unwrap_or(0).saturating_mul(4))?;
            pairs.extend(values::pairs(given));
        } else {
            for item in iteration::iterate(given)? {
                let pair = sequences::unpack(&item?, 2)?;
                let key = operators::item(&pair, &Value::from(0))?;
                comparisons::hashable(&key)?;
                budget::make(4)?;
                pairs.push((key, operators::item(&pair, &Value::from(1))?));
            }
        }
    }
    if let Some(keywords) = keywords {
        let keywords = minijinja::value::Kwargs::try_from(keywords)?;
        for name in keywords.args() {
            budget::make(4)?;
            pairs.push((Value::from(name), keywords.peek::<Value>(name)?));
        }
    }
    Ok(Value::from_pairs(pairs))
}

fn default(_: &mut State<'_, '_>, args: &Args) -> Result<Value, Error> {
    let value = args.value();
    let wanted = value.is_undefined() || args.flag(2, false) && !value.is_true();
    Ok(if wanted { args.get(1).cloned().unwrap_or_else(|| Value::from("")) } else { value.clone() })
}

fn attr(_: &mut State<'_, '_>, args: &Args) -> Result<Value, Error> {
    let value = args.value();
    let name = args.get(1).and_then(Value::as_str).ok_or_else(|| args.error("the name must be a string"))?;
    if value.is_undefined() {
        return Err(values::unsupported("", value));
    }
    if values::has_method(value, name) {
        return Err(args.error("methods are not supported"));
    }
    if values::is_dict(value) || value.as_object().is_none() {
        return Ok(Value::UNDEFINED);
    }
    value.get_attr(name)
}
