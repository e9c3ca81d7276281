//! Patterns: from ECMA-262, which JSON Schema uses, to the syntax of Rust.

/// White space of ECMA-262.
const SPACE: &str =
    r"\t\n\x0B\f\r \x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}\x{FEFF}";
/// What a dot does not match.
const LINE_ENDS: &str = r"\n\r\x{2028}\x{2029}";

/// `pattern` in Rust's syntax. Where the languages differ it says the same, or is refused.
///
/// # Errors
/// What was expected.
pub(super) fn translated(pattern: &str) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len());
    let mut chars = pattern.chars().peekable();
    let mut class = false;
    let mut previous = None;
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                let escaped = chars.next().ok_or("expected a character after the last backslash")?;
                escape(&mut out, escaped, class)?;
                // Braces of an escape are no count.
                if matches!(escaped, 'u' | 'p' | 'P') && chars.peek() == Some(&'{') {
                    out.extend(chars.by_ref().take_while(|&c| c != '}'));
                    out.push('}');
                }
                if escaped == 'x' && chars.peek() == Some(&'{') {
                    return Err("expected two digits after \"\\x\"".into());
                }
            }
            '[' if !class => {
                class = true;
                out.push('[');
                if chars.next_if_eq(&'^').is_some() {
                    out.push('^');
                }
                if chars.peek() == Some(&']') {
                    return Err("expected a class of characters that is not empty".into());
                }
            }
            // In Rust it would begin a class inside of the class.
            '[' => out.push_str(r"\["),
            ']' if class => {
                class = false;
                out.push(']');
            }
            ']' => out.push_str(r"\]"),
            // In Rust these are operations on classes.
            '&' | '~' if class => {
                out.push('\\');
                out.push(c);
            }
            '-' if class && previous == Some('-') => return Err("expected a class without \"--\"".into()),
            '{' if !class => {
                let count: String = chars.clone().take_while(|&c| c != '}').collect();
                let (least, most) = count.split_once(',').unwrap_or((&count, ""));
                let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
                let ends = chars.clone().nth(count.chars().count()) == Some('}');
                if !ends || least.is_empty() || !number(least) || !number(most) {
                    // With the flag u this is an error in ECMA-262, without it text, and elsewhere a count.
                    return Err(format!(
                        "expected a count ({{2}}, {{2,}} or {{2,4}}), or \\{{ for the character, found \"{{{count:.20}\""
                    ));
                }
                out.push(c);
            }
            '.' if !class => out.push_str(&format!("[^{LINE_ENDS}]")),
            '(' if !class && chars.peek() == Some(&'?') => {
                chars.next();
                let colon = chars.next_if_eq(&':').is_some();
                if !colon {
                    return Err("expected groups \"(...)\" or \"(?:...)\"".into());
                }
                out.push_str("(?:");
            }
            _ => out.push(c),
        }
        previous = Some(c);
    }
    if class {
        return Err("expected an end of the class of characters".into());
    }
    match regex_syntax::Parser::new().parse(&out) {
        Ok(_) => Ok(out),
        Err(regex_syntax::Error::Parse(error)) => Err(wrong(error.kind())),
        Err(regex_syntax::Error::Translate(error)) => Err(wrong(error.kind())),
        Err(_) => Err(wrong(&"it is none")),
    }
}

fn wrong(reason: &impl std::fmt::Display) -> String {
    format!("expected a regular expression, found a wrong one: {reason}")
}

/// Appends what a backslash and `c` mean.
fn escape(out: &mut String, c: char, class: bool) -> Result<(), String> {
    match c {
        's' if class => out.push_str(SPACE),
        's' => out.push_str(&format!("[{SPACE}]")),
        'S' => out.push_str(&format!("[^{SPACE}]")),
        // The parser's crate reads them as ASCII, as ECMA-262 does.
        'd' | 'D' | 'w' | 'W' | 'n' | 'r' | 't' | 'f' | 'v' | 'u' | 'x' | 'p' | 'P' => {
            out.push('\\');
            out.push(c);
        }
        _ if c.is_ascii_punctuation() && !matches!(c, '<' | '>') => {
            out.push('\\');
            out.push(c);
        }
        _ if !c.is_ascii_alphanumeric() => out.push(c),
        _ => return Err(format!("expected an escape that is known, found \"\\{c}\"")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_translated() {
        for (ecma, rust) in [
            (r"^\d+[\w-]*$", r"^\d+[\w-]*$"),
            ("a.b", r"a[^\n\r\x{2028}\x{2029}]b"),
            ("[[.&&]", r"[\[.\&\&]"),
            (r"\/\-\<", r"\/\-<"),
            ("(?:a|b)]", r"(?:a|b)\]"),
            (r"\u00e9\u{e9}{2}\p{L}{1,}[{]x{2,3}}", r"\u00e9\u{e9}{2}\p{L}{1,}[{]x{2,3}}"),
        ] {
            assert_eq!(translated(ecma).as_deref(), Ok(rust), "{ecma}");
        }
        assert!(translated(r"\s[\s\S]").expect("known").starts_with(r"[\t\n"));
        for ecma in ["a{,2}", "{", "a{b}", "a{1", "a{1,2,3}", "(", "a{3,1}", r"\p{None}", r"\x{41}", "*"] {
            let reason = translated(ecma).expect_err(ecma);
            assert!(reason.starts_with("expected "), "{ecma}: {reason}");
        }
        for ecma in [r"\bword", r"(?=a)", r"(?i)a", r"(?<n>a)", r"a\z", "[a--b]", "[a", "[]", r"\1", "a\\"] {
            assert!(translated(ecma).is_err(), "{ecma}");
        }
    }
}
