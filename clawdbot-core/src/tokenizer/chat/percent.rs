//! Python's `%` formatting of strings.

use minijinja::{Error, Value};

use super::budget;
use super::methods::MAX_WIDTH;
use super::numeric::{self, Number};
use super::values::{self, type_error};

/// Most digits after the point.
const MAX_PRECISION: usize = 1000;

/// One conversion, `%(key)-05.2f`.
#[derive(Debug, Default, Clone)]
struct Conversion {
    left: bool,
    plus: bool,
    space: bool,
    alternate: bool,
    zero: bool,
    width: usize,
    precision: Option<usize>,
}

/// Values that are not formatted yet.
struct Given<'v> {
    values: Vec<Value>,
    at: usize,
    mapping: Option<&'v Value>,
}

impl Given<'_> {
    fn next(&mut self) -> Result<Value, Error> {
        let value = self.values.get(self.at).cloned();
        self.at += 1;
        value.ok_or_else(|| type_error("not enough arguments for format string"))
    }
}

/// `text % given`.
pub(super) fn format(text: &str, given: &Value) -> Result<String, Error> {
    let is_tuple = given.is_tuple() || values::is_group(given);
    let mut given_values = Given {
        values: if is_tuple { super::iteration::collect(given)? } else { vec![given.clone()] },
        at: 0,
        mapping: (values::is_dict(given) || values::is_list(given)).then_some(given),
    };
    let mut out = String::new();
    let mut used_key = false;
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        budget::text(Some(at))?;
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let mut key = None;
        if rest.starts_with('(') {
            let end = key_end(rest).ok_or_else(|| type_error("incomplete format key"))?;
            let mapping = given_values.mapping.filter(|value| values::is_dict(value));
            let mapping = mapping.ok_or_else(|| type_error("format requires a mapping"))?;
            let name = Value::from(&rest[1..end]);
            key = Some(
                values::entry(mapping, &name)?
                    .ok_or_else(|| type_error(format!("no key {name:?} to format")))?,
            );
            used_key = true;
            rest = &rest[end + 1..];
        }
        let mut conversion = Conversion::default();
        loop {
            match rest.bytes().next() {
                Some(b'-') => conversion.left = true,
                Some(b'+') => conversion.plus = true,
                Some(b' ') => conversion.space = true,
                Some(b'#') => conversion.alternate = true,
                Some(b'0') => conversion.zero = true,
                _ => break,
            }
            rest = &rest[1..];
        }
        if let Some(width) = size(&mut rest, &mut given_values, key.is_some())? {
            conversion.left |= width < 0;
            conversion.width = usize::try_from(width.unsigned_abs()).unwrap_or(usize::MAX);
            if conversion.width > MAX_WIDTH {
                return Err(type_error(format!("expected a width of at most {MAX_WIDTH}")));
            }
        }
        if let Some(after) = rest.strip_prefix('.') {
            rest = after;
            let precision = size(&mut rest, &mut given_values, key.is_some())?.unwrap_or(0);
            conversion.precision = Some(usize::try_from(precision).unwrap_or(0));
        }
        rest = rest.strip_prefix(['h', 'l', 'L']).unwrap_or(rest);
        let kind = rest.chars().next().ok_or_else(|| type_error("incomplete format"))?;
        rest = &rest[kind.len_utf8()..];
        if kind == '%' {
            out.push('%');
            continue;
        }
        let value = match key {
            Some(value) => value,
            None => given_values.next()?,
        };
        conversion.write(&mut out, kind, &value)?;
    }
    budget::text(Some(rest.len()))?;
    out.push_str(rest);
    // Anything that Python can index counts as a mapping, which need not be used up.
    let is_mapping =
        given_values.mapping.is_some() || given.is_undefined() || values::type_name(given) == "range";
    if !used_key && !is_mapping && given_values.at < given_values.values.len() {
        return Err(type_error("not all arguments converted during string formatting"));
    }
    Ok(out)
}

