//! Rewrites a template for the engine, keeping its line numbers.
//!
//! The engine's operators make lazy lists (`list + list`, `list * n`, slices) and iterate over them, compare and print
//! them without counting: a few tags could double a list without end. There is no hook for operators, so none reaches
//! the engine. Every expression is parsed with jinja2's grammar and written with a filter of `super::operators` in
//! place of each operator, index and slice; their results are complete values and are charged to the budget. The engine
//! keeps literals, names, attributes, calls, `and`, `or`, `not`, `if` and the blocks. Further:
//!
//! - the iterable of a `for`, and `*arguments`, pass through `__iter__` (Python refuses values that are not iterable,
//!   the engine does not);
//! - values assigned to variables pass through `__store__`, which refuses values of very many parts, and values
//!   assigned in namespaces through `__store_in__`, which also refuses other namespaces (they could contain
//!   themselves);
//! - `{% generation %}` (the marker of assistant turns in transformers) becomes a scope.

use std::borrow::Cow;

use super::expression::Conditionals;
use super::lexer::{self, Kind, Tag};
use super::parser::{Macros, Parameter, Parser, Result};

/// Most tokens in one tag, and most `elif` in a template. Chains of them are parsed recursively, so the stack bounds
/// their length; published templates stay below 100.
const MAX_TAG_TOKENS: usize = 1000;
/// Most characters in a line of the engine's input. The engine counts columns in a `u16`, and overflows when it reports
/// an error at the limit.
const MAX_COLUMNS: usize = u16::MAX as usize - 1;

/// Normalizes line ends as jinja2 does: `\r\n` and `\r` become `\n`.
pub(super) fn with_line_feeds(source: &str) -> Cow<'_, str> {
    if source.contains('\r') {
        Cow::Owned(source.replace("\r\n", "\n").replace('\r', "\n"))
    } else {
        Cow::Borrowed(source)
    }
}

/// Why a template cannot be read.
#[derive(Debug)]
pub(super) struct SyntaxError {
    /// Counted from 1.
    pub(super) line: usize,
    pub(super) reason: String,
}

/// The source for the engine.
///
/// # Errors
/// For malformed and unsupported templates.
pub(super) fn rewrite(source: &str) -> std::result::Result<String, SyntaxError> {
    let macros = macros(source);
    let mut out = String::with_capacity(source.len() * 2);
    let mut elifs = 0;
    let mut copied = 0;
    let mut at = 0;
    while let Some(found) = source[at..].find('{') {
        let open = at + found;
        let body = open + 2;
        let line = |at: usize| 1 + source[..at].matches('\n').count();
        at = match source.as_bytes().get(open + 1) {
            Some(b'#') => source[body..].find("#}").map_or(source.len(), |end| body + end + 2),
            Some(mark @ (b'{' | b'%')) => {
                let is_block = *mark == b'%';
                let inside = body + usize::from(source[body..].starts_with(['-', '+']));
                let wrong = |reason| SyntaxError { line: line(open), reason };
                let tag = lexer::tag(source, inside, if is_block { "%}" } else { "}}" }, MAX_TAG_TOKENS);
                let Tag { tokens, close, after } = tag.map_err(wrong)?;
                let mut parser = Parser::new(&tokens, &macros);
                let written = if is_block { block(&mut parser) } else { print(&mut parser) };
                let written = written.map_err(wrong)?;
                elifs += usize::from(written.trim_start().starts_with("elif"));
                if elifs > MAX_TAG_TOKENS {
                    return Err(wrong(format!("expected at most {MAX_TAG_TOKENS} elif in a template")));
                }
                out.push_str(&source[copied..inside]);
                out.push(' ');
                out.push_str(&written);
                // The line feeds of the tag that are not written yet.
                let read = source[inside..close].matches('\n').count();
                out.extend(std::iter::repeat_n('\n', read.saturating_sub(written.matches('\n').count())));
                out.push(' ');
                copied = close;
                if is_block
                    && matches!(tokens.first().map(|token| &token.kind), Some(Kind::Name(name)) if name == "raw")
                {
                    skip_raw(source, after)
                } else {
                    after
                }
            }
            _ => open + 1,
        };
    }
    out.push_str(&source[copied..]);
    for (index, text) in out.split('\n').enumerate() {
        let columns = text.chars().count();
        if columns > MAX_COLUMNS {
            let reason = format!(
                "expected lines of at most {MAX_COLUMNS} characters, found {columns} (with operators written as filters)"
            );
            return Err(SyntaxError { line: index + 1, reason });
        }
    }
    Ok(out)
}

