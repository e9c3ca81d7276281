//! JSON from untrusted files, checked before any value is built.
//!
//! It is read as Python does: `Infinity`, `-Infinity` and `NaN` are numbers. JSON values cannot hold them, so they
//! become what transformers writes instead, `{"__float__": "Infinity"}`. A byte order mark at the start is skipped.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

/// Most values kept of a file. A value takes up to 72 bytes, and two bytes of a file may be a value.
const MAX_VALUES: usize = 1 << 19;
/// Key of an object that stands for a number that JSON does not have.
const FLOAT_KEY: &str = "__float__";
/// Those numbers in Python's notation, the longest first.
const FLOATS: [(&str, f64); 3] =
    [("-Infinity", f64::NEG_INFINITY), ("Infinity", f64::INFINITY), ("NaN", f64::NAN)];

/// Limits on the number of values: for the whole file, and for certain keys of the outermost object.
pub(crate) struct Limits<'a> {
    pub(crate) values: usize,
    /// The limit for a key whose value starts at `rest`; `None`: it counts towards the common limit.
    pub(crate) of_key: &'a dyn Fn(&str, &[u8]) -> Option<usize>,
}

/// Parses `json`.
///
/// # Errors
/// A message for what is malformed or has too many values.
pub(crate) fn value(json: &[u8]) -> Result<Value, String> {
    let limits = Limits { values: MAX_VALUES, of_key: &|_, _| None };
    serde_json::from_slice(&checked(json, &limits)?).map_err(malformed)
}

/// Parses the object in `json`, keeping only the keys that `keep` accepts. Other values are read but not built.
///
/// # Errors
/// As [`value`], and if it is not an object.
pub(crate) fn object(json: &[u8], keep: fn(&str) -> bool) -> Result<Map<String, Value>, String> {
    let left_out = |key: &str, _: &[u8]| (!keep(key)).then_some(usize::MAX);
    let json = checked(json, &Limits { values: MAX_VALUES, of_key: &left_out })?;
    let mut deserializer = serde_json::Deserializer::from_slice(&json);
    let map = deserializer.deserialize_map(Keep(keep)).map_err(malformed)?;
    deserializer.end().map_err(malformed)?;
    Ok(map)
}

fn malformed(error: serde_json::Error) -> String {
    format!("malformed JSON: {error}")
}

struct Keep(fn(&str) -> bool);

impl<'de> Visitor<'de> for Keep {
    type Value = Map<String, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut kept = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if (self.0)(&key) {
                kept.insert(key, map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(kept)
    }
}

/// The number, Python's numbers included.
pub(crate) fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| {
        let name = python_number(value)?;
        FLOATS.iter().find(|(known, _)| *known == name).map(|&(_, number)| number)
    })
}

/// The name of a number that JSON does not have, if it is one.
pub(crate) fn python_number(value: &Value) -> Option<&str> {
    let object = value.as_object().filter(|object| object.len() == 1)?;
    let name = object.get(FLOAT_KEY)?.as_str()?;
    FLOATS.iter().any(|(known, _)| *known == name).then_some(name)
}

/// `json` prepared for the parser: without a byte order mark, with Python's numbers replaced, and within `limits`. The
/// parser itself checks the syntax, and limits the nesting to 128.
///
/// # Errors
/// A message for too many values, and for UTF-16.
pub(crate) fn checked<'a>(json: &'a [u8], limits: &Limits<'_>) -> Result<Cow<'a, [u8]>, String> {
    if json.starts_with(&[0xff, 0xfe]) || json.starts_with(&[0xfe, 0xff]) {
        return Err("expected UTF-8, found the byte order mark (BOM) of UTF-16".to_owned());
    }
    let json = json.strip_prefix("\u{feff}".as_bytes()).unwrap_or(json);
    let numbers = Scan::new(json, limits).run()?;
    if numbers.is_empty() {
        return Ok(json.into());
    }
    let mut out = Vec::new();
    let mut end = 0;
    for PythonNumber { at, name } in numbers {
        out.extend_from_slice(&json[end..at]);
        out.extend_from_slice(format!("{{\"{FLOAT_KEY}\":\"{name}\"}}").as_bytes());
        end = at + name.len();
    }
    out.extend_from_slice(&json[end..]);
    Ok(out.into())
}

