//! Formats of strings.

/// How a format is enforced.
pub(super) enum Format {
    /// By the parser's crate, under the same name.
    Known,
    /// By this pattern.
    Pattern(&'static str),
}

/// Month and day, without the 29th of February.
macro_rules! month_day {
    () => {
        "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
    };
}

/// A day of the Gregorian calendar (RFC 3339, `full-date`).
macro_rules! date {
    () => {
        concat!(
            "(?:[0-9]{4}-",
            month_day!(),
            "|(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29)"
        )
    };
}

/// A time of day with its offset (RFC 3339, `full-time`), without leap seconds, which most programs refuse.
macro_rules! time {
    () => {
        "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]+)?(?:[zZ]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
    };
}

/// Formats that are enforced. Others are refused.
const FORMATS: [(&str, Format); 10] = [
    ("date", Format::Pattern(concat!("^", date!(), "$"))),
    ("date-time", Format::Pattern(concat!("^", date!(), "[tT]", time!(), "$"))),
    ("time", Format::Pattern(concat!("^", time!(), "$"))),
    ("duration", Format::Known),
    ("email", Format::Known),
    ("hostname", Format::Known),
    ("ipv4", Format::Known),
    ("ipv6", Format::Known),
    ("uri", Format::Known),
    (
        "uuid",
        Format::Pattern("^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"),
    ),
];

/// How `name` is enforced; `None` if it is not.
pub(super) fn find(name: &str) -> Option<&'static Format> {
    FORMATS.iter().find(|(known, _)| *known == name).map(|(_, format)| format)
}

/// The names of the formats that are enforced.
pub(super) fn names() -> String {
    FORMATS.map(|(name, _)| name).join(", ")
}
