//! Filters on numbers, as in jinja2.

use minijinja::{Error, State, Value};

use super::args::Args;
use super::numeric::{Number, number, too_large};
use super::values::unsupported;
use super::{budget, methods};

type Filtered = Result<Value, Error>;

pub(super) fn abs(_: &mut State<'_, '_>, args: &Args) -> Filtered {
    match number(args.value()) {
        Some(Number::Int(int)) => int.checked_abs().map(Value::from).ok_or_else(too_large),
        Some(Number::Float(float)) => Ok(Value::from(float.abs())),
        None => Err(unsupported("bad operand type for abs():", args.value())),
    }
}

fn of_float(float: f64) -> Option<Value> {
    const BEYOND: f64 = 1.7e38;
    (float.abs() < BEYOND).then(|| Value::from(float.trunc() as i128))
}

pub(super) fn int(_: &mut State<'_, '_>, args: &Args) -> Filtered {
    let default = || args.get(1).cloned().unwrap_or_else(|| Value::from(0));
    let value = args.value();
    if let Some(text) = value.as_str() {
        budget::scan(text.len())?;
        // With a base that is no integer, jinja2 reads a float.
        let base = args.get(2).map_or(Some(Number::Int(10)), number);
        if let Some(Number::Int(_)) = base
            && let Some(int) = parse_int(args, text, args.integer(2, 10)?)?
        {
            return Ok(Value::from(int));
        }
        return match parse_float(args, text)? {
            Some(float) if float.is_finite() => of_float(float).ok_or_else(too_large),
            _ => Ok(default()),
        };
    }
    match number(value) {
        Some(Number::Int(int)) => Ok(Value::from(int)),
        Some(Number::Float(float)) if float.is_nan() => Ok(default()),
        Some(Number::Float(float)) if float.is_infinite() => {
            Err(args.error("cannot convert float infinity to integer"))
        }
        Some(Number::Float(float)) => of_float(float).ok_or_else(too_large),
        None if value.is_undefined() => Err(unsupported("", value)),
        None => Ok(default()),
    }
}

pub(super) fn float(_: &mut State<'_, '_>, args: &Args) -> Filtered {
    let default = || args.get(1).cloned().unwrap_or_else(|| Value::from(0.0));
    let value = args.value();
    if let Some(text) = value.as_str() {
        budget::scan(text.len())?;
        return Ok(parse_float(args, text)?.map_or_else(default, Value::from));
    }
    match number(value) {
        Some(number) => Ok(Value::from(number.float())),
        None if value.is_undefined() => Err(unsupported("", value)),
        None => Ok(default()),
    }
}

/// Python also reads digits of other scripts.
fn refuse_other_digits(args: &Args, text: &str) -> Result<(), Error> {
    if text.chars().any(|c| !c.is_ascii() && c.is_numeric()) {
        return Err(args.error("digits of other scripts are not supported"));
    }
    Ok(())
}

/// Removes underscores between digits; `None` if they are elsewhere.
fn without_underscores(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let is_digit = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_alphanumeric);
    let wrong = (0..bytes.len())
        .any(|at| bytes[at] == b'_' && !(is_digit(at.checked_sub(1)) && is_digit(Some(at + 1))));
    (!wrong).then(|| text.replace('_', ""))
}

fn parse_int(args: &Args, text: &str, base: i64) -> Result<Option<i128>, Error> {
    if base != 0 && !(2..=36).contains(&base) {
        // Python's ValueError: for the filter, the text is not a number.
        return Ok(None);
    }
    refuse_other_digits(args, text)?;
    let text = methods::strip(text, None, methods::Sides::Both);
    let (negative, digits) = match text.strip_prefix(['+', '-']) {
        Some(digits) => (text.starts_with('-'), digits),
        None => (false, text),
    };
    let marked = [("0x", 16), ("0o", 8), ("0b", 2)].into_iter().find(|(mark, radix)| {
        (base == 0 || base == *radix) && digits.get(..2).is_some_and(|start| start.eq_ignore_ascii_case(mark))
    });
    let (radix, digits) = match marked {
        Some((_, radix)) => (radix, digits[2..].strip_prefix('_').unwrap_or(&digits[2..])),
        None if base == 0
            && digits.len() > 1
            && digits.starts_with('0')
            && digits.bytes().any(|b| b != b'0' && b != b'_') =>
        {
            return Ok(None);
        }
        None => (if base == 0 { 10 } else { base }, digits),
    };
    let radix = u32::try_from(radix).unwrap_or(10);
    let Some(digits) = without_underscores(digits) else { return Ok(None) };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Ok(None);
    }
    let int = i128::from_str_radix(&digits, radix).map_err(|_| too_large())?;
    Ok(Some(if negative { -int } else { int }))
}

fn parse_float(args: &Args, text: &str) -> Result<Option<f64>, Error> {
    refuse_other_digits(args, text)?;
    let text = methods::strip(text, None, methods::Sides::Both);
    let word = text.trim_start_matches(['+', '-']).to_ascii_lowercase();
    let is_word = matches!(word.as_str(), "nan" | "inf" | "infinity") && text.len() <= word.len() + 1;
    let is_digits = word.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE_".contains(&byte));
    if !is_word && !is_digits {
        return Ok(None);
    }
    Ok(without_underscores(text).and_then(|text| text.parse().ok()))
}

