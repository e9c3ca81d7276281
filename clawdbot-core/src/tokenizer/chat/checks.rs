//! The tests of jinja2 (`x is test`).

use minijinja::value::{Rest, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, Value};

use super::args::{Args, Signature};
use super::numeric::{Number, number};
use super::objects::{Cycler, Joiner};
use super::{comparisons, filters, iteration, numbers, values};

type Check = fn(&Args) -> Result<bool, Error>;

/// Name, whether there is an argument, and the test.
const CHECKS: &[(&str, bool, Check)] = &[
    ("boolean", false, |args| Ok(args.value().kind() == ValueKind::Bool)),
    ("callable", false, |args| {
        let value = args.value();
        let is_object = value.kind() == ValueKind::Plain || values::type_name(value) == "object";
        Ok(is_object && value.downcast_object_ref::<Cycler>().is_none()
            || value.is_undefined()
            || value.downcast_object_ref::<Joiner>().is_some())
    }),
    ("defined", false, |args| Ok(!args.value().is_undefined())),
    ("undefined", false, |args| Ok(args.value().is_undefined())),
    ("none", false, |args| Ok(args.value().is_none())),
    ("escaped", false, |args| Ok(args.value().is_safe())),
    ("true", false, |args| Ok(args.value().kind() == ValueKind::Bool && args.value().is_true())),
    ("false", false, |args| Ok(args.value().kind() == ValueKind::Bool && !args.value().is_true())),
    ("integer", false, |args| Ok(args.value().kind() == ValueKind::Number && args.value().is_integer())),
    ("float", false, |args| Ok(args.value().kind() == ValueKind::Number && !args.value().is_integer())),
    ("number", false, |args| Ok(number(args.value()).is_some())),
    ("odd", false, |args| numbers::is_odd(args.value(), 1)),
    ("even", false, |args| numbers::is_odd(args.value(), 0)),
    ("divisibleby", true, |args| numbers::is_divisible(args.value(), argument(args))),
    ("string", false, |args| Ok(args.value().as_str().is_some())),
    ("mapping", false, |args| Ok(values::is_dict(args.value()))),
    ("iterable", false, |args| Ok(iteration::iterate(args.value()).is_ok())),
    ("sequence", false, |args| {
        let value = args.value();
        let kind = value.kind();
        Ok(matches!(kind, ValueKind::Undefined | ValueKind::String | ValueKind::Seq)
            || values::is_dict(value))
    }),
    ("lower", false, |args| {
        Ok(is_cased(&values::to_str(args.value())?, char::is_lowercase, char::is_uppercase))
    }),
    ("upper", false, |args| {
        Ok(is_cased(&values::to_str(args.value())?, char::is_uppercase, char::is_lowercase))
    }),
    ("in", true, |args| comparisons::contains(argument(args), args.value())),
    ("sameas", true, |args| same(args, args.value(), argument(args))),
    ("filter", false, |args| {
        comparisons::hashable(args.value())?;
        Ok(args.value().as_str().is_some_and(filters::is_known))
    }),
    ("test", false, |args| {
        comparisons::hashable(args.value())?;
        Ok(args.value().as_str().is_some_and(is_known))
    }),
];

/// Tests that are comparisons, with their names.
const COMPARISONS: &[(&str, &[&str])] = &[
    ("==", &["==", "eq", "equalto"]),
    ("!=", &["!=", "ne"]),
    (">", &[">", "gt", "greaterthan"]),
    (">=", &[">=", "ge"]),
    ("<", &["<", "lt", "lessthan"]),
    ("<=", &["<=", "le"]),
];

/// Replaces all tests of `env`.
pub(super) fn install(env: &mut Environment<'_>) {
    for name in ["safe", "int", "startingwith", "endingwith", "containing"] {
        env.remove_test(name);
    }
    for &(name, has_argument, check) in CHECKS {
        let params: &[&str] = if has_argument { &["value", "other"] } else { &["value"] };
        let signature = Signature { name, params, needed: params.len(), open: false };
        env.add_test(name, move |args: Rest<ValueOrKwargs>| check(&Args::bind(signature, args)?));
    }
    for &(sign, names) in COMPARISONS {
        for &name in names {
            let signature = Signature { name, params: &["value", "other"], needed: 2, open: false };
            env.add_test(name, move |args: Rest<ValueOrKwargs>| {
                let args = Args::bind(signature, args)?;
                comparisons::compare(sign, args.value(), argument(&args))
            });
        }
    }
}

fn argument(args: &Args) -> &Value {
    args.get(1).unwrap_or(&Value::UNDEFINED)
}

/// `str.islower` and `str.isupper`.
pub(super) fn is_cased(text: &str, wanted: fn(char) -> bool, other: fn(char) -> bool) -> bool {
    text.chars().any(wanted) && !text.chars().any(other)
}

fn is_known(name: &str) -> bool {
    CHECKS.iter().any(|(known, ..)| *known == name)
        || COMPARISONS.iter().any(|(_, names)| names.contains(&name))
}

/// Python's `is`. Whether equal numbers or strings are the same object depends on where they come from.
fn same(args: &Args, a: &Value, b: &Value) -> Result<bool, Error> {
    const SMALL: std::ops::RangeInclusive<i128> = -5..=256;
    if a.as_object().is_some() || b.as_object().is_some() {
        return Ok(values::same_object(a, b));
    }
    if values::type_name(a) != values::type_name(b) || !comparisons::equal(a, b, values::MAX_DEPTH)? {
        return Ok(false);
    }
    match (number(a), a.kind()) {
        (_, ValueKind::None | ValueKind::Bool) => Ok(true),
        (Some(Number::Int(int)), _) if SMALL.contains(&int) => Ok(true),
        _ => Err(args.error("identity of equal numbers, strings or undefined values is not supported")),
    }
}