/// The position of the parenthesis that closes the one at the start of `rest`.
fn key_end(rest: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, byte) in rest.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// A width or precision: digits, or `*` for the next value.
fn size(rest: &mut &str, given: &mut Given<'_>, with_key: bool) -> Result<Option<i64>, Error> {
    if let Some(after) = rest.strip_prefix('*') {
        *rest = after;
        if with_key {
            return Err(type_error("* wants int"));
        }
        return numeric::integer(&given.next()?).map(Some);
    }
    let length = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, after) = rest.split_at(length);
    *rest = after;
    if digits.is_empty() {
        return Ok(None);
    }
    digits
        .parse()
        .map(Some)
        .map_err(|_| type_error(format!("the number {digits} in the format is too large")))
}

impl Conversion {
    fn write(&self, out: &mut String, kind: char, value: &Value) -> Result<(), Error> {
        let text = match kind {
            's' => self.cut(values::to_str(value)?),
            'r' => self.cut(values::to_repr(value)?),
            'a' => return Err(type_error("%a is not supported")),
            'c' => character(value)?,
            'd' | 'i' | 'u' | 'x' | 'X' | 'o' => return self.integer(out, kind, value),
            'e' | 'E' | 'f' | 'F' | 'g' | 'G' => return self.float(out, kind, value),
            other => return Err(type_error(format!("unsupported format character {other:?}"))),
        };
        self.pad(out, "", &text, false)
    }

    fn cut(&self, text: String) -> String {
        match self.precision {
            Some(precision) => text.chars().take(precision).collect(),
            None => text,
        }
    }

    fn sign(&self, negative: bool) -> &'static str {
        match (negative, self.plus, self.space) {
            (true, ..) => "-",
            (false, true, _) => "+",
            (false, false, true) => " ",
            _ => "",
        }
    }

    fn integer(&self, out: &mut String, kind: char, value: &Value) -> Result<(), Error> {
        let not_a_number = || {
            let what = if matches!(kind, 'd' | 'i' | 'u') { "a real number" } else { "an integer" };
            if value.is_undefined() {
                return values::unsupported("", value);
            }
            type_error(format!("%{kind} format: {what} is required, not {}", values::type_name(value)))
        };
        let int = match numeric::number(value) {
            Some(Number::Int(int)) => int,
            Some(Number::Float(float)) if matches!(kind, 'd' | 'i' | 'u') => {
                if !float.is_finite() || float.abs() >= 1e38 {
                    return Err(type_error("cannot convert float to integer"));
                }
                float.trunc() as i128
            }
            _ => return Err(not_a_number()),
        };
        let digits = int.unsigned_abs();
        let (digits, mark) = match kind {
            'x' => (format!("{digits:x}"), "0x"),
            'X' => (format!("{digits:X}"), "0X"),
            'o' => (format!("{digits:o}"), "0o"),
            _ => (digits.to_string(), ""),
        };
        let precision = self.precision.unwrap_or(0);
        if precision > MAX_PRECISION {
            return Err(type_error(format!("expected a precision of at most {MAX_PRECISION}")));
        }
        let digits = format!("{}{digits}", "0".repeat(precision.saturating_sub(digits.len())));
        let prefix = format!("{}{}", self.sign(int < 0), if self.alternate { mark } else { "" });
        self.pad(out, &prefix, &digits, self.zero)
    }

    fn float(&self, out: &mut String, kind: char, value: &Value) -> Result<(), Error> {
        let Some(number) = numeric::number(value) else {
            return Err(values::unsupported("must be real number, not", value));
        };
        let float = number.float();
        let precision = self.precision.unwrap_or(6);
        if precision > MAX_PRECISION {
            return Err(type_error(format!("expected a precision of at most {MAX_PRECISION}")));
        }
        let text = float_text(float.abs(), kind, precision, self.alternate);
        let negative = float.is_sign_negative() && !float.is_nan();
        self.pad(out, self.sign(negative), &text, self.zero)
    }

    fn pad(&self, out: &mut String, prefix: &str, text: &str, zeros: bool) -> Result<(), Error> {
        let missing = self.width.saturating_sub(prefix.len() + text.chars().count());
        budget::text(Some(missing.saturating_add(prefix.len() + text.len())))?;
        let fill = |out: &mut String, fill: char| out.extend(std::iter::repeat_n(fill, missing));
        if !self.left && !zeros {
            fill(out, ' ');
        }
        out.push_str(prefix);
        if !self.left && zeros {
            fill(out, '0');
        }
        out.push_str(text);
        if self.left {
            fill(out, ' ');
        }
        Ok(())
    }
}

