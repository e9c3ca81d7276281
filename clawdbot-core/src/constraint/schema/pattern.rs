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
    if class { Err("expected an end of the class of characters".into()) } else { Ok(out) }
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
        ] {
            assert_eq!(translated(ecma).as_deref(), Ok(rust), "{ecma}");
        }
        assert!(translated(r"\s[\s\S]").expect("known").starts_with(r"[\t\n"));
        for ecma in [r"\bword", r"(?=a)", r"(?i)a", r"(?<n>a)", r"a\z", "[a--b]", "[a", "[]", r"\1", "a\\"] {
            assert!(translated(ecma).is_err(), "{ecma}");
        }
    }
}
