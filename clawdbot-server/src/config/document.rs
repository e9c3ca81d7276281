//! A file in TOML as JSON, with the line of each key.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use clawdbot_core::{Error, ErrorKind, OptionSet, OptionType, Result, byte_size, check_option_names};
use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Most bytes of a file.
const MAX_FILE: u64 = 4 << 20;

/// A file's keys and values.
#[derive(Debug)]
pub(super) struct Document {
    /// What errors call the file.
    name: String,
    /// The line of each key, by its path: `models.chat.weights`.
    lines: BTreeMap<String, usize>,
    root: Map<String, Value>,
}

/// Keys and values of a table, which are taken one after another.
#[derive(Debug)]
pub(super) struct Section<'a> {
    document: &'a Document,
    /// Its path, with a point at the end unless it is the whole document.
    path: String,
    fields: Map<String, Value>,
    /// Names that were asked for.
    known: Vec<&'static str>,
}

impl Document {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// `NotFound`, `Io`; as [`Document::parse`].
    pub(super) fn read(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let failed = |error: std::io::Error| {
            let kind = match error.kind() {
                std::io::ErrorKind::NotFound => ErrorKind::NotFound,
                _ => ErrorKind::Io,
            };
            Error::new(kind, format!("{name}: {error}")).with("path", name.as_str())
        };
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(failed)?;
        if text.len() as u64 > MAX_FILE {
            let message = format!("{name}: expected a file of at most {MAX_FILE} bytes, found more");
            return Err(Error::new(ErrorKind::InvalidArgument, message).with("path", name));
        }
        Self::parse(&name, &text)
    }

    /// Reads the text of the file `name`.
    ///
    /// # Errors
    /// `InvalidArgument` for what is not TOML, or has no form in JSON.
    pub(super) fn parse(name: &str, text: &str) -> Result<Self> {
        let mut document = Document { name: name.to_owned(), lines: BTreeMap::new(), root: Map::new() };
        let parsed = DeTable::parse(text).map_err(|error| {
            let line = error.span().map(|span| line_of(text, span.start));
            document.error(line, None, error.message())
        })?;
        document.root = document.table(text, "", parsed.into_inner())?;
        Ok(document)
    }

    fn table(&mut self, text: &str, path: &str, table: DeTable<'_>) -> Result<Map<String, Value>> {
        let mut fields = Map::new();
        for (key, value) in table {
            let at = format!("{path}{}", key.get_ref());
            let line = line_of(text, key.span().start);
            self.lines.insert(at.clone(), line);
            let value = self.value(text, &at, line, value)?;
            fields.insert(key.into_inner().into_owned(), value);
        }
        Ok(fields)
    }

    fn value(&mut self, text: &str, path: &str, line: usize, value: Spanned<DeValue<'_>>) -> Result<Value> {
        let value = match value.into_inner() {
            DeValue::String(text) => Value::from(text.into_owned()),
            DeValue::Boolean(flag) => flag.into(),
            DeValue::Integer(whole) => {
                let (digits, radix) = (whole.as_str(), whole.radix());
                let unsigned = u64::from_str_radix(digits, radix).map(Value::from);
                let found = unsigned.or_else(|_| i64::from_str_radix(digits, radix).map(Value::from));
                found.map_err(|_| {
                    let message = format!("expected a number from -2^63 to 2^64 - 1, found {digits}");
                    self.error(Some(line), Some(path), &message)
                })?
            }
            DeValue::Float(number) => {
                let found = number.as_str().parse().ok().filter(|number: &f64| number.is_finite());
                let found = found.ok_or_else(|| {
                    let message = format!("expected a finite number, found {}", number.as_str());
                    self.error(Some(line), Some(path), &message)
                })?;
                found.into()
            }
            DeValue::Datetime(time) => {
                let message = format!("expected a text, a number, a list or a table, found the time {time}");
                return Err(self.error(Some(line), Some(path), &message));
            }
            DeValue::Array(items) => {
                let items = items.into_iter().map(|item| {
                    let line = line_of(text, item.span().start);
                    self.value(text, path, line, item)
                });
                items.collect::<Result<Vec<_>>>()?.into()
            }
            DeValue::Table(table) => self.table(text, &format!("{path}."), table)?.into(),
        };
        Ok(value)
    }

    fn error(&self, line: Option<usize>, key: Option<&str>, message: &str) -> Error {
        let at = line.map_or_else(String::new, |line| format!(", line {line}"));
        let of = key.map_or_else(String::new, |key| format!(", key {key}"));
        let error = Error::new(ErrorKind::InvalidArgument, format!("{}{at}{of}: {message}", self.name));
        let error = error.with("path", self.name.as_str());
        let error = line.into_iter().fold(error, |error, line| error.with("line", line));
        key.into_iter().fold(error, |error, key| error.with("key", key))
    }

    /// The error of what is wrong with the key at `path`; of one that is not there, with its table.
    pub(super) fn wrong(&self, path: &str, message: &str) -> Error {
        let mut at = path;
        loop {
            if let Some(line) = self.lines.get(at) {
                return self.error(Some(*line), Some(path), message);
            }
            match at.rsplit_once('.') {
                Some((above, _)) => at = above,
                None => return self.error(None, Some(path), message),
            }
        }
    }

    /// All of it.
    pub(super) fn root(&self) -> Section<'_> {
        Section { document: self, path: String::new(), fields: self.root.clone(), known: Vec::new() }
    }
}

