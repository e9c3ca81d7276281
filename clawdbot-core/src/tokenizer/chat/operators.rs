//! Python's operators, as the filters that `super::rewrite` writes for them. Each charges the budget for what it reads
//! and makes, and its result is a complete value.

use minijinja::value::{Rest, Tuple, ValueOrKwargs};
use minijinja::{Environment, Error, Value};

use super::comparisons::{comparison, hashable, walk};
use super::numeric::{Number, number, too_large};
use super::objects::{BoundMethod, Namespace, Range};
use super::values::{self, MAX_DEPTH, type_error, type_name, unsupported};
use super::{budget, percent};

/// Registers the filters in `env`.
pub(super) fn install(env: &mut Environment<'_>) {
    let add = |env: &mut Environment<'_>, name: &'static str, run: fn(&[Value]) -> Result<Value, Error>| {
        env.add_filter(name, move |args: Rest<ValueOrKwargs>| run(&args.into_values()));
    };
    add(env, "__chain__", |args| chain(&args[1..]));
    add(env, "__compare__", |args| comparison(&args[1..]).map(Value::from));
    add(env, "__concat__", |args| {
        let mut out = String::new();
        args[1..].iter().try_for_each(|value| values::write_str(&mut out, value))?;
        Ok(Value::from(out))
    });
    add(env, "__neg__", |args| match number(&args[1]) {
        Some(Number::Int(int)) => int.checked_neg().map(Value::from).ok_or_else(too_large),
        Some(Number::Float(float)) => Ok(Value::from(-float)),
        None => Err(unsupported("bad operand type for unary -", &args[1])),
    });
    add(env, "__pos__", |args| match number(&args[1]) {
        Some(Number::Int(int)) => Ok(Value::from(int)),
        Some(Number::Float(float)) => Ok(Value::from(float)),
        None => Err(unsupported("bad operand type for unary +", &args[1])),
    });
    add(env, "__item__", |args| {
        let value = item(&args[0], &args[1])?;
        // The engine charges for the bytes of a string.
        Ok(value)
    });
    add(env, "__slice__", |args| slice(&args[0], &args[1..]));
    add(env, "__attr__", |args| attribute(&args[0], args[1].as_str().unwrap_or_default()));
    add(env, "__key__", |args| {
        hashable(&args[0])?;
        Ok(args[0].clone())
    });
    add(env, "__walk__", |args| {
        walk(&args[0], MAX_DEPTH)?;
        Ok(args[0].clone())
    });
}

fn no_operator(sign: &str, a: &Value, b: &Value) -> Error {
    if a.is_undefined() || b.is_undefined() {
        return unsupported("", &Value::UNDEFINED);
    }
    type_error(format!("unsupported operand type(s) for {sign}: '{}' and '{}'", type_name(a), type_name(b)))
}

/// `operands[0] operands[1] operands[2] ...`, from left to right; the operators are at the odd indices.
fn chain(operands: &[Value]) -> Result<Value, Error> {
    let mut value = operands[0].clone();
    let mut rest = &operands[1..];
    while let [sign, operand, after @ ..] = rest {
        let sign = sign.as_str().unwrap_or_default();
        rest = after;
        let is_text = |value: &Value| value.as_str().is_some() && !value.is_safe();
        if sign == "+" && is_text(&value) && is_text(operand) {
            // Concatenate a chain of strings once.
            let mut text = value.as_str().unwrap_or_default().to_owned();
            text.push_str(operand.as_str().unwrap_or_default());
            while let [sign, next, after @ ..] = rest
                && sign.as_str() == Some("+")
                && is_text(next)
            {
                text.push_str(next.as_str().unwrap_or_default());
                rest = after;
            }
            budget::text(Some(text.len()))?;
            value = Value::from(text);
        } else {
            value = binary(sign, &value, operand)?;
        }
    }
    Ok(value)
}

fn binary(sign: &str, a: &Value, b: &Value) -> Result<Value, Error> {
    // A string from `escape` would escape what is added to it: refused instead of giving other text.
    if (a.is_safe() || b.is_safe()) && a.is_safe() != b.is_safe() {
        return Err(type_error(format!("{sign} of an escaped string is not supported")));
    }
    match sign {
        "+" => add(a, b),
        "*" => multiply(a, b),
        "%" if a.as_str().is_some() && a.is_safe() => {
            Err(type_error("% of an escaped string is not supported"))
        }
        "%" if a.as_str().is_some() => percent::format(a.as_str().unwrap_or_default(), b).map(Value::from),
        _ => match (number(a), number(b)) {
            (Some(x), Some(y)) => arithmetic(sign, x, y),
            _ => Err(no_operator(sign, a, b)),
        },
    }
}

