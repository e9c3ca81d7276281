//! A cursor over the tokens of a tag.

use std::collections::HashMap;

use super::lexer::{Kind, Token};

pub(super) type Result<T> = std::result::Result<T, String>;

/// The parameters of each macro of a template, by its name.
pub(super) type Macros = HashMap<String, Vec<Parameter>>;

/// A parameter of a macro.
pub(super) struct Parameter {
    pub(super) name: String,
    pub(super) has_default: bool,
}

pub(super) struct Parser<'t> {
    pub(super) macros: &'t Macros,
    tokens: &'t [Token],
    at: usize,
    /// Line feeds read but not yet written: the rewritten template keeps its line numbers.
    breaks: usize,
}

impl<'t> Parser<'t> {
    pub(super) fn new(tokens: &'t [Token], macros: &'t Macros) -> Self {
        Parser { macros, tokens, at: 0, breaks: 0 }
    }

    pub(super) fn peek_at(&self, ahead: usize) -> &'t Kind {
        self.tokens.get(self.at + ahead).map_or(&Kind::End, |token| &token.kind)
    }

    pub(super) fn peek(&self) -> &'t Kind {
        self.peek_at(0)
    }

    pub(super) fn next(&mut self) -> &'t Kind {
        let kind = self.peek();
        self.breaks += self.tokens.get(self.at).map_or(0, |token| token.breaks);
        self.at += 1;
        kind
    }

    /// The line feeds read since the last call.
    pub(super) fn lead(&mut self) -> String {
        "\n".repeat(std::mem::take(&mut self.breaks))
    }

    pub(super) fn is_sign(&self, sign: &str) -> bool {
        matches!(self.peek(), Kind::Sign(found) if *found == sign)
    }

    pub(super) fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), Kind::Name(found) if found == name)
    }

    pub(super) fn skip_sign(&mut self, sign: &str) -> bool {
        let found = self.is_sign(sign);
        if found {
            self.next();
        }
        found
    }

    pub(super) fn skip_name(&mut self, name: &str) -> bool {
        let found = self.is_name(name);
        if found {
            self.next();
        }
        found
    }

    pub(super) fn expect_sign(&mut self, sign: &str) -> Result<()> {
        if self.skip_sign(sign) { Ok(()) } else { Err(format!("expected {sign:?}, found {}", self.found())) }
    }

    pub(super) fn expect_name(&mut self) -> Result<String> {
        match self.peek() {
            Kind::Name(name) => {
                self.next();
                Ok(self.lead() + name)
            }
            _ => Err(format!("expected a name, found {}", self.found())),
        }
    }

    pub(super) fn expect_end(&mut self) -> Result<()> {
        match self.peek() {
            Kind::End => Ok(()),
            _ => Err(format!("expected the end of the tag, found {}", self.found())),
        }
    }

    pub(super) fn found(&self) -> String {
        match self.peek() {
            Kind::Name(name) | Kind::Integer(name) | Kind::Float(name) => format!("{name:?}"),
            Kind::Text(text) => format!("the string {text:?}"),
            Kind::Sign(sign) => format!("{sign:?}"),
            Kind::End => "the end of the tag".to_owned(),
        }
    }
}
