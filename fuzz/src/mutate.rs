//! Mutations: what breaks parsers of binary headers and of JSON.

use crate::rng::Rng;
use crate::shapes;

/// Longest input.
pub const MAX_LEN: usize = 1 << 18;

/// Numbers at the edges of types and of what is checked.
const NUMBERS: &[u64] = &[
    0,
    1,
    2,
    7,
    16,
    31,
    32,
    64,
    127,
    128,
    255,
    256,
    1 << 12,
    (1 << 16) - 1,
    1 << 16,
    1 << 20,
    1 << 24,
    (1 << 28) + 1,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 32,
    (1 << 32) + 1,
    1 << 40,
    1 << 53,
    (1 << 62) - 1,
    1 << 62,
    1 << 63,
    u64::MAX - 7,
    u64::MAX - 1,
    u64::MAX,
];

/// Words that parsers of these formats know.
const WORDS: &[&str] = &[
    "null",
    "true",
    "false",
    "[]",
    "{}",
    "\"\"",
    "-1",
    "0",
    "1e308",
    "-1e-308",
    "0.5",
    "1e400",
    "NaN",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "[[[[[[[[",
    "{\"a\":{\"a\":{\"a\":",
    "4294967295",
    "4294967296",
    "18446744073709551615",
    "9007199254740993",
    "\u{2581}",
    "\u{fffd}",
    "\u{1f600}",
    "\u{0}",
    "\"F32\"",
    "\"BF16\"",
    "\"I8\"",
    "\"U8\"",
    "\"F64\"",
    "\"BPE\"",
    "\"Unigram\"",
    "\"WordPiece\"",
    "\"WordLevel\"",
    "\"Split\"",
    "\"ByteLevel\"",
    "\"Metaspace\"",
    "\"Precompiled\"",
    "\"Replace\"",
    "\"Sequence\"",
    "\"Regex\"",
    "(a+)+$",
    "((((((((((a*)*)*)*)*)*)*)*)*)*",
    "\\p{L}{1000}",
    "{% for i in range(999999999) %}",
    "{{ x * 999999999 }}",
    "{% set x = 'a' * 9999999999 %}",
    "{{ messages | tojson }}",
    "{% endfor %}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{{ raise_exception('no') }}",
    "{% set ns = namespace(x=[1]) %}",
    "{% set ns.x = ns.x + ns.x %}",
    "{% set ns.x = [ns.x, ns.x] * 99 %}",
    "{% for i in range(60) %}",
    "ns.x",
    " ~ ns.x",
    "|map('list')|list",
    "|sort|unique|list",
    "|groupby('role')",
    " in messages * 9999",
    "[::-1]",
    " % ('%9999d', 1)",
    "loop.cycle(*x)",
    "('a' * 99999)|wordwrap(1)",
    "..",
    "/etc/passwd",
    "__metadata__",
    "\"yarn\"",
    "\"longrope\"",
    "\"llama3\"",
    "\"linear\"",
    "rope_scaling",
    "num_experts",
];

/// Changes `input` one to eight times; `other` is what may be spliced in.
pub fn mutate(input: &mut Vec<u8>, other: &[u8], rng: &mut Rng, text: bool) {
    for _ in 0..1 + rng.below(3) * rng.below(4) {
        once(input, other, rng, text);
    }
    input.truncate(MAX_LEN);
}

fn once(input: &mut Vec<u8>, other: &[u8], rng: &mut Rng, text: bool) {
    if input.is_empty() {
        input.extend_from_slice(other);
        return;
    }
    if text && rng.one_in(100) {
        input.splice(0..0, shapes::mark(rng).iter().copied());
    }
    // Headers stand in front: half of all changes there.
    let front = if rng.one_in(2) { input.len().min(512) } else { input.len() };
    let at = rng.below(front);
    match rng.below(if text { 14 } else { 10 }) {
        0 => input[at] ^= 1 << rng.below(8),
        1 => input[at] = rng.next() as u8,
        2 | 3 => {
            let number = match rng.below(4) {
                0 => input.len() as u64 + rng.below(64) as u64 - 32_u64.min(input.len() as u64),
                1 => rng.next() >> rng.below(64),
                _ => *rng.pick(NUMBERS),
            };
            let bytes = number.to_le_bytes();
            let width = *rng.pick(&[1, 2, 4, 8]);
            let end = (at + width).min(input.len());
            input[at..end].copy_from_slice(&bytes[..end - at]);
        }
        4 => {
            // A number in place by a little more or less.
            let end = (at + 8).min(input.len());
            let delta = rng.below(9) as u8;
            input[at] = input[at].wrapping_add(delta).wrapping_sub(4);
            if rng.one_in(4) {
                input[at..end].reverse();
            }
        }
        5 => input.truncate(at),
        6 => {
            let end = (at + 1 + rng.below(32)).min(input.len());
            input.drain(at..end);
        }
        7 => {
            let end = (at + 1 + rng.below(64)).min(input.len());
            let part = input[at..end].to_vec();
            let to = rng.below(input.len() + 1);
            input.splice(to..to, part);
        }
        8 if !other.is_empty() => {
            let start = rng.below(other.len());
            let end = (start + 1 + rng.below(256)).min(other.len());
            let stop = if rng.one_in(2) { at } else { (at + end - start).min(input.len()) };
            input.splice(at..stop, other[start..end].iter().copied());
        }
        9 => {
            let word = rng.pick(WORDS).as_bytes();
            let stop = if rng.one_in(2) { at } else { (at + word.len()).min(input.len()) };
            input.splice(at..stop, word.iter().copied());
        }
        // Of text: a value, a number or a string in place of another.
        _ => {
            let is_end = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b'\n');
            let Some(colon) = input[at..].iter().position(|byte| matches!(byte, b':' | b'[' | b',')) else {
                return;
            };
            let start = at + colon + 1;
            let length = input[start..].iter().position(is_end).unwrap_or(input.len() - start);
            let value = if rng.one_in(5) {
                shapes::json_value(rng)
            } else if rng.one_in(2) {
                rng.pick(WORDS).as_bytes().to_vec()
            } else {
                rng.pick(NUMBERS).to_string().into_bytes()
            };
            input.splice(start..start + length, value);
        }
    }
}
