//! The normal form of a JSON value ([`super::normal`]) from its characters, as they come.

use serde_json::Value;

/// A value that is being read. It takes what JSON is not in places, such as numbers with two dots late; all that it gives of
/// JSON is the beginning of the normal form.
#[derive(Debug, Clone, Default)]
pub(super) struct Compact {
    /// Brackets that are open.
    open: Vec<char>,
    at: At,
    /// An escape, a number or a word that is not complete.
    token: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
enum At {
    /// Before a value.
    #[default]
    Value,
    /// Before the first item of a list, or its end.
    Item,
    /// Before the first key of an object, or its end.
    Member,
    Key,
    Colon,
    /// After a value.
    After,
    /// In a text, which is a key or not; and in an escape there.
    Text(bool),
    Escape(bool),
    /// In a number, `true`, `false` or `null`.
    Word,
}

/// What a character is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// A part of the value, which goes on.
    More,
    /// Its last one.
    Last,
    /// The first one after it.
    After,
    /// None that JSON has here.
    Wrong,
}

/// White space of JSON.
pub(super) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

impl Compact {
    /// Takes a character. Adds what is certain to `out`.
    pub(super) fn take(&mut self, c: char, out: &mut String) -> Taken {
        match self.at {
            At::Text(key) => self.text(c, key, out),
            At::Escape(key) => self.escape(c, key, out),
            At::Word => self.word(c, out),
            _ if is_space(c) => Taken::More,
            At::Colon => self.then(c == ':', At::Value, c, out),
            At::Member | At::Key if c == '"' => self.then(true, At::Text(true), c, out),
            At::Member => self.close(c, out),
            At::Key => Taken::Wrong,
            At::Item if c == ']' => self.close(c, out),
            At::Value | At::Item => self.begin(c, out),
            At::After if c == ',' => {
                let next = if self.open.last() == Some(&'{') { At::Key } else { At::Value };
                self.then(true, next, c, out)
            }
            At::After => self.close(c, out),
        }
    }

    /// Bytes that it keeps.
    pub(super) fn bytes(&self) -> usize {
        self.open.capacity() * size_of::<char>() + self.token.capacity()
    }

    fn then(&mut self, right: bool, at: At, c: char, out: &mut String) -> Taken {
        if !right {
            return Taken::Wrong;
        }
        self.at = at;
        out.push(c);
        Taken::More
    }

    fn begin(&mut self, c: char, out: &mut String) -> Taken {
        match c {
            '"' => self.at = At::Text(false),
            '{' | '[' => {
                self.open.push(c);
                self.at = if c == '{' { At::Member } else { At::Item };
            }
            '-' | '0'..='9' | 'a'..='z' => {
                self.at = At::Word;
                self.token.push(c);
                return Taken::More;
            }
            _ => return Taken::Wrong,
        }
        out.push(c);
        Taken::More
    }

    /// Ends the innermost list or object.
    fn close(&mut self, c: char, out: &mut String) -> Taken {
        match (self.open.pop(), c) {
            (Some('{'), '}') | (Some('['), ']') => out.push(c),
            _ => return Taken::Wrong,
        }
        self.ended()
    }

    fn ended(&mut self) -> Taken {
        self.at = At::After;
        if self.open.is_empty() { Taken::Last } else { Taken::More }
    }

    fn text(&mut self, c: char, key: bool, out: &mut String) -> Taken {
        match c {
            '\\' => {
                self.at = At::Escape(key);
                self.token.push(c);
                return Taken::More;
            }
            c if c < ' ' => return Taken::Wrong,
            c => out.push(c),
        }
        match (c, key) {
            ('"', true) => self.at = At::Colon,
            ('"', false) => return self.ended(),
            _ => {}
        }
        Taken::More
    }

    /// In an escape: two characters, or six, or two times six for a character of two units.
    fn escape(&mut self, c: char, key: bool, out: &mut String) -> Taken {
        if !c.is_ascii() {
            return Taken::Wrong;
        }
        self.token.push(c);
        let unit = self.token.get(2..6).map(|unit| u16::from_str_radix(unit, 16));
        let whole = match (self.token.starts_with("\\u"), unit) {
            (false, _) => 2,
            (true, Some(Ok(0xd800..=0xdbff))) => 12,
            (true, _) => 6,
        };
        if self.token.len() < whole {
            return Taken::More;
        }
        let token = std::mem::take(&mut self.token);
        let Ok(text) = serde_json::from_str::<String>(&format!("\"{token}\"")) else { return Taken::Wrong };
        let text = Value::from(text).to_string();
        out.push_str(&text[1..text.len() - 1]);
        self.at = At::Text(key);
        Taken::More
    }

    fn word(&mut self, c: char, out: &mut String) -> Taken {
        if c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.') {
            self.token.push(c);
            return Taken::More;
        }
        let Ok(value) = serde_json::from_str::<Value>(&self.token) else { return Taken::Wrong };
        self.token.clear();
        out.push_str(&value.to_string());
        match self.ended() {
            Taken::Last => Taken::After,
            _ => self.take(c, out),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::normal::Tree;
    use super::*;

    /// The normal form, and how far the value goes, in bytes.
    fn compact(text: &str) -> Option<(String, usize)> {
        let (mut compact, mut out) = (Compact::default(), String::new());
        for (at, c) in text.char_indices() {
            match compact.take(c, &mut out) {
                Taken::More => {}
                Taken::Last => return Some((out, at + c.len_utf8())),
                Taken::After => return Some((out, at)),
                Taken::Wrong => return None,
            }
        }
        None
    }

    #[test]
    fn values_are_in_normal_form_up_to_their_end() {
        let text =
            r#" { "a" : [ 1.50 , -0, 1E2, true,null,[],{} ] , "\u0041\ud83d\ude00\"\u001f\/" : "é\n" } x"#;
        let tree: Tree = serde_json::from_str(text.trim_end_matches(" x")).unwrap();
        assert_eq!(compact(text), Some((tree.to_string(), text.len() - 2)));
        assert_eq!(compact("12,"), Some(("12".to_owned(), 2)));
        for wrong in
            ["{a", "[1 2", "[1}", "{\"a\" 1", "{\"a\":1,}", "[\"\n", "[\"\\x", "[\"\\ud800abcdef", "[1.2.3,"]
        {
            assert_eq!(compact(wrong), None, "{wrong}");
        }
    }

    proptest! {
        /// Whatever text begins with JSON, its normal form is found.
        #[test]
        fn normal_forms_are_those_of_whole_values(
            parts in prop::collection::vec(
                prop::sample::select(vec![
                    "{", "}", "[", "]", "\"", ":", ",", " ", "1", "-0.5e3", "true", "\\", "u00e9", "\\ud83d\\ude00", "\\n",
                    "\"a\"", "\"a\":", "é", "{\"a\":", "[1,", "null",
                ]),
                0..16,
            ),
        ) {
            let text = parts.concat() + " ";
            for (end, _) in text.match_indices([' ', '}', ']', '"']).map(|(at, mark)| (at + mark.len(), mark)) {
                let Ok(tree) = serde_json::from_str::<Tree>(&text[..end]) else { continue };
                let found = compact(&text).map(|(normal, _)| normal);
                prop_assert_eq!(found, Some(tree.to_string()));
                break;
            }
        }
    }
}