pub(super) fn round(_: &mut State<'_, '_>, args: &Args) -> Filtered {
    let method = args.get(2).map_or(Some("common"), |method| method.as_str());
    let Some(method @ ("common" | "ceil" | "floor")) = method else {
        return Err(args.error("method must be common, ceil or floor"));
    };
    let value = args.value();
    let Some(found) = number(value) else { return Err(unsupported("expected a number, found", value)) };
    if method == "common" {
        let precision = match args.get(1) {
            Some(precision) if precision.is_none() => None,
            _ => Some(args.integer(1, 0)?),
        };
        return match (found, precision) {
            (Number::Int(int), None) => Ok(Value::from(int)),
            (Number::Int(int), Some(precision)) => {
                round_int(int, precision).map(Value::from).ok_or_else(too_large)
            }
            (Number::Float(float), None) if !float.is_finite() => {
                Err(args.error("cannot convert float to integer"))
            }
            (Number::Float(float), None) => of_float(float.round_ties_even()).ok_or_else(too_large),
            (Number::Float(float), Some(precision)) => Ok(Value::from(round_float(float, precision))),
        };
    }
    let precision = i32::try_from(args.integer(1, 0)?).ok().filter(|precision| precision.abs() <= 300);
    let precision = precision.ok_or_else(|| args.error("the precision is too large"))?;
    let scale = 10_f64.powi(precision);
    let scaled = found.float() * scale;
    if !scaled.is_finite() {
        return Err(args.error("cannot convert float to integer"));
    }
    let whole = if method == "ceil" { scaled.ceil() } else { scaled.floor() };
    // Python's ceil and floor return an integer, which has no negative zero.
    Ok(Value::from((whole + 0.0) / scale))
}

fn round_int(int: i128, precision: i64) -> Option<i128> {
    if precision >= 0 {
        return Some(int);
    }
    let Some(unit) = u32::try_from(-precision).ok().and_then(|digits| 10_i128.checked_pow(digits)) else {
        return Some(0);
    };
    let rest = int.rem_euclid(unit);
    let below = int - rest;
    let up = rest * 2 > unit || rest * 2 == unit && (below / unit) % 2 != 0;
    if up { below.checked_add(unit) } else { Some(below) }
}

fn round_float(float: f64, precision: i64) -> f64 {
    if !float.is_finite() || precision > 323 {
        return float;
    }
    if precision < -308 {
        return 0.0_f64.copysign(float);
    }
    if let Ok(digits) = usize::try_from(precision) {
        // The exact decimal expansion, ties rounded to even.
        return format!("{float:.digits$}").parse().unwrap_or(float);
    }
    let unit = 10_f64.powi(i32::try_from(-precision).unwrap_or(0));
    (float / unit).round_ties_even() * unit
}

pub(super) fn filesizeformat(_: &mut State<'_, '_>, args: &Args) -> Filtered {
    let value = args.value();
    let binary = args.flag(1, false);
    let bytes = match (number(value), value.as_str()) {
        (Some(number), _) => number.float(),
        (None, Some(text)) => {
            parse_float(args, text)?.ok_or_else(|| args.error("could not convert string to float"))?
        }
        _ => return Err(unsupported("expected a number, found", value)),
    };
    let base: f64 = if binary { 1024.0 } else { 1000.0 };
    let prefixes: [&str; 8] = if binary {
        ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"]
    } else {
        ["kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"]
    };
    if bytes == 1.0 {
        return Ok(Value::from("1 Byte"));
    }
    if bytes < base {
        return Ok(Value::from(format!("{} Bytes", bytes.trunc() + 0.0)));
    }
    let mut unit = base;
    for (at, prefix) in prefixes.iter().enumerate() {
        unit *= base;
        if bytes < unit || at + 1 == prefixes.len() {
            return Ok(Value::from(format!("{:.1} {prefix}", base * bytes / unit)));
        }
    }
    Err(args.error("not a number"))
}

pub(super) fn is_odd(value: &Value, wanted: i128) -> Result<bool, Error> {
    match number(value) {
        Some(Number::Int(int)) => Ok(int.rem_euclid(2) == wanted),
        Some(Number::Float(float)) => Ok(float.rem_euclid(2.0) == wanted as f64),
        None => Err(unsupported("expected a number, found", value)),
    }
}

pub(super) fn is_divisible(value: &Value, by: &Value) -> Result<bool, Error> {
    match (number(value), number(by)) {
        (Some(_), Some(Number::Int(0))) => Err(unsupported("division by zero of", value)),
        (Some(Number::Int(int)), Some(Number::Int(by))) => Ok(int.checked_rem(by).unwrap_or(0) == 0),
        (Some(_), Some(by)) if by.float() == 0.0 => Err(unsupported("division by zero of", value)),
        (Some(number), Some(by)) => Ok(number.float() % by.float() == 0.0),
        (None, _) => Err(unsupported("expected a number, found", value)),
        _ => Err(unsupported("expected a number, found", by)),
    }
}
