//! Calls as JSON objects, or lists of them, from their characters: what [`super::value::calls`] will find.

use super::call::Certain;
use super::compact::{Compact, Taken, is_space};

/// Keys under which the name of a function is.
pub(super) const NAMES: [&str; 2] = ["name", "tool_name"];
/// Keys under which its arguments are.
pub(super) const ARGUMENTS: [&str; 2] = ["arguments", "parameters"];
/// Keys under which the id of a call is, before its arguments.
pub(super) const IDS: [&str; 2] = ["id", "tool_call_id"];
/// The key of a name too, or of an object with name and arguments.
pub(super) const FUNCTION: &str = "function";

/// How the objects are.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Objects {
    /// Whether their only key is the function, and its value the arguments.
    pub(super) one_key: bool,
    /// A function whose calls are left out where there are others.
    pub(super) skipped: Option<&'static str>,
}

/// Objects that are being read. It follows texts that are calls; of others it may find anything.
#[derive(Debug, Clone)]
pub(super) struct ObjectsReader {
    objects: Objects,
    at: At,
    /// Whether the object is in a list.
    listed: bool,
    /// Whether this is the object of `function`.
    inner: bool,
    /// Whether nothing of the object counts any more but a name.
    settled: bool,
    name: Option<String>,
    id: Option<String>,
    key: String,
    value: Compact,
    /// The value of a key, as far as it is known.
    text: String,
    /// Calls that came before.
    number: usize,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum At {
    Start,
    /// After so many marks of a code block.
    Fence(usize),
    /// In the name of a code block's language.
    Language,
    /// Between objects.
    Between,
    Key,
    InKey,
    Colon,
    Value,
    In(Role),
    AfterValue,
    /// Where no calls are.
    Lost,
}

/// What a value says of its call.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Role {
    Name,
    Id,
    Arguments,
    Other,
}

impl ObjectsReader {
    pub(super) fn new(objects: Objects) -> Self {
        ObjectsReader {
            objects,
            at: At::Start,
            listed: false,
            inner: false,
            settled: false,
            name: None,
            id: None,
            key: String::new(),
            value: Compact::default(),
            text: String::new(),
            number: 0,
        }
    }

    /// Bytes that it keeps.
    pub(super) fn bytes(&self) -> usize {
        let name = self.name.as_ref().map_or(0, String::capacity);
        self.key.capacity() + self.text.capacity() + name + self.value.bytes()
    }

    pub(super) fn push(&mut self, text: &str, out: &mut Vec<Certain>) {
        for c in text.chars() {
            if self.at == At::Lost {
                return;
            }
            self.take(c, out);
        }
    }

    fn take(&mut self, c: char, out: &mut Vec<Certain>) {
        self.at = match self.at {
            At::Start if c == '`' => At::Fence(1),
            At::Start if c.is_whitespace() => At::Start,
            At::Fence(count @ 1..3) if c == '`' => At::Fence(count + 1),
            At::Fence(3) | At::Language if c.is_ascii_alphabetic() || c == '_' => At::Language,
            At::Fence(1 | 2) => At::Lost,
            At::Start | At::Fence(_) | At::Language | At::Between => self.between(c),
            At::Key if c == '"' => {
                (self.value, self.text) = (Compact::default(), String::new());
                self.value.take(c, &mut self.text);
                At::InKey
            }
            At::Key | At::AfterValue if c == '}' => self.end(),
            At::Key | At::Value if is_space(c) => self.at,
            At::AfterValue if is_space(c) => At::AfterValue,
            At::AfterValue if c == ',' => At::Key,
            At::InKey => match self.value.take(c, &mut self.text) {
                Taken::More => At::InKey,
                Taken::Last => {
                    self.key = serde_json::from_str(&self.text).unwrap_or_default();
                    At::Colon
                }
                Taken::After | Taken::Wrong => At::Lost,
            },
            At::Colon if is_space(c) => At::Colon,
            At::Colon if c == ':' => At::Value,
            At::Value => return self.begin_value(c, out),
            At::In(role) => return self.in_value(role, c, out),
            At::Key | At::Colon | At::AfterValue | At::Lost => At::Lost,
        };
    }

    fn between(&mut self, c: char) -> At {
        match c {
            '{' => {
                (self.name, self.id) = (None, None);
                (self.inner, self.settled) = (false, false);
                At::Key
            }
            '[' if !self.listed => {
                self.listed = true;
                At::Between
            }
            ']' if self.listed => {
                self.listed = false;
                At::Between
            }
            c if c.is_whitespace() || c == ',' || c == ';' => At::Between,
            _ => At::Lost,
        }
    }

    /// Ends an object.
    fn end(&mut self) -> At {
        if self.inner {
            (self.inner, self.settled) = (false, true);
            return At::AfterValue;
        }
        if !self.is_skipped() {
            self.number += 1;
        }
        At::Between
    }

    fn is_skipped(&self) -> bool {
        self.name.is_some() && self.name.as_deref().map(str::trim) == self.objects.skipped
    }

    fn begin_value(&mut self, c: char, out: &mut Vec<Certain>) {
        let key = self.key.as_str();
        let is = |keys: &[&str]| keys.contains(&key);
        if self.objects.one_key && !self.settled {
            self.name = Some(key.to_owned());
        }
        let role = match c {
            '"' if self.name.is_none() && (is(&NAMES) || key == FUNCTION) => Role::Name,
            _ if self.settled => Role::Other,
            _ if self.objects.one_key || is(&ARGUMENTS) => {
                self.settled = true;
                let known = self.name.clone().filter(|_| c == '{' && !self.is_skipped());
                match known {
                    Some(name) => {
                        out.push(Certain::named(self.number, name, self.id.take()));
                        Role::Arguments
                    }
                    // It comes with the whole call.
                    None => Role::Other,
                }
            }
            '{' if key == FUNCTION && !self.inner && self.name.is_none() => {
                (self.inner, self.at) = (true, At::Key);
                return;
            }
            '"' if self.id.is_none() && !self.inner && is(&IDS) => Role::Id,
            _ => Role::Other,
        };
        (self.value, self.text) = (Compact::default(), String::new());
        self.in_value(role, c, out);
    }

    fn in_value(&mut self, role: Role, c: char, out: &mut Vec<Certain>) {
        let taken = match (role, out.last_mut()) {
            (Role::Arguments, Some(last)) if last.number == self.number => {
                self.value.take(c, &mut last.arguments)
            }
            (Role::Arguments, _) => {
                let mut next = Certain::more(self.number);
                let taken = self.value.take(c, &mut next.arguments);
                out.push(next);
                taken
            }
            (Role::Other, _) => {
                self.text.clear();
                self.value.take(c, &mut self.text)
            }
            (Role::Name | Role::Id, _) => self.value.take(c, &mut self.text),
        };
        self.at = match taken {
            Taken::More => At::In(role),
            Taken::Wrong => At::Lost,
            Taken::Last | Taken::After => At::AfterValue,
        };
        if taken == Taken::Last {
            match role {
                Role::Name => self.name = serde_json::from_str(&self.text).ok(),
                Role::Id => self.id = serde_json::from_str(&self.text).ok(),
                Role::Arguments | Role::Other => {}
            }
        }
        if taken == Taken::After {
            self.take(c, out);
        }
    }
}