fn character(value: &Value) -> Result<String, Error> {
    if let Some(text) = value.as_str() {
        let mut chars = text.chars();
        return match (chars.next(), chars.next()) {
            (Some(_), None) => Ok(text.to_owned()),
            _ => Err(type_error("%c requires int or char")),
        };
    }
    match numeric::number(value) {
        Some(Number::Int(int)) => u32::try_from(int)
            .ok()
            .and_then(char::from_u32)
            .map(String::from)
            .ok_or_else(|| type_error("%c arg not in range(0x110000)")),
        _ => Err(values::unsupported("%c requires int or char, not", value)),
    }
}

/// A number that is not negative, as C's `printf` writes it.
pub(super) fn float_text(float: f64, kind: char, precision: usize, alternate: bool) -> String {
    let upper = kind.is_uppercase();
    let text = if float.is_nan() {
        "nan".to_owned()
    } else if float.is_infinite() {
        "inf".to_owned()
    } else {
        match kind.to_ascii_lowercase() {
            'f' => format!("{float:.precision$}") + if alternate && precision == 0 { "." } else { "" },
            'e' => exponential(float, precision, alternate),
            _ => general(float, precision, alternate),
        }
    };
    if upper { text.to_uppercase() } else { text }
}

fn exponential(float: f64, precision: usize, alternate: bool) -> String {
    let text = format!("{float:.precision$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let point = if alternate && precision == 0 { "." } else { "" };
    format!("{mantissa}{point}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.unsigned_abs())
}

fn general(float: f64, precision: usize, alternate: bool) -> String {
    let precision = precision.max(1);
    let scientific = format!("{float:.*e}", precision - 1);
    let exponent: i64 =
        scientific.split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or(0);
    let cut = |text: &str| -> String {
        if alternate || !text.contains('.') {
            text.to_owned()
        } else {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
    };
    if exponent < -4 || exponent >= precision as i64 {
        let text = exponential(float, precision - 1, alternate);
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "+00"));
        return format!("{}e{exponent}", cut(mantissa));
    }
    let digits = usize::try_from(precision as i64 - 1 - exponent).unwrap_or(0);
    let text = format!("{float:.digits$}");
    cut(&if alternate && digits == 0 { text + "." } else { text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_formatted_as_in_python() {
        for (text, number, expected) in [
            ("%d|", 3.9, "3|"),
            ("%5.2f%%", 2.34567, " 2.35%"),
            ("%-8.3e|", 12345.678, "1.235e+04|"),
            ("%g", 1e-5, "1e-05"),
            ("%g", 123_456_789.0, "1.23457e+08"),
            ("%#.3g", 1.0, "1.00"),
            ("%+08.1f", -2.55, "-00002.5"),
            ("%.0f", 2.5, "2"),
            ("%G", f64::INFINITY, "INF"),
        ] {
            assert_eq!(format(text, &Value::from(number)).expect(text), expected, "{text}");
        }
        for (text, number, expected) in
            [("%05d", -3, "-0003"), ("%#x", 255, "0xff"), ("%.3d", 7, "007"), ("%c", 233, "é")]
        {
            assert_eq!(format(text, &Value::from(number)).expect(text), expected, "{text}");
        }
    }

    #[test]
    fn unsupported_formats_are_refused() {
        for text in
            ["%", "%q", "%d %d", "%(a)s", "x", "%999999999999999999999d", "%1000000d", "%.5000f", "%*d"]
        {
            assert!(format(text, &Value::from(1)).is_err(), "{text}");
        }
    }
}
