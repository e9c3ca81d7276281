//! Marks in text that arrives in pieces, and the ends of blocks.

use super::format::{Arguments, End, Quotes};
use super::tools::Tools;

/// What is at a place of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    /// None of the marks.
    Nothing,
    /// This mark, the longest one.
    Mark(usize),
    /// The text ends before it is certain.
    Open,
}

/// Which of `marks` the text, which is not empty, begins with.
pub(super) fn at<'a>(text: &str, marks: impl Iterator<Item = &'a str>) -> At {
    let mut found: Option<(usize, usize)> = None;
    let mut open = false;
    for (which, mark) in marks.enumerate() {
        if text.starts_with(mark) {
            if found.is_none_or(|(_, length)| length < mark.len()) {
                found = Some((which, mark.len()));
            }
        } else {
            open |= mark.starts_with(text);
        }
    }
    match found {
        _ if open => At::Open,
        Some((which, _)) => At::Mark(which),
        None => At::Nothing,
    }
}

/// Looks for the end of a block in a text that grows. Each byte is looked at once, but for those that may begin a mark.
#[derive(Debug, Clone)]
pub(super) struct EndSearch {
    end: End,
    quotes: Quotes,
    /// Bytes that were looked at.
    done: usize,
    /// The quote that is open, as a byte; 1 for a mark.
    quote: Option<u8>,
    /// Open brackets of a value.
    depth: usize,
    /// Whether the value has begun.
    begun: bool,
    /// Whether something else than spaces came before the value.
    prefixed: bool,
    /// Where a name, a key, and an argument are.
    place: Place,
}

/// Where [`Arguments`] are read.
#[derive(Debug, Clone, Default)]
struct Place {
    /// Where the function's name begins.
    name: usize,
    part: Part,
}

#[derive(Debug, Clone, Copy, Default)]
enum Part {
    #[default]
    Between,
    /// A key that begins here.
    Key(usize),
    /// A value without quotes.
    Text,
    /// A value with quotes, in so many brackets.
    Json(usize),
}

/// The end of a block: bytes in it, and with its mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) inner: usize,
    pub(super) whole: usize,
}

impl EndSearch {
    pub(super) fn new(end: End, quotes: Quotes) -> Self {
        let place = Place::default();
        EndSearch { end, quotes, done: 0, quote: None, depth: 0, begun: false, prefixed: false, place }
    }

    /// Bytes that were looked at: those that are in the block if its end was not found.
    pub(super) fn done(&self) -> usize {
        self.done
    }

    /// Looks at what is new in `text`; what it has looked at before is unchanged. `tools` say which arguments are JSON.
    pub(super) fn find(&mut self, text: &str, tools: &Tools) -> Option<Found> {
        let bytes = text.as_bytes();
        while let Some(&byte) = bytes.get(self.done) {
            if self.quote.is_none()
                && let End::Mark(mark) = self.end
                && byte == mark.as_bytes()[0]
            {
                match at(&text[self.done..], std::iter::once(mark)) {
                    At::Mark(_) => return Some(Found { inner: self.done, whole: self.done + mark.len() }),
                    At::Open => return None,
                    At::Nothing => {}
                }
            }
            if let Quotes::Mark(mark) = self.quotes
                && byte == mark.as_bytes()[0]
            {
                match at(&text[self.done..], std::iter::once(mark)) {
                    At::Mark(_) => {
                        self.quote = if self.quote.is_some() { None } else { Some(1) };
                        self.done += mark.len();
                        continue;
                    }
                    At::Open => return None,
                    At::Nothing => {}
                }
            }
            if let Quotes::Arguments(arguments) = self.quotes
                && self.quote.is_none()
            {
                match self.argument(text, arguments, tools)? {
                    0 => {}
                    mark => {
                        self.done += mark;
                        continue;
                    }
                }
            }
            if self.quote.is_some() && byte == b'\\' && !matches!(self.quotes, Quotes::Mark(_)) {
                // What is escaped may not be there yet; it is not ASCII, or a whole character.
                let next = text[self.done + 1..].chars().next()?;
                self.done += 1 + next.len_utf8();
                continue;
            }
            self.done += 1;
            if self.step(byte) {
                return Some(Found { inner: self.done, whole: self.done });
            }
        }
        None
    }

    /// The bytes of the mark at this place, which is outside of quotes, 0 if there is none; `None` if it is not certain yet.
    fn argument(&mut self, text: &str, arguments: &Arguments, tools: &Tools) -> Option<usize> {
        let Arguments { function, key, open, close, .. } = *arguments;
        let byte = text.as_bytes()[self.done];
        let marks: &[&str] = match self.place.part {
            Part::Between => &[key, function],
            Part::Key(_) => &[open],
            Part::Text => &[close],
            Part::Json(depth) => {
                let depth = match byte {
                    b'{' | b'[' => depth + 1,
                    b'}' | b']' => depth.saturating_sub(1),
                    _ => depth,
                };
                // White space may come before the value. A number, or a word, has no quotes.
                let inside = depth > 0 || byte.is_ascii_whitespace();
                self.place.part = if inside { Part::Json(depth) } else { Part::Between };
                return Some(0);
            }
        };
        if !marks.iter().any(|mark| mark.as_bytes().first() == Some(&byte)) {
            return Some(0);
        }
        let mark = match at(&text[self.done..], marks.iter().copied().filter(|mark| !mark.is_empty())) {
            At::Nothing => return Some(0),
            At::Open => return None,
            At::Mark(which) => marks[which],
        };
        let after = self.done + mark.len();
        self.place.part = match self.place.part {
            Part::Between if mark == key => Part::Key(after),
            Part::Between => {
                self.place.name = after;
                Part::Between
            }
            Part::Key(from) => {
                let (name, key) = (&text[self.place.name..from], &text[from..self.done]);
                if (arguments.is_json)(name, key, tools) { Part::Json(0) } else { Part::Text }
            }
            Part::Text | Part::Json(_) => Part::Between,
        };
        Some(mark.len())
    }