/// Scans JSON by its punctuation.
struct Scan<'a> {
    json: &'a [u8],
    limits: &'a Limits<'a>,
    depth: usize,
    /// The last string directly in the outermost object, escapes included.
    text: &'a [u8],
    /// Values still allowed, in all and (`own`) for the current key.
    left: usize,
    of_key: Option<Own>,
    numbers: Vec<PythonNumber>,
}

/// A number that JSON does not have.
struct PythonNumber {
    /// Where it is in the text.
    at: usize,
    name: &'static str,
}

/// Values of a key with a limit of its own.
struct Own {
    most: usize,
    left: usize,
}

impl<'a> Scan<'a> {
    fn new(json: &'a [u8], limits: &'a Limits<'a>) -> Self {
        let left = limits.values;
        Scan { json, limits, depth: 0, text: &[], left, of_key: None, numbers: Vec::new() }
    }

    fn run(mut self) -> Result<Vec<PythonNumber>, String> {
        let mut at = 0;
        while let Some(&byte) = self.json.get(at) {
            match byte {
                b'"' => {
                    let end = string_end(self.json, at + 1);
                    if self.depth == 1 {
                        self.text = &self.json[at + 1..end];
                    }
                    at = end;
                }
                b'{' | b'[' => {
                    self.depth += 1;
                    self.count(1)?;
                }
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                b':' if self.depth == 1 => {
                    self.of_key = self.limit_of_key(at + 1);
                    self.count(1)?;
                }
                b':' | b',' => self.count(1)?,
                b'-' | b'I' | b'N' => {
                    let found = FLOATS.iter().find(|(name, _)| self.json[at..].starts_with(name.as_bytes()));
                    if let Some(&(name, _)) = found {
                        self.numbers.push(PythonNumber { at, name });
                        at += name.len() - 1;
                        // Becomes an object with a key and a string.
                        self.count(3)?;
                    }
                }
                _ => {}
            }
            at += 1;
        }
        Ok(self.numbers)
    }

    fn limit_of_key(&self, rest: usize) -> Option<Own> {
        // A key with escapes matches no limit: it counts towards the common one.
        let key = std::str::from_utf8(self.text).ok().filter(|key| !key.contains('\\'))?;
        (self.limits.of_key)(key, &self.json[rest..]).map(|most| Own { most, left: most })
    }

    fn count(&mut self, values: usize) -> Result<(), String> {
        let (left, most) = match &mut self.of_key {
            Some(Own { most, left }) => (left, *most),
            None => (&mut self.left, self.limits.values),
        };
        match left.checked_sub(values) {
            Some(fewer) => {
                *left = fewer;
                Ok(())
            }
            None => {
                let key = String::from_utf8_lossy(&self.text[..self.text.len().min(40)]);
                let place = if key.is_empty() { String::new() } else { format!("{key}: ") };
                Err(format!("{place}expected at most {most} values, found more"))
            }
        }
    }
}