/// `a + b`.
pub(super) fn add(a: &Value, b: &Value) -> Result<Value, Error> {
    if let (Some(x), Some(y)) = (a.as_str(), b.as_str()) {
        budget::text(x.len().checked_add(y.len()))?;
        let text = [x, y].concat();
        return Ok(if a.is_safe() { Value::from_safe_string(text) } else { Value::from(text) });
    }
    if let (Some(x), Some(y)) = (number(a), number(b)) {
        return arithmetic("+", x, y);
    }
    if values::is_list(a) && values::is_list(b) || a.is_tuple() && b.is_tuple() {
        budget::make(a.len().unwrap_or(0).saturating_add(b.len().unwrap_or(0)))?;
        let items: Vec<Value> = a.try_iter()?.chain(b.try_iter()?).collect();
        return Ok(if a.is_tuple() { Value::from(Tuple::from(items)) } else { Value::from(items) });
    }
    Err(no_operator("+", a, b))
}

fn multiply(a: &Value, b: &Value) -> Result<Value, Error> {
    if let (Some(x), Some(y)) = (number(a), number(b)) {
        return arithmetic("*", x, y);
    }
    let (sequence, count) = if number(a).is_some() { (b, a) } else { (a, b) };
    let Some(Number::Int(count)) = number(count) else { return Err(no_operator("*", a, b)) };
    let count = usize::try_from(count.max(0)).unwrap_or(usize::MAX);
    if let Some(text) = sequence.as_str() {
        budget::text(text.len().checked_mul(count))?;
        let text = text.repeat(count);
        return Ok(if sequence.is_safe() { Value::from_safe_string(text) } else { Value::from(text) });
    }
    if values::is_list(sequence) || sequence.is_tuple() {
        budget::make(sequence.len().unwrap_or(0).saturating_mul(count))?;
        let once: Vec<Value> = sequence.try_iter()?.collect();
        let count = if once.is_empty() { 0 } else { count };
        let items: Vec<Value> = (0..count).flat_map(|_| once.iter().cloned()).collect();
        return Ok(if sequence.is_tuple() { Value::from(Tuple::from(items)) } else { Value::from(items) });
    }
    Err(no_operator("*", a, b))
}

fn arithmetic(sign: &str, a: Number, b: Number) -> Result<Value, Error> {
    if matches!(sign, "/" | "//" | "%") && b.is_zero() {
        return Err(type_error("division by zero"));
    }
    if let (Number::Int(x), Number::Int(y)) = (a, b) {
        let int = match sign {
            "+" => x.checked_add(y),
            "-" => x.checked_sub(y),
            "*" => x.checked_mul(y),
            "//" => x.checked_div_euclid(y).and_then(|q| {
                // Euclidean division differs from floor division for a negative divisor with a remainder.
                if y < 0 && x.rem_euclid(y) != 0 { q.checked_sub(1) } else { Some(q) }
            }),
            "%" => {
                x.checked_rem(y).map(|rest| if rest != 0 && (rest < 0) != (y < 0) { rest + y } else { rest })
            }
            "**" if y >= 0 => match u32::try_from(y) {
                Ok(exponent) => x.checked_pow(exponent),
                Err(_) => (x.abs() <= 1).then_some(if y % 2 == 0 { x.abs() } else { x }),
            },
            _ => return float_arithmetic(sign, a.float(), b.float()),
        };
        return int.map(Value::from).ok_or_else(too_large);
    }
    float_arithmetic(sign, a.float(), b.float())
}

fn float_arithmetic(sign: &str, a: f64, b: f64) -> Result<Value, Error> {
    let (quotient, rest) = floor_divide(a, b);
    let value = match sign {
        "+" => a + b,
        "-" => a - b,
        "*" => a * b,
        "/" => a / b,
        "//" => quotient,
        "%" => rest,
        _ if a == 0.0 && b < 0.0 => return Err(type_error("zero cannot be raised to a negative power")),
        _ if a < 0.0 && a.is_finite() && b.is_finite() && b.fract() != 0.0 => {
            return Err(type_error("complex numbers are not supported"));
        }
        _ => a.powf(b),
    };
    if sign == "**" && value.is_infinite() && a.is_finite() && b.is_finite() {
        return Err(type_error("the result is too large"));
    }
    Ok(Value::from(value))
}

/// Python's `divmod` of floats: the remainder has the sign of the divisor.
fn floor_divide(a: f64, b: f64) -> (f64, f64) {
    let mut rest = a % b;
    let mut quotient = (a - rest) / b;
    if rest == 0.0 {
        rest = 0.0_f64.copysign(b);
    } else if (rest < 0.0) != (b < 0.0) {
        rest += b;
        quotient -= 1.0;
    }
    if quotient == 0.0 {
        return (0.0_f64.copysign(a / b), rest);
    }
    let floor = quotient.floor();
    (if quotient - floor > 0.5 { floor + 1.0 } else { floor }, rest)
}

