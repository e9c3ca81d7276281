//! The names of the methods of Python's types.

use minijinja::Value;

use super::values;

/// The attributes of a Python `dict`.
pub(super) const DICT: &[&str] = &[
    "clear",
    "copy",
    "fromkeys",
    "get",
    "items",
    "keys",
    "pop",
    "popitem",
    "setdefault",
    "update",
    "values",
];

/// The attributes of a Python `str`.
const STR: &[&str] = &[
    "capitalize",
    "casefold",
    "center",
    "count",
    "encode",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "maketrans",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "translate",
    "upper",
    "zfill",
];

/// The attributes of a Python `list`.
pub(super) const LIST: &[&str] =
    &["append", "clear", "copy", "count", "extend", "index", "insert", "pop", "remove", "reverse", "sort"];

/// The attributes of tuples and ranges.
const TUPLE: &[&str] = &["count", "index", "start", "stop", "step"];

/// The attributes of numbers.
const NUMBER: &[&str] = &[
    "as_integer_ratio",
    "bit_count",
    "bit_length",
    "conjugate",
    "denominator",
    "fromhex",
    "hex",
    "imag",
    "is_integer",
    "numerator",
    "real",
    "to_bytes",
];

/// Whether any type has a method `name`.
pub(super) fn is_method(name: &str) -> bool {
    [DICT, STR, LIST, TUPLE, NUMBER].iter().any(|names| names.contains(&name))
}

/// Whether the type of `value` has the method `name`.
pub(super) fn has_method(value: &Value, name: &str) -> bool {
    let names = match values::type_name(value) {
        "str" => STR,
        "list" => LIST,
        "tuple" | "range" => TUPLE,
        "dict" => DICT,
        "int" | "float" | "bool" => NUMBER,
        _ => return false,
    };
    names.contains(&name)
}