/// Index of the closing quote of the string that begins at `at`, or the end of the text.
fn string_end(json: &[u8], mut at: usize) -> usize {
    while let Some(&byte) = json.get(at) {
        match byte {
            b'"' => return at,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    json.len()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn python_numbers_are_read() {
        let text = r#"{"a": [Infinity, -Infinity, NaN, -1], "b": "NaN \" -Infinity", "c": {"Infinity": 1}}"#;
        let read = value(text.as_bytes()).unwrap();
        let float = |name: &str| json!({"__float__": name});
        let list = json!([float("Infinity"), float("-Infinity"), float("NaN"), -1]);
        assert_eq!(read, json!({"a": list, "b": "NaN \" -Infinity", "c": {"Infinity": 1}}));
        assert_eq!(number(&read["a"][0]), Some(f64::INFINITY));
        assert_eq!(number(&read["a"][1]), Some(f64::NEG_INFINITY));
        assert!(number(&read["a"][2]).unwrap().is_nan());
        assert_eq!((number(&read["a"][3]), number(&read["b"]), number(&read["c"])), (Some(-1.0), None, None));
        for broken in ["{NaN: 1}", "[1NaN]", "[Infinit]", "[-]", "NaN NaN", "[nan]", "[\"a"] {
            assert!(value(broken.as_bytes()).unwrap_err().contains("malformed JSON"), "{broken}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_skipped() {
        assert_eq!(value("\u{feff}[1]".as_bytes()).unwrap(), json!([1]));
        let utf16: Vec<u8> = "\u{feff}[1]".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(value(&utf16).unwrap_err().contains("BOM"));
        assert!(value("\u{feff}\u{feff}[1]".as_bytes()).is_err());
    }

    #[test]
    fn values_are_counted_before_they_are_built() {
        let wide = |count: usize| format!("[{}0]", "0,".repeat(count)).into_bytes();
        assert!(value(&wide(MAX_VALUES - 2)).is_ok());
        let error = value(&wide(MAX_VALUES)).unwrap_err();
        assert!(error.contains("expected at most 524288 values"), "{error}");
        let deep = "[".repeat(1000);
        assert!(value(deep.as_bytes()).unwrap_err().contains("recursion limit"));
        // A string is one value, whatever it contains.
        assert!(value(format!("{:?}", ",".repeat(MAX_VALUES)).as_bytes()).is_ok());
    }

    #[test]
    fn unwanted_keys_are_not_built_and_not_counted() {
        let many = "0,".repeat(MAX_VALUES);
        let text = format!(r#"{{"a": 1, "b": [{many}0], "c": [{{"b": 2}}], "a": 3}}"#);
        let kept = object(text.as_bytes(), |key| key != "b").unwrap();
        // As in Python, the last of duplicate keys counts.
        assert_eq!(Value::Object(kept), json!({"a": 3, "c": [{"b": 2}]}));
        let error = object(text.as_bytes(), |_| true).unwrap_err();
        assert!(error.starts_with("b: expected at most"), "{error}");
        // A key written with escapes counts as a wanted one.
        let text = format!(r#"{{"\u0061": [{many}0]}}"#);
        assert!(object(text.as_bytes(), |key| key == "a").is_err());
        assert!(object(b"[1]", |_| true).unwrap_err().contains("expected an object"));
        assert!(object(b"{} {}", |_| true).is_err());
    }

    #[test]
    fn keys_may_have_limits_of_their_own() {
        let of_key = |key: &str, rest: &[u8]| match key {
            "big" => Some(if rest.starts_with(b"[[") { 9 } else { 5 }),
            _ => None,
        };
        let limits = Limits { values: 8, of_key: &of_key };
        assert!(checked(br#"{"big":[0,0,0],"small":[0,0]}"#, &limits).is_ok());
        assert!(checked(br#"{"big":[[0,0,0,0,0]]}"#, &limits).is_ok());
        let error = checked(br#"{"x":0,"big":[0,0,0,0,0,0]}"#, &limits).unwrap_err();
        assert_eq!(error, "big: expected at most 5 values, found more");
        let error = checked(br#"{"small":[0,0,0,0,0,0,0,0]}"#, &limits).unwrap_err();
        assert_eq!(error, "small: expected at most 8 values, found more");
        // In nested objects the key has no limit of its own.
        assert!(checked(br#"{"x":{"big":[0,0,0,0,0,0,0,0]}}"#, &limits).is_err());
    }
}