/// Finds what looks like definitions of macros.
fn macros(source: &str) -> Macros {
    let mut found = Macros::new();
    for (at, _) in source.match_indices("macro ") {
        let Ok(Tag { tokens, .. }) = lexer::tag(source, at, "%}", MAX_TAG_TOKENS) else { continue };
        let kind = |place: usize| tokens.get(place).map_or(&Kind::End, |token| &token.kind);
        let (Kind::Name(name), Kind::Sign("(")) = (kind(1), kind(2)) else { continue };
        let mut params = Vec::new();
        let mut depth = 0_usize;
        for place in 2..tokens.len() {
            match (kind(place), kind(place + 1)) {
                (Kind::Sign("(" | "[" | "{"), _) => depth += 1,
                (Kind::Sign(")" | "]" | "}"), _) => depth -= 1,
                (Kind::Name(param), next)
                    if depth == 1 && matches!(kind(place - 1), Kind::Sign("(" | ",")) =>
                {
                    let has_default = *next == Kind::Sign("=");
                    params.push(Parameter { name: param.clone(), has_default });
                }
                _ => {}
            }
        }
        found.insert(name.clone(), params);
    }
    found
}

fn print(parser: &mut Parser<'_>) -> Result<String> {
    let value = parser.tuple(Conditionals::Allowed, "}}")?;
    parser.expect_end()?;
    Ok(value.text)
}

fn block(parser: &mut Parser<'_>) -> Result<String> {
    let name = parser.expect_name()?;
    let tag = name.trim_start();
    let written = match tag {
        "if" | "elif" => name.clone() + " " + &parser.tuple(Conditionals::Allowed, "%}")?.text,
        "for" => name.clone() + &for_loop(parser)?,
        "set" => name.clone() + &assignment(parser)?,
        "with" => name.clone() + &scope(parser)?,
        "macro" => {
            let macro_name = parser.expect_name()?;
            format!("{name} {macro_name}{}", signature(parser)?)
        }
        "call" => {
            let arguments = if parser.is_sign("(") { signature(parser)? } else { String::new() };
            format!("{name}{arguments} {}", parser.expression()?.text)
        }
        "filter" => {
            let first = parser.filter()?;
            format!("{name} {first}{}", filters(parser)?)
        }
        // With escaping, the engine would print values by itself, and jinja2 escapes in many places.
        "autoescape" => match parser.next() {
            Kind::Name(word) if word.eq_ignore_ascii_case("false") => format!("{name} false"),
            _ => return Err("expected \"false\": escaping is not supported".to_owned()),
        },
        "generation" => name.replace("generation", "with"),
        "endgeneration" => name.replace("endgeneration", "endwith"),
        "else" | "endif" | "endfor" | "endset" | "endwith" | "endmacro" | "endcall" | "endfilter"
        | "endautoescape" | "break" | "continue" | "raw" | "endraw" => name.clone(),
        _ => return Err(format!("unknown tag {tag:?}")),
    };
    parser.expect_end()?;
    Ok(written)
}

fn for_loop(parser: &mut Parser<'_>) -> Result<String> {
    let Targets { text: targets, count, .. } = targets(parser)?;
    if !parser.skip_name("in") {
        return Err("expected \"in\" after the names of a loop".to_owned());
    }
    let iterable = parser.tuple(Conditionals::Excluded, "recursive")?.text;
    let mut text = format!(" {targets} in {iterable}|__iter__({count})");
    if parser.skip_name("if") {
        text = text + " if " + &parser.expression()?.text;
    }
    if parser.skip_name("recursive") {
        text.push_str(" recursive");
    }
    Ok(text)
}

