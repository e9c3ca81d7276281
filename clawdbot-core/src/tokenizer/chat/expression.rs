//! Parses the expressions of a tag with jinja2's grammar, and writes them with a filter in place of each operator: `a +
//! b` becomes `0|__chain__(a, "+", b)`. `super::rewrite` says why.

use std::fmt::Write as _;

use super::lexer::Kind;
use super::method_names;
use super::parser::{Parser, Result};

/// An expression as written, to which a filter can be applied directly.
pub(super) struct Written {
    pub(super) text: String,
    /// Whether an attribute, an index or a call can follow directly.
    bare: bool,
    /// Whether it is `a if b else c` without parentheses.
    conditional: bool,
    /// Its value, if it is a string literal.
    literal: Option<String>,
}

/// Whether `a if b else c` is part of an expression; in the head of a loop, `if` filters its items.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Conditionals {
    Allowed,
    Excluded,
}

/// Whether `|filter` and `is test` after an operand belong to it; in `-a|f` the filter takes what the sign gives.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Filters {
    Included,
    Excluded,
}

impl Written {
    fn bare(text: String) -> Self {
        Written { text, bare: true, conditional: false, literal: None }
    }

    fn filtered(text: String) -> Self {
        Written { text, bare: false, conditional: false, literal: None }
    }

    fn into_bare(self) -> String {
        if self.bare { self.text } else { format!("({})", self.text) }
    }
}

const COMPARISONS: &[&str] = &["==", "!=", "<", "<=", ">", ">="];