/// The number of the line of a byte.
fn line_of(text: &str, byte: usize) -> usize {
    text.as_bytes().iter().take(byte).filter(|&&byte| byte == b'\n').count() + 1
}

impl<'a> Section<'a> {
    /// The path of one of its keys.
    fn at(&self, key: &str) -> String {
        format!("{}{key}", self.path)
    }

    /// The error of what is wrong with one of its keys.
    pub(super) fn wrong(&self, key: &str, message: &str) -> Error {
        self.document.wrong(&self.at(key), message)
    }

    /// As [`Section::wrong`], of a value that the key does not take.
    pub(super) fn unexpected(&self, key: &str, expected: &str, found: &Value) -> Error {
        self.wrong(key, &format!("expected {expected}, found {found}"))
    }

    /// Takes the value of a key.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.fields.remove(key)
    }

    fn typed<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.take(key) else { return Ok(None) };
        read(&value).map(Some).ok_or_else(|| self.unexpected(key, expected, &value))
    }

    pub(super) fn text(&mut self, key: &'static str) -> Result<Option<String>> {
        self.typed(key, "a text", |value| value.as_str().map(str::to_owned))
    }

    pub(super) fn flag(&mut self, key: &'static str) -> Result<Option<bool>> {
        self.typed(key, "true or false", Value::as_bool)
    }

    pub(super) fn whole(&mut self, key: &'static str) -> Result<Option<u64>> {
        self.typed(key, "a whole number, 0 or more", Value::as_u64)
    }

    pub(super) fn texts(&mut self, key: &'static str) -> Result<Option<Vec<String>>> {
        self.typed(key, "a list of texts", |value| {
            value.as_array()?.iter().map(|text| text.as_str().map(str::to_owned)).collect()
        })
    }

    /// Takes a number of bytes, which may be a text with a unit.
    pub(super) fn bytes(&mut self, key: &'static str) -> Result<Option<u64>> {
        match self.take(key) {
            Some(Value::String(text)) => {
                byte_size(&text).map(Some).map_err(|error| self.wrong(key, error.message()))
            }
            Some(value) => match value.as_u64() {
                Some(bytes) => Ok(Some(bytes)),
                None => {
                    Err(self.unexpected(key, "a number of bytes such as 500000000 or \"1.5GiB\"", &value))
                }
            },
            None => Ok(None),
        }
    }

    /// Takes the table of a key; an empty one if there is none.
    pub(super) fn section(&mut self, key: &'static str) -> Result<Section<'a>> {
        let table = self.typed(key, "a table", |value| value.as_object().cloned())?;
        let path = format!("{}.", self.at(key));
        Ok(Section { document: self.document, path, fields: table.unwrap_or_default(), known: Vec::new() })
    }

    /// Takes all its keys, each with its table.
    pub(super) fn sections(self) -> Result<Vec<(String, Section<'a>)>> {
        let (document, path) = (self.document, &self.path);
        let sections = self.fields.into_iter().map(|(name, value)| {
            let at = format!("{path}{name}");
            let Value::Object(fields) = value else {
                return Err(document.wrong(&at, &format!("expected a table, found {value}")));
            };
            Ok((name, Section { document, path: format!("{at}."), fields, known: Vec::new() }))
        });
        sections.collect()
    }

    /// Refuses the keys that nobody has asked for.
    ///
    /// # Errors
    /// `InvalidArgument`, with the key that was meant.
    pub(super) fn end(self) -> Result<()> {
        self.checked(&[])
    }

    fn checked(&self, options: &[&str]) -> Result<()> {
        let names = self.fields.keys().map(String::as_str).filter(|name| !options.contains(name));
        for name in names {
            check_option_names([name], &[options], &self.known)
                .map_err(|error| self.wrong(name, error.message()))?;
        }
        Ok(())
    }

    /// What is left: options of the core. Relative paths begin at `directory`.
    ///
    /// # Errors
    /// `InvalidArgument`, with file, line and key.
    pub(super) fn options<T: OptionSet>(mut self, directory: &Path) -> Result<T> {
        let names: Vec<&str> = T::GROUP.options.iter().map(|option| option.name).collect();
        self.checked(&names)?;
        for option in T::GROUP.options {
            let Some(value) = self.fields.get(option.name).cloned() else { continue };
            let read = match (option.values, &value) {
                (OptionType::Bytes, Value::String(text)) => {
                    byte_size(text).map_err(|error| self.wrong(option.name, error.message()))?.into()
                }
                (OptionType::Path, Value::String(path)) => joined(directory, path),
                (OptionType::List { of: OptionType::Path, .. }, Value::Array(paths)) => {
                    let joined = |path: &Value| match path.as_str() {
                        Some(path) => joined(directory, path),
                        None => path.clone(),
                    };
                    paths.iter().map(joined).collect()
                }
                _ => continue,
            };
            self.fields.insert(option.name.to_owned(), read);
        }
        T::from_json(&self.fields).map_err(|error| {
            let option = error.detail().get("option").and_then(Value::as_str).unwrap_or_default();
            let said = error.message();
            let said = said.strip_prefix(&format!("option {option}: ")).unwrap_or(said);
            match option.is_empty() {
                true => self.document.wrong(self.path.trim_end_matches('.'), said),
                false => self.wrong(option, said),
            }
        })
    }
}

fn joined(directory: &Path, path: &str) -> Value {
    directory.join(path).to_str().map_or_else(|| path.into(), Value::from)
}
