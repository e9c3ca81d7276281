//! Rewrites three constructs, without changing a line number; the engine reads the first two differently from jinja2:
//!
//! - `{% generation %}` ... `{% endgeneration %}` (the marker of assistant turns in transformers) becomes a scope;
//! - `{% for x in expression %}` gets its expression passed through the filter [`ITER_FILTER`], because Python
//!   refuses to iterate over `None` and the engine does not;
//! - `{% set x = expression %}` gets its expression passed through the filter [`STORE_FILTER`] or [`STORE_IN_FILTER`], which refuse values
//!   that contain a namespace (they could contain themselves) or very many others (they share parts).

use std::borrow::Cow;

/// The filter that stands for Python's `iter`.
pub(super) const ITER_FILTER: &str = "__iter__";

/// The filter that values pass on their way into a variable.
pub(super) const STORE_FILTER: &str = "__store__";
/// The same, on their way into a namespace.
pub(super) const STORE_IN_FILTER: &str = "__store_in__";

/// Most tokens in one tag, and most `elif` in a template. The engine compiles chains of operators, filters and `elif`
/// recursively, so that their length is bounded for its stack; published templates stay below 100.
const MAX_TAG_TOKENS: usize = 1000;

/// The source with both constructs rewritten. Malformed sources come out in a form that the engine refuses as well.
///
/// # Errors
/// The line of a tag that is too long.
pub(super) fn rewrite(source: &str) -> Result<Cow<'_, str>, usize> {
    let mut edits = Vec::new();
    let mut elifs = 0;
    let mut at = 0;
    while let Some(found) = source[at..].find('{') {
        let open = at + found;
        let body = open + 2;
        let after = match source.as_bytes().get(open + 1) {
            Some(b'#') => source[body..].find("#}").map_or(source.len(), |end| body + end + 2),
            Some(b'{') => skip_tag(source, body, "}}", |_| {}),
            Some(b'%') => {
                elifs += usize::from(
                    source[body..].trim_start_matches(['-', '+']).trim_start().starts_with("elif"),
                );
                block(source, body, &mut edits)
            }
            _ => open + 1,
        };
        let is_tag = matches!(source.as_bytes().get(open + 1), Some(b'{' | b'%'));
        if elifs > MAX_TAG_TOKENS || (is_tag && has_too_many_tokens(&source[body..after])) {
            return Err(1 + source[..open].matches('\n').count());
        }
        at = after;
    }
    if edits.is_empty() {
        return Ok(Cow::Borrowed(source));
    }
    let mut out = String::with_capacity(source.len() + 16 * edits.len());
    let mut copied = 0;
    for Edit { start, end, text } in edits {
        out.push_str(&source[copied..start]);
        out.push_str(text);
        copied = end;
    }
    out.push_str(&source[copied..]);
    Ok(Cow::Owned(out))
}

fn has_too_many_tokens(mut tag: &str) -> bool {
    for _ in 0..=MAX_TAG_TOKENS {
        tag = tag.trim_start();
        if tag.is_empty() || tag.starts_with("%}") {
            return false;
        }
        tag = &tag[token_len(tag)..];
    }
    true
}

/// Replaces `source[start..end]` by `text`.
struct Edit {
    start: usize,
    end: usize,
    text: &'static str,
}

/// A token at bracket depth 0.
struct Token<'a> {
    start: usize,
    text: &'a str,
}

/// Handles the block tag whose inside starts at `body`; returns where to go on.
fn block(source: &str, body: usize, edits: &mut Vec<Edit>) -> usize {
    let mut name = None;
    let mut iterable: Option<usize> = None;
    let mut iterable_closed = false;
    let mut assigned: Option<usize> = None;
    let mut in_namespace = false;
    let mut last_end = body;
    let mut new_edits = Vec::new();
    let end = skip_tag(source, body, "%}", |token: Token<'_>| {
        let token_end = token.start + token.text.len();
        match name {
            None if token.text == "-" || token.text == "+" => {}
            None => {
                name = Some(token.text.to_owned());
                let scope = match token.text {
                    "generation" => Some("with"),
                    "endgeneration" => Some("endwith"),
                    _ => None,
                };
                if let Some(text) = scope {
                    new_edits.push(Edit { start: token.start, end: token_end, text });
                }
            }
            Some(ref tag) if tag == "for" => match (iterable, token.text) {
                (None, "in") => {
                    iterable = Some(token_end);
                    new_edits.push(Edit { start: token_end, end: token_end, text: " (" });
                }
                (Some(_), "if" | "recursive") if !iterable_closed => {
                    iterable_closed = true;
                    new_edits.push(Edit { start: token.start, end: token.start, text: ")|__iter__ " });
                }
                _ => {}
            },
            Some(ref tag) if tag == "set" && token.text == "." && assigned.is_none() => in_namespace = true,
            Some(ref tag) if tag == "set" && token.text == "=" && assigned.is_none() => {
                assigned = Some(token_end);
                new_edits.push(Edit { start: token_end, end: token_end, text: " (" });
            }
            Some(_) => {}
        }
        last_end = token_end;
    });
    if iterable.is_some() && !iterable_closed {
        new_edits.push(Edit { start: last_end, end: last_end, text: ")|__iter__" });
    }
    if assigned.is_some() {
        let text = if in_namespace { ")|__store_in__" } else { ")|__store__" };
        new_edits.push(Edit { start: last_end, end: last_end, text });
    }
    edits.append(&mut new_edits);
    if name.as_deref() == Some("raw") { skip_raw(source, end) } else { end }
}