impl Parser<'_> {
    pub(super) fn expression(&mut self) -> Result<Written> {
        let value = self.conditional()?;
        Ok(if value.conditional { Written::bare(format!("({})", value.text)) } else { value })
    }

    /// `a if b else c`, written without parentheses.
    fn conditional(&mut self) -> Result<Written> {
        let mut value = self.or()?;
        while self.skip_name("if") {
            let before = if value.conditional { format!("({})", value.text) } else { value.text };
            let condition = self.or()?.text;
            let mut text = format!("{before} if {condition}");
            if self.skip_name("else") {
                let _ = write!(text, " else {}", self.conditional()?.text);
            }
            value = Written { conditional: true, ..Written::bare(text) };
        }
        Ok(value)
    }

    fn or(&mut self) -> Result<Written> {
        self.joined("or", Self::and)
    }

    fn and(&mut self) -> Result<Written> {
        self.joined("and", Self::not)
    }

    fn joined(&mut self, word: &str, operand: fn(&mut Self) -> Result<Written>) -> Result<Written> {
        let first = operand(self)?;
        if !self.is_name(word) {
            return Ok(first);
        }
        let mut text = format!("({}", first.text);
        while self.skip_name(word) {
            let _ = write!(text, " {word} {}", operand(self)?.text);
        }
        text.push(')');
        Ok(Written::bare(text))
    }

    fn not(&mut self) -> Result<Written> {
        let mut count = 0_usize;
        while self.skip_name("not") {
            count += 1;
        }
        let value = self.compare()?;
        Ok(match count {
            0 => value,
            odd if odd % 2 == 1 => Written::bare(format!("(not {})", value.text)),
            _ => Written::bare(format!("(not (not {}))", value.text)),
        })
    }

    fn compare(&mut self) -> Result<Written> {
        let first = self.sum()?;
        let mut text = String::new();
        loop {
            let operator = match self.peek() {
                Kind::Sign(sign) if COMPARISONS.contains(sign) => *sign,
                Kind::Name(name) if name == "in" => "in",
                Kind::Name(name)
                    if name == "not" && matches!(self.peek_at(1), Kind::Name(next) if next == "in") =>
                {
                    self.next();
                    "not in"
                }
                _ => break,
            };
            self.next();
            let _ = write!(text, ", \"{operator}\", {}", self.sum()?.text);
        }
        Ok(if text.is_empty() {
            first
        } else {
            Written::filtered(format!("0|__compare__({}{text})", first.text))
        })
    }

    fn sum(&mut self) -> Result<Written> {
        self.chain(&["+", "-"], Self::concat)
    }

    fn concat(&mut self) -> Result<Written> {
        let first = self.product()?;
        if !self.is_sign("~") {
            return Ok(first);
        }
        let mut text = format!("0|__concat__({}", first.text);
        while self.skip_sign("~") {
            let _ = write!(text, ", {}", self.product()?.text);
        }
        text.push(')');
        Ok(Written::filtered(text))
    }

    fn product(&mut self) -> Result<Written> {
        self.chain(&["*", "/", "//", "%"], |parser| {
            parser.chain(&["**"], |parser| parser.unary(Filters::Included))
        })
    }

    fn chain(&mut self, signs: &[&str], operand: fn(&mut Self) -> Result<Written>) -> Result<Written> {
        let first = operand(self)?;
        let mut text = String::new();
        while let Kind::Sign(sign) = self.peek()
            && signs.contains(sign)
        {
            self.next();
            let _ = write!(text, ", \"{sign}\", {}", operand(self)?.text);
        }
        Ok(if text.is_empty() {
            first
        } else {
            Written::filtered(format!("0|__chain__({}{text})", first.text))
        })
    }

    fn unary(&mut self, filters: Filters) -> Result<Written> {
        let filter = match self.peek() {
            Kind::Sign("-") => "__neg__",
            Kind::Sign("+") => "__pos__",
            _ => {
                let value = self.primary()?;
                let value = self.postfix(value)?;
                return self.with_filters(value, filters);
            }
        };
        self.next();
        let value = Written::filtered(format!("0|{filter}({})", self.unary(Filters::Excluded)?.text));
        self.with_filters(value, filters)
    }

    fn with_filters(&mut self, value: Written, filters: Filters) -> Result<Written> {
        match filters {
            Filters::Included => self.filters(value),
            Filters::Excluded => Ok(value),
        }
    }

    fn primary(&mut self) -> Result<Written> {
        match self.peek() {
            Kind::Name(name) => {
                self.next();
                let name = match name.as_str() {
                    "true" | "True" => "true",
                    "false" | "False" => "false",
                    "none" | "None" => "none",
                    other => other,
                };
                Ok(Written::bare(self.lead() + name))
            }
            Kind::Text(_) => {
                let mut literal = String::new();
                while let Kind::Text(text) = self.peek() {
                    literal.push_str(text);
                    self.next();
                }
                let text = self.lead() + &quoted(&literal);
                Ok(Written { literal: Some(literal), ..Written::bare(text) })
            }
            Kind::Integer(number) | Kind::Float(number) => {
                self.next();
                Ok(Written::filtered(self.lead() + number))
            }
            Kind::Sign("(") => {
                self.next();
                let value = self.tuple(Conditionals::Allowed, ")")?;
                self.expect_sign(")")?;
                Ok(value)
            }
            Kind::Sign("[") => {
                self.next();
                let mut text = self.lead() + "[";
                while !self.is_sign("]") {
                    text.push_str(&self.expression()?.text);
                    if !self.is_sign("]") {
                        self.expect_sign(",")?;
                        text.push_str(", ");
                    }
                }
                self.next();
                Ok(Written::bare(text + "]"))
            }
            Kind::Sign("{") => self.dict(),
            _ => Err(format!("expected an expression, found {}", self.found())),
        }
    }

    fn dict(&mut self) -> Result<Written> {
        self.next();
        let mut text = self.lead() + "{";
        while !self.is_sign("}") {
            let key = self.expression()?;
            text.push_str(&key.text);
            if key.literal.is_none() {
                text.push_str("|__key__");
            }
            self.expect_sign(":")?;
            let _ = write!(text, ": {}", self.expression()?.text);
            if !self.is_sign("}") {
                self.expect_sign(",")?;
                text.push_str(", ");
            }
        }
        self.next();
        Ok(Written::bare(text + "}"))
    }

    /// One expression, or a tuple of several separated by commas. `end` ends it, also after a comma.
    pub(super) fn tuple(&mut self, conditionals: Conditionals, end: &str) -> Result<Written> {
        let is_end = |parser: &Self| {
            parser.is_sign(end) || parser.is_name(end) || matches!(parser.peek(), Kind::End | Kind::Sign(")"))
        };
        let mut items = Vec::new();
        let mut is_tuple = end == ")" && is_end(self);
        while !is_end(self) {
            items.push(match conditionals {
                Conditionals::Allowed => self.expression()?,
                Conditionals::Excluded => self.or()?,
            });
            if !self.skip_sign(",") {
                break;
            }
            is_tuple = true;
        }
        if !is_tuple {
            return items.pop().ok_or_else(|| format!("expected an expression, found {}", self.found()));
        }
        let texts: Vec<String> = items.into_iter().map(|item| item.text).collect();
        let comma = if texts.len() == 1 { "," } else { "" };
        Ok(Written::bare(format!("{}({}{comma})", self.lead(), texts.join(", "))))
    }

    fn postfix(&mut self, mut value: Written) -> Result<Written> {
        loop {
            value = match self.peek() {
                Kind::Sign(".") => {
                    self.next();
                    self.attribute(value)?
                }
                Kind::Sign("[") => {
                    self.next();
                    self.subscript(value)?
                }
                Kind::Sign("(") => self.call(value)?,
                _ => return Ok(value),
            };
        }
    }

    fn attribute(&mut self, value: Written) -> Result<Written> {
        match self.peek() {
            Kind::Name(name) => {
                self.next();
                if self.is_sign("(") {
                    if name == "cycle" {
                        let args = self.arguments(&|_, _| "")?;
                        return Ok(Written::filtered(format!("{}|__cycle__{args}", value.text)));
                    }
                    let charge = if name == "changed" { "|__walk__" } else { "" };
                    let args = self.arguments(&|_, _| charge)?;
                    return Ok(Written::bare(format!("{}.{name}{args}", value.into_bare())));
                }
                Ok(if method_names::is_method(name) {
                    Written::filtered(format!("{}|__attr__({})", value.text, quoted(name)))
                } else {
                    Written::bare(format!("{}.{name}", value.into_bare()))
                })
            }
            Kind::Integer(number) => {
                self.next();
                Ok(Written::filtered(format!("{}|__item__({number})", value.text)))
            }
            // `a.0.1` is lexed with a float.
            Kind::Float(_) => Err("expected a name or an integer after the dot, found a float".to_owned()),
            _ => Err(format!("expected a name or an integer, found {}", self.found())),
        }
    }

    fn subscript(&mut self, value: Written) -> Result<Written> {
        let mut keys = Vec::new();
        let mut slice = None;
        while !self.is_sign("]") {
            if !keys.is_empty() || slice.is_some() {
                self.expect_sign(",")?;
                if self.is_sign("]") {
                    return Err("expected an expression, found \"]\"".to_owned());
                }
            }
            let start = if self.is_sign(":") { None } else { Some(self.expression()?) };
            if !self.skip_sign(":") {
                keys.extend(start);
                continue;
            }
            let mut parts = vec![start.map_or_else(|| "none".to_owned(), |start| start.text)];
            for _ in 0..2 {
                let absent = matches!(self.peek(), Kind::Sign(":" | "]" | ","));
                parts.push(if absent { "none".to_owned() } else { self.expression()?.text });
                if parts.len() == 2 && !self.skip_sign(":") {
                    parts.push("none".to_owned());
                    break;
                }
            }
            slice = Some(parts.join(", "));
        }
        self.next();
        if let Some(slice) = slice {
            return if keys.is_empty() {
                Ok(Written::filtered(format!("{}|__slice__({slice})", value.text)))
            } else {
                Err("a slice among several indices is not supported".to_owned())
            };
        }
        if keys.is_empty() {
            return Err("expected an index, found \"]\"".to_owned());
        }
        let is_tuple = keys.len() > 1;
        let first_literal = keys[0].literal.take();
        let texts: Vec<String> = keys.into_iter().map(|key| key.text).collect();
        if is_tuple {
            return Ok(Written::filtered(format!("{}|__item__(({}))", value.text, texts.join(", "))));
        }
        Ok(match first_literal {
            Some(name) if !method_names::is_method(&name) => {
                Written::bare(format!("{}[{}]", value.into_bare(), texts[0]))
            }
            _ => Written::filtered(format!("{}|__item__({})", value.text, texts[0])),
        })
    }

    fn call(&mut self, value: Written) -> Result<Written> {
        let name = value.text.trim_start();
        let params = self.macros.get(name);
        // The engine passes an undefined argument as none; jinja2 passes undefined instead of the default.
        let has_default = |place: usize, keyword: Option<&str>| {
            params.is_some_and(|params| match keyword {
                Some(keyword) => params.iter().any(|param| param.name == keyword && param.has_default),
                None if place == usize::MAX => params.iter().any(|param| param.has_default),
                None => params.get(place).is_some_and(|param| param.has_default),
            })
        };
        let is_loop = name == "loop";
        let charge = |place: usize, keyword: Option<&str>| match (is_loop, has_default(place, keyword)) {
            // A recursive loop iterates over its argument.
            (true, _) => "|__iter__",
            (_, true) if place == usize::MAX && keyword.is_none() => "|__given_each__",
            (_, true) => "|__given__",
            _ => "",
        };
        let args = self.arguments(&charge)?;
        Ok(Written::bare(value.into_bare() + &args))
    }

    /// Arguments in parentheses. `charge` names the filter that is applied to each of them, by its position or keyword;
    /// `*arguments` have the position `usize::MAX`.
    fn arguments(&mut self, charge: &dyn Fn(usize, Option<&str>) -> &'static str) -> Result<String> {
        self.expect_sign("(")?;
        let mut parts = Vec::new();
        while !self.is_sign(")") {
            if self.skip_sign("*") {
                parts.push(format!("*{}|__iter__{}", self.expression()?.text, charge(usize::MAX, None)));
            } else if self.skip_sign("**") {
                parts.push(format!("**{}|__walk__", self.expression()?.text));
            } else if let (Kind::Name(name), Kind::Sign("=")) = (self.peek(), self.peek_at(1)) {
                self.next();
                self.next();
                parts.push(format!("{name}={}{}", self.expression()?.text, charge(usize::MAX, Some(name))));
            } else {
                parts.push(self.expression()?.text + charge(parts.len(), None));
            }
            if !self.is_sign(")") {
                self.expect_sign(",")?;
            }
        }
        self.next();
        Ok(format!("{}({})", self.lead(), parts.join(", ")))
    }

    fn filters(&mut self, mut value: Written) -> Result<Written> {
        loop {
            value = match self.peek() {
                Kind::Sign("|") => {
                    self.next();
                    let filter = self.filter()?;
                    Written::filtered(format!("{}|{filter}", value.text))
                }
                Kind::Name(name) if name == "is" => {
                    self.next();
                    self.test(value)?
                }
                Kind::Sign("(") => self.call(value)?,
                _ => return Ok(value),
            };
        }
    }

    /// The name and arguments of a filter.
    pub(super) fn filter(&mut self) -> Result<String> {
        let name = self.expect_name()?;
        if name.trim_start().starts_with("__") {
            return Err(format!("no filter named {name:?}"));
        }
        Ok(if self.is_sign("(") { name + &self.arguments(&|_, _| "")? } else { name })
    }

    fn test(&mut self, value: Written) -> Result<Written> {
        let not = if self.skip_name("not") { "not " } else { "" };
        let name = self.expect_name()?;
        let args = match self.peek() {
            Kind::Sign("(") => self.arguments(&|_, _| "")?,
            Kind::Name(word) if matches!(word.as_str(), "else" | "or" | "and") => String::new(),
            Kind::Name(word) if word == "is" => return Err("tests cannot be chained with \"is\"".to_owned()),
            Kind::Name(_) | Kind::Text(_) | Kind::Integer(_) | Kind::Float(_) | Kind::Sign("[" | "{") => {
                let arg = self.primary()?;
                format!("({})", self.postfix(arg)?.text)
            }
            _ => String::new(),
        };
        Ok(Written::bare(format!("({} is {not}{name}{args})", value.text)))
    }
}

/// `text` as a literal of the engine.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