fn assignment(parser: &mut Parser<'_>) -> Result<String> {
    let Targets { text: targets, count, in_namespace } = targets(parser)?;
    if !parser.skip_sign("=") {
        return Ok(format!(" {targets}{}", filters(parser)?));
    }
    let value = parser.tuple(Conditionals::Allowed, "%}")?.text;
    let unpack = if count > 0 { format!("|__unpack__({count})") } else { String::new() };
    let store = if in_namespace { "__store_in__" } else { "__store__" };
    Ok(format!(" {targets} = {value}{unpack}|{store}"))
}

/// The targets of an assignment.
struct Targets {
    /// With commas and parentheses.
    text: String,
    /// Targets at the top level; 0 for a single one that takes the whole value.
    count: usize,
    /// Whether one is in a namespace.
    in_namespace: bool,
}

fn targets(parser: &mut Parser<'_>) -> Result<Targets> {
    let mut text = String::new();
    let mut count = 0;
    let mut is_tuple = false;
    let mut in_namespace = false;
    loop {
        if parser.skip_sign("(") {
            let inner = targets(parser)?;
            parser.expect_sign(")")?;
            // Parentheses around everything do not make another tuple.
            if count == 0 && !parser.is_sign(",") {
                return Ok(Targets { text: format!("({})", inner.text), ..inner });
            }
            text = text + "(" + &inner.text + ")";
            in_namespace |= inner.in_namespace;
        } else {
            text.push_str(&parser.expect_name()?);
            if parser.skip_sign(".") {
                text = text + "." + &parser.expect_name()?;
                in_namespace = true;
            }
        }
        count += 1;
        if !parser.skip_sign(",") {
            break;
        }
        is_tuple = true;
        text.push(',');
        if !matches!(parser.peek(), Kind::Name(name) if name != "in") && !parser.is_sign("(") {
            break;
        }
        text.push(' ');
    }
    Ok(Targets { text, count: if is_tuple { count } else { 0 }, in_namespace })
}

fn scope(parser: &mut Parser<'_>) -> Result<String> {
    let mut text = String::new();
    while !matches!(parser.peek(), Kind::End) {
        let name = parser.expect_name()?;
        parser.expect_sign("=")?;
        text = format!("{text} {name} = {}|__store__", parser.expression()?.text);
        if !matches!(parser.peek(), Kind::End) {
            parser.expect_sign(",")?;
            text.push(',');
        }
    }
    Ok(text)
}

fn signature(parser: &mut Parser<'_>) -> Result<String> {
    parser.expect_sign("(")?;
    let mut parts = Vec::new();
    while !parser.is_sign(")") {
        let mut part = parser.expect_name()?;
        if parser.skip_sign("=") {
            part = part + "=" + &parser.expression()?.text;
        }
        parts.push(part);
        if !parser.is_sign(")") {
            parser.expect_sign(",")?;
        }
    }
    parser.next();
    Ok(format!("({})", parts.join(", ")))
}

/// Filters after the first words of a `set` or `filter` block.
fn filters(parser: &mut Parser<'_>) -> Result<String> {
    let mut text = String::new();
    while parser.skip_sign("|") {
        text = text + "|" + &parser.filter()?;
    }
    Ok(text)
}