/// `value[key]`; undefined where Python raises an `IndexError`, a `KeyError` or a `TypeError`.
pub(super) fn item(value: &Value, key: &Value) -> Result<Value, Error> {
    if value.is_undefined() {
        return Err(unsupported("", value));
    }
    if values::is_dict(value) {
        if values::is_dict(key) || values::is_list(key) {
            return Ok(Value::UNDEFINED);
        }
        hashable(key)?;
        return Ok(match (values::entry(value, key)?, key.as_str()) {
            (Some(item), _) => item,
            (None, Some(name)) => BoundMethod::of(value, name).unwrap_or(Value::UNDEFINED),
            (None, None) => Value::UNDEFINED,
        });
    }
    if let Some(name) = key.as_str() {
        return if values::has_method(value, name) { attribute(value, name) } else { other_item(value, key) };
    }
    let Some(Number::Int(at)) = number(key) else { return Ok(Value::UNDEFINED) };
    let from_end = |length: usize| if at < 0 { at + length as i128 } else { at };
    if let Some(text) = value.as_str() {
        budget::scan(text.len())?;
        let at = if at < 0 { from_end(text.chars().count()) } else { at };
        let found = usize::try_from(at).ok().and_then(|at| text.chars().nth(at));
        return Ok(found.map_or(Value::UNDEFINED, |c| Value::from(c.to_string())));
    }
    if values::is_list(value) || value.is_tuple() || value.downcast_object_ref::<Range>().is_some() {
        let at = from_end(value.len().unwrap_or(0));
        let found = usize::try_from(at).ok().and_then(|at| value.as_object()?.get_value(&Value::from(at)));
        return Ok(found.unwrap_or(Value::UNDEFINED));
    }
    other_item(value, key)
}

fn other_item(value: &Value, key: &Value) -> Result<Value, Error> {
    match value.as_object() {
        Some(object) if !values::is_list(value) => Ok(object.get_value(key).unwrap_or(Value::UNDEFINED)),
        _ => Ok(Value::UNDEFINED),
    }
}

/// `value.name` where `name` is a method of some type, without a call.
fn attribute(value: &Value, name: &str) -> Result<Value, Error> {
    if value.is_undefined() {
        return Err(unsupported("", value));
    }
    if values::is_dict(value) {
        let found = BoundMethod::of(value, name).map(Ok);
        let entry = || Ok(values::entry(value, &Value::from(name))?.unwrap_or(Value::UNDEFINED));
        return found.unwrap_or_else(entry);
    }
    if values::has_method(value, name) {
        return Err(type_error(format!("expected a call of the method {name} of a '{}'", type_name(value))));
    }
    if Namespace::is(value) || value.as_object().is_some() {
        return value.get_attr(name);
    }
    Ok(Value::UNDEFINED)
}

/// `value[start:stop:step]`, with none for absent bounds.
fn slice(value: &Value, bounds: &[Value]) -> Result<Value, Error> {
    let bound = |at: usize| -> Result<Option<i64>, Error> {
        match number(&bounds[at]) {
            _ if bounds[at].is_none() => Ok(None),
            Some(Number::Int(int)) => {
                Ok(Some(i64::try_from(int).unwrap_or(if int < 0 { i64::MIN } else { i64::MAX })))
            }
            _ => Err(unsupported("slice indices must be integers or None, not", &bounds[at])),
        }
    };
    let (start, stop, step) = (bound(0)?, bound(1)?, bound(2)?.unwrap_or(1));
    if step == 0 {
        return Err(type_error("slice step cannot be zero"));
    }
    // As in Python: negative bounds count from the end, and bounds are clamped to the length.
    let ends = |length: usize| {
        let length = i64::try_from(length).unwrap_or(i64::MAX);
        let (low, high) = if step > 0 { (0, length) } else { (-1, length - 1) };
        let place = |bound: Option<i64>, absent: i64| match bound {
            None => absent,
            Some(at) if at < 0 => at.saturating_add(length).max(low),
            Some(at) => at.min(high),
        };
        let (first, end) = if step > 0 { (low, high) } else { (high, low) };
        (place(start, first), place(stop, end))
    };
    let places = |length: usize| {
        let (mut at, end) = ends(length);
        std::iter::from_fn(move || {
            let more = if step > 0 { at < end } else { at > end };
            more.then(|| {
                let found = at;
                at = at.saturating_add(step);
                usize::try_from(found).unwrap_or(0)
            })
        })
    };
    if let Some(text) = value.as_str() {
        budget::text(Some(text.len()))?;
        let out: String = if step == 1 {
            // Characters in order from the first index on, as many as there are indices.
            let mut taken = places(text.chars().count());
            match taken.next() {
                None => String::new(),
                Some(first) => text.chars().skip(first).take(1 + taken.count()).collect(),
            }
        } else {
            budget::text(text.len().checked_mul(4))?;
            let chars: Vec<char> = text.chars().collect();
            places(chars.len()).map(|at| chars[at]).collect()
        };
        return Ok(if value.is_safe() { Value::from_safe_string(out) } else { Value::from(out) });
    }
    if let Some(range) = value.downcast_object_ref::<Range>() {
        let (first, end) = ends(value.len().unwrap_or(0));
        return Ok(range.slice(first, end, step));
    }
    if values::is_list(value) || value.is_tuple() {
        budget::make(value.len().unwrap_or(0))?;
        let items: Vec<Value> = value.try_iter()?.collect();
        let taken: Vec<Value> = places(items.len()).map(|at| items[at].clone()).collect();
        return Ok(if value.is_tuple() { Value::from(Tuple::from(taken)) } else { Value::from(taken) });
    }
    Err(unsupported("slices are not possible on", value))
}