    /// Takes a byte. Returns whether a value ends with it.
    fn step(&mut self, byte: u8) -> bool {
        let is_quote = match self.quotes {
            Quotes::Json => byte == b'"',
            Quotes::Arguments(_) => byte == b'"' && matches!(self.place.part, Part::Json(_)),
            Quotes::Python => byte == b'"' || byte == b'\'',
            Quotes::None | Quotes::Mark(_) => false,
        };
        match self.quote {
            Some(open) => {
                if is_quote && byte == open {
                    self.quote = None;
                }
                return false;
            }
            // Before the value there may be a name, in which quotes mean nothing.
            None if is_quote && (self.begun || !matches!(self.end, End::Value)) => self.quote = Some(byte),
            None => {}
        }
        if !matches!(self.end, End::Value) {
            return false;
        }
        match byte {
            // After a name, brackets are marks such as `[ARGS]`.
            b'{' => (self.begun, self.depth) = (true, self.depth + 1),
            b'[' if self.begun || !self.prefixed => (self.begun, self.depth) = (true, self.depth + 1),
            b'}' | b']' if self.begun => self.depth = self.depth.saturating_sub(1),
            _ => self.prefixed |= !self.begun && !byte.is_ascii_whitespace(),
        }
        self.begun && self.depth == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(end: End, quotes: Quotes, text: &str) -> Option<Found> {
        let tools = Tools::default();
        let whole = EndSearch::new(end, quotes).find(text, &tools);
        let mut search = EndSearch::new(end, quotes);
        let grown = text.char_indices().find_map(|(at, c)| search.find(&text[..at + c.len_utf8()], &tools));
        assert_eq!(whole, grown, "{text}");
        whole
    }

    #[test]
    fn marks_are_found_and_waited_for() {
        let at = |text| at(text, ["<a>", "<ab>", "<a>b"].into_iter());
        assert_eq!((at("x"), at("<ab>c"), at("<a>c")), (At::Nothing, At::Mark(1), At::Mark(0)));
        assert_eq!((at("<"), at("<a>"), at("<a>b")), (At::Open, At::Open, At::Mark(2)));
    }

    #[test]
    fn marks_in_texts_do_not_end_a_block() {
        let close = End::Mark("</t>");
        let found = |inner, whole| Some(Found { inner, whole });
        assert_eq!(end(close, Quotes::Json, "{\"a\": \"</t>\"}</t>x"), found(13, 17));
        assert_eq!(end(close, Quotes::Json, r#"{"a": "\"</t>\\"}</t>"#), found(17, 21));
        assert_eq!(end(close, Quotes::None, "\"</t>\""), found(1, 5));
        assert_eq!(end(close, Quotes::Python, "f(a='</t>\"')</t>"), found(12, 16));
        assert_eq!(end(close, Quotes::Mark("|\"|"), "a|\"|</t>|\"|</t>"), found(11, 15));
        assert_eq!(end(close, Quotes::Json, "\"\\é</t>\" </t"), None);
    }

    #[test]
    fn marks_in_arguments_that_are_json_do_not_end_a_block() {
        const ARGUMENTS: Arguments = Arguments {
            function: "<f=",
            key: "<p=",
            open: ">",
            close: "</p>",
            is_json: |name, key, _| name.starts_with("g>") && key == "j",
        };
        let end = |text: &str| {
            let found = end(End::Mark("</t>"), Quotes::Arguments(&ARGUMENTS), text)?;
            Some(text[..found.inner].to_owned())
        };
        let json = "<f=f><f=g>\n<p=j>\n [{\"a\": \"</t>\\\"</t>\"}]</p><p=j>1</p>\"";
        assert_eq!(end(&format!("{json}</t>\"</t>")), Some(json.to_owned()));
        // Texts have no quotes, and no arguments in them.
        for text in ["<f=g><p=k>[\"", "<f=f><p=j>[\"", "<f=g><p=k><p=j>[\""] {
            assert_eq!(end(&format!("{text}</t>\"]</p></t>")), Some(text.to_owned()));
        }
        let after = "<f=g><p=k>x</p><p=j>[\"</t>\"]";
        assert_eq!(end(&format!("{after}</t>")), Some(after.to_owned()));
    }

    #[test]
    fn values_end_with_their_brackets() {
        let found = |whole| Some(Found { inner: whole, whole });
        assert_eq!(end(End::Value, Quotes::Json, " [{\"a\": \"]}\"}] x"), found(14));
        assert_eq!(end(End::Value, Quotes::Json, "f[ARGS]{\"a\": [1]}{"), found(17));
        assert_eq!(end(End::Value, Quotes::Json, "f[ARGS]"), None);
        assert_eq!(end(End::Output, Quotes::None, "{}"), None);
    }
}