/// The start of `{% endraw %}`, searched from `at` on.
fn skip_raw(source: &str, mut at: usize) -> usize {
    while let Some(found) = source[at..].find("{%") {
        let rest = source[at + found + 2..].trim_start_matches(['-', '+']).trim_start();
        if rest
            .strip_prefix("endraw")
            .is_some_and(|rest| rest.trim_start().trim_start_matches(['-', '+']).starts_with("%}"))
        {
            return at + found;
        }
        at += found + 2;
    }
    source.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_become_filters() {
        for (source, expected) in [
            ("{%- generation -%}x{% endgeneration %}", "{%- with -%}x{% endwith %}"),
            ("{{ a + b * c - 1 }}", "{{ 0|__chain__(a, \"+\", 0|__chain__(b, \"*\", c), \"-\", 1) }}"),
            ("{{ -x ** 2|f }}", "{{ 0|__chain__(0|__neg__(x), \"**\", 2|f) }}"),
            ("{{ a ~ 'b' ~ c }}", "{{ 0|__concat__(a, \"b\", c) }}"),
            (
                "{{ not a in b and c < d }}",
                "{{ ((not 0|__compare__(a, \"in\", b)) and 0|__compare__(c, \"<\", d)) }}",
            ),
            ("{{ m['role'].x[0][1:] }}", "{{ m[\"role\"].x|__item__(0)|__slice__(1, none, none) }}"),
            ("{{ (a|f).g(*b, c=1) }}", "{{ (a|f).g(*b|__iter__, c=1) }}"),
            (
                "{% macro m(a, b=1) %}{{ m(x, y, b=z) }}",
                "{% macro m(a, b=1) %}{{ m(x, y|__given__, b=z|__given__) }}",
            ),
            ("{{ d.items }}{{ d.items() }}", "{{ d|__attr__(\"items\") }}{{ d.items() }}"),
            ("{{ x if a is not defined else y }}", "{{ (x if (a is not defined) else y) }}"),
            ("{{ {'a': 1, b: 2} }}", "{{ {\"a\": 1, b|__key__: 2} }}"),
            ("{% for a, b in x.items() -%}", "{% for a, b in x.items()|__iter__(2) -%}"),
            ("{%for m in l if m['if'] recursive%}", "{% for m in l|__iter__(0) if m[\"if\"] recursive %}"),
            ("{%- set x = a, 'b' -%}", "{%- set x = (a, \"b\")|__store__ -%}"),
            ("{% set ns.x=(a == b) %}", "{% set ns.x = 0|__compare__(a, \"==\", b)|__store_in__ %}"),
            ("{% set x %}y = z{% endset %}", "{% set x %}y = z{% endset %}"),
        ] {
            let found = rewrite(source).expect(source);
            assert_eq!(found.replace("  ", " "), expected.replace("  ", " "), "{source}");
        }
    }

    #[test]
    fn lines_that_the_engine_cannot_count_are_refused() {
        // An unclosed comment, which the engine reports at the end of its line.
        let rewritten = |columns: usize| rewrite(&format!("a\n{}{{#", "b".repeat(columns - 2)));
        assert!(rewritten(MAX_COLUMNS).is_ok());
        let error = rewritten(MAX_COLUMNS + 1).expect_err("too long");
        assert!(error.line == 2 && error.reason.contains("65534"), "{error:?}");
    }

    #[test]
    fn lines_keep_their_numbers() {
        let source = "{{\n a\n +\n b }}\n{% if 'x\ny'\n%}{% endif %}";
        assert_eq!(rewrite(source).expect("valid").matches('\n').count(), source.matches('\n').count());
        assert_eq!(rewrite("a\n{{ b\n~ }}").map_err(|error| error.line), Err(2));
    }

    #[test]
    fn long_tags_are_refused() {
        let sum = |terms: usize| format!("\n{{{{ 1{} }}}}", "+1".repeat(terms));
        assert!(rewrite(&sum(490)).is_ok());
        assert_eq!(rewrite(&sum(600)).map_err(|error| error.line), Err(2));
        let elifs = format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(1001));
        assert_eq!(rewrite(&elifs).map_err(|error| error.line), Err(1));
    }

    #[test]
    fn leaves_text_comments_and_raw_blocks_alone() {
        for source in [
            "for x in y {# {% for x in y %} #} { % generation",
            "{% raw %}{% for x in y %}{% generation %}{%- endraw -%}",
        ] {
            assert_eq!(rewrite(source).expect("valid").replace("  ", " "), source);
        }
        for source in
            ["{%", "{% for x in", "{{ 'open", "{{ (] }}", "{% unknown %}", "{{ a b }}", "{{ x|__store__ }}"]
        {
            assert!(rewrite(source).is_err(), "{source}");
        }
    }
}
