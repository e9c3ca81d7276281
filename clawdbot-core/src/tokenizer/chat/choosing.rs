//! `map`, `select`, `reject` and their variants, which apply a filter or a test to each element.

use minijinja::{Error, State, Value};

use super::args::Args;
use super::budget;
use super::iteration::iterate;
use super::objects::Generator;
use super::sequences::Getter;

type Filtered = Result<Value, Error>;

pub(super) fn map(state: &mut State<'_, '_>, args: &Args) -> Filtered {
    let value = args.value();
    if !value.is_true() {
        return Ok(Generator::wrap(Vec::new()));
    }
    let keyword = |name: &str| args.keywords.iter().find(|(key, _)| key == name).map(|(_, value)| value);
    let mut out = Vec::new();
    if args.extra.is_empty()
        && let Some(attribute) = keyword("attribute")
    {
        if let Some((key, _)) = args.keywords.iter().find(|(key, _)| key != "attribute" && key != "default") {
            return Err(args.error(&format!("unexpected keyword argument '{key}'")));
        }
        let getter =
            Getter::new(Some(attribute), keyword("default").filter(|value| !value.is_none()).cloned());
        for item in iterate(value)? {
            budget::make(1)?;
            out.push(getter.get(&item?)?);
        }
        return Ok(Generator::wrap(out));
    }
    let Some((name, given)) = args.extra.split_first() else {
        return Err(args.error("requires a filter argument"));
    };
    let name = filter_name(args, name)?;
    let mut call = call_args(given, &args.keywords);
    for item in iterate(value)? {
        budget::make(1)?;
        call[0] = item?;
        out.push(state.apply_filter(&name, &call)?);
    }
    Ok(Generator::wrap(out))
}

fn filter_name(args: &Args, name: &Value) -> Result<String, Error> {
    match name.as_str() {
        Some(name) if !name.starts_with("__") => Ok(name.to_owned()),
        _ => Err(args.error("expected the name of a filter or test")),
    }
}

/// The arguments of a call, with a free place for the item in front.
fn call_args(given: &[Value], keywords: &[(String, Value)]) -> Vec<Value> {
    let mut call = vec![Value::UNDEFINED];
    call.extend(given.iter().cloned());
    if !keywords.is_empty() {
        call.push(Value::from(keywords.iter().cloned().collect::<minijinja::value::Kwargs>()));
    }
    call
}

/// What a test looks at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tested {
    Item,
    /// An attribute of the item, which the first argument names.
    Attribute,
}

/// Which items are kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    Passing,
    Failing,
}

/// `select` and `reject`; with an attribute, `selectattr` and `rejectattr`.
fn choose(state: &mut State<'_, '_>, args: &Args, tested: Tested, keep: Keep) -> Filtered {
    let value = args.value();
    if !value.is_true() {
        return Ok(Generator::wrap(Vec::new()));
    }
    let mut given = args.extra.as_slice();
    let mut getter = Getter::new(None, None);
    if tested == Tested::Attribute {
        let Some((attribute, rest)) = given.split_first() else {
            return Err(args.error("Missing parameter for attribute name"));
        };
        getter = Getter::new(Some(attribute), None);
        given = rest;
    }
    let test = match given.split_first() {
        Some((name, rest)) => Some((filter_name(args, name)?, call_args(rest, &args.keywords))),
        None => None,
    };
    let mut out = Vec::new();
    let mut test = test;
    for item in iterate(value)? {
        let item = item?;
        let looked_at = getter.get(&item)?;
        let holds = match &mut test {
            None => looked_at.is_true(),
            Some((name, call)) => {
                call[0] = looked_at;
                state.perform_test(name, call)?
            }
        };
        if holds == (keep == Keep::Passing) {
            budget::make(1)?;
            out.push(item);
        }
    }
    Ok(Generator::wrap(out))
}

pub(super) fn select(state: &mut State<'_, '_>, args: &Args) -> Filtered {
    choose(state, args, Tested::Item, Keep::Passing)
}

pub(super) fn reject(state: &mut State<'_, '_>, args: &Args) -> Filtered {
    choose(state, args, Tested::Item, Keep::Failing)
}

pub(super) fn selectattr(state: &mut State<'_, '_>, args: &Args) -> Filtered {
    choose(state, args, Tested::Attribute, Keep::Passing)
}

pub(super) fn rejectattr(state: &mut State<'_, '_>, args: &Args) -> Filtered {
    choose(state, args, Tested::Attribute, Keep::Failing)
}