/// Walks over the tokens of a tag from `at` up to and over its `close` marker. `on_token` gets those outside of
/// brackets; brackets and what they enclose come as one token each.
fn skip_tag(source: &str, mut at: usize, close: &str, mut on_token: impl FnMut(Token<'_>)) -> usize {
    let bytes = source.as_bytes();
    let mut depth = 0_usize;
    let mut bracket_start = at;
    while at < bytes.len() {
        let rest = &source[at..];
        if depth == 0 {
            if rest.starts_with(close) {
                return at + close.len();
            }
            if (rest.starts_with('-') || rest.starts_with('+')) && rest[1..].starts_with(close) {
                return at + 1 + close.len();
            }
        }
        let start = at;
        at += token_len(rest);
        match bytes[start] {
            b'(' | b'[' | b'{' => {
                if depth == 0 {
                    bracket_start = start;
                }
                depth += 1;
            }
            b')' | b']' | b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    on_token(Token { start: bracket_start, text: &source[bracket_start..at] });
                }
            }
            space if depth > 0 || space.is_ascii_whitespace() => {}
            _ => on_token(Token { start, text: &source[start..at] }),
        }
    }
    source.len()
}

/// Bytes of the token at the start of `rest`, which is not empty: a string, a name or number, or one character.
fn token_len(rest: &str) -> usize {
    let first = rest.chars().next().map_or(1, char::len_utf8);
    match rest.as_bytes()[0] {
        quote @ (b'\'' | b'"') => {
            let mut escaped = false;
            for (at, byte) in rest.bytes().enumerate().skip(1) {
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' => escaped = true,
                    byte if byte == quote => return at + 1,
                    _ => {}
                }
            }
            rest.len()
        }
        byte if byte == b'_' || byte.is_ascii_alphanumeric() => {
            rest.bytes().take_while(|b| *b == b'_' || b.is_ascii_alphanumeric()).count()
        }
        _ => first,
    }
}

/// Where `{% endraw %}` ends, looking from `at` on.
fn skip_raw(source: &str, mut at: usize) -> usize {
    while let Some(found) = source[at..].find("{%") {
        at += found + 2;
        let rest = source[at..].trim_start_matches(['-', '+']).trim_start();
        if let Some(rest) = rest.strip_prefix("endraw") {
            let rest = rest.trim_start();
            let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest);
            if let Some(rest) = rest.strip_prefix("%}") {
                return source.len() - rest.len();
            }
        }
    }
    source.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_scopes_and_iterables() {
        for (source, expected) in [
            ("{%- generation -%}x{% endgeneration %}", "{%- with -%}x{% endwith %}"),
            ("{% for a, b in x.items() -%}", "{% for a, b in ( x.items())|__iter__ -%}"),
            ("{%for m in l[1:] if m['if'] in q%}", "{%for m in ( l[1:] )|__iter__ if m['if'] in q%}"),
            (
                "{% for x in (a if b else c) recursive %}",
                "{% for x in ( (a if b else c) )|__iter__ recursive %}",
            ),
            ("{%- set x = a, 'b' -%}", "{%- set x = ( a, 'b')|__store__ -%}"),
            ("{% set ns.x=(a == b.c) %}", "{% set ns.x= ((a == b.c))|__store_in__ %}"),
            ("{% set x %}y = z{% endset %}", "{% set x %}y = z{% endset %}"),
            ("{% for x in ['%}', \"\\\"%}\"] %}", "{% for x in ( ['%}', \"\\\"%}\"])|__iter__ %}"),
        ] {
            assert_eq!(rewrite(source).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn tags_that_are_too_long_are_refused() {
        let sum = |terms: usize| format!("\n{{{{ 1{} }}}}", "+1".repeat(terms));
        assert!(rewrite(&sum(490)).is_ok());
        assert_eq!(rewrite(&sum(600)), Err(2));
        assert_eq!(rewrite(&format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(1001))), Err(1));
    }

    #[test]
    fn leaves_text_comments_and_raw_blocks_alone() {
        for source in [
            "for x in y {# {% for x in y %} #} { % generation",
            "{% raw %}{% for x in y %}{% generation %}{%- endraw -%}",
            "{{ '{% for x in y %}' ~ {'a': {'b': '}}'}} }}",
            "{% if generation == 1 %}{{ generation }}{% endif %}",
            "{%",
            "{% for x in",
            "{{ 'open",
        ] {
            let rewritten = rewrite(source).expect("short");
            assert!(rewritten == source || source == "{% for x in", "{rewritten}");
        }
    }
}
