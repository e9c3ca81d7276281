//! `strftime_now`: the local time, and Python's `strftime` in the C locale, without the C library.

use minijinja::Error;

use super::values::type_error;

/// A moment in local time, which templates read through `strftime_now`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalTime {
    /// Year, 1 to 9999.
    pub year: i16,
    /// Month, 1 to 12.
    pub month: u8,
    /// Day of the month, 1 to 31.
    pub day: u8,
    /// Hour, 0 to 23.
    pub hour: u8,
    /// Minute, 0 to 59.
    pub minute: u8,
    /// Second, 0 to 59.
    pub second: u8,
    /// Microsecond, 0 to 999999.
    pub microsecond: u32,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

impl LocalTime {
    /// The current time in the host's time zone (UTC if the host has none).
    pub fn now() -> Self {
        let now = jiff::Zoned::now();
        LocalTime {
            year: now.year(),
            month: now.month().unsigned_abs(),
            day: now.day().unsigned_abs(),
            hour: now.hour().unsigned_abs(),
            minute: now.minute().unsigned_abs(),
            second: now.second().unsigned_abs(),
            microsecond: u32::try_from(now.subsec_nanosecond() / 1000).unwrap_or(0),
        }
    }

    fn is_leap_year(&self) -> bool {
        self.year % 4 == 0 && (self.year % 100 != 0 || self.year % 400 == 0)
    }

    /// Day of the year, 1 to 366.
    fn day_of_year(&self) -> u16 {
        const BEFORE: [u16; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
        let leap_day = u16::from(self.month > 2 && self.is_leap_year());
        BEFORE[usize::from(self.month.clamp(1, 12)) - 1] + leap_day + u16::from(self.day)
    }

    /// Days since Sunday, 0 to 6: <https://en.wikipedia.org/wiki/Determination_of_the_day_of_the_week>.
    fn weekday(&self) -> u8 {
        let before = i32::from(self.year) - 1;
        let days = 365 * before + before.div_euclid(4) - before.div_euclid(100)
            + before.div_euclid(400)
            + i32::from(self.day_of_year());
        // 31 December of year 0, day 0 of this count, was a Sunday. The remainder is below 7.
        u8::try_from(days.rem_euclid(7)).unwrap_or(0)
    }

    /// Python's `datetime.strftime` in the C locale, for a time without time zone.
    ///
    /// # Errors
    /// An unknown directive.
    pub(super) fn format(&self, format: &str) -> Result<String, Error> {
        let mut out = String::with_capacity(format.len() + 16);
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let mut directive = chars.next();
            let unpadded = directive == Some('-');
            if unpadded {
                directive = chars.next();
            }
            let directive =
                directive.ok_or_else(|| type_error("strftime_now: the format ends inside a directive"))?;
            self.push(&mut out, directive, unpadded)?;
        }
        Ok(out)
    }

    fn push(&self, out: &mut String, directive: char, unpadded: bool) -> Result<(), Error> {
        let mut number = |value: u32, width: usize| {
            let width = if unpadded { 0 } else { width };
            out.push_str(&format!("{value:0width$}"));
        };
        let twelve_hour = (u32::from(self.hour) + 11) % 12 + 1;
        let weekday = self.weekday();
        let yday = u32::from(self.day_of_year()) - 1;
        let year = u32::from(self.year.unsigned_abs());
        match directive {
            'd' => number(self.day.into(), 2),
            'm' => number(self.month.into(), 2),
            'y' => number(year % 100, 2),
            'C' => number(year / 100, 2),
            'Y' => number(year, 0),
            'H' => number(self.hour.into(), 2),
            'I' => number(twelve_hour, 2),
            'M' => number(self.minute.into(), 2),
            'S' => number(self.second.into(), 2),
            'j' => number(yday + 1, 3),
            'w' => number(weekday.into(), 0),
            'u' => number(if weekday == 0 { 7 } else { weekday.into() }, 0),
            'U' => number((yday + 7 - u32::from(weekday)) / 7, 2),
            'W' => number((yday + 7 - u32::from((weekday + 6) % 7)) / 7, 2),
            _ if unpadded => {
                return Err(type_error(format!("strftime_now: unknown directive %-{directive}")));
            }
            'f' => out.push_str(&format!("{:06}", self.microsecond)),
            'e' => out.push_str(&format!("{:2}", self.day)),
            'k' => out.push_str(&format!("{:2}", self.hour)),
            'l' => out.push_str(&format!("{twelve_hour:2}")),
            'B' => out.push_str(self.month_name()),
            'b' | 'h' => out.push_str(&self.month_name()[..3]),
            'A' => out.push_str(WEEKDAYS[usize::from(weekday)]),
            'a' => out.push_str(&WEEKDAYS[usize::from(weekday)][..3]),
            'p' => out.push_str(if self.hour < 12 { "AM" } else { "PM" }),
            'P' => out.push_str(if self.hour < 12 { "am" } else { "pm" }),
            // A naive datetime has neither offset nor zone name.
            'z' | 'Z' => {}
            'n' => out.push('\n'),
            't' => out.push('\t'),
            '%' => out.push('%'),
            'F' => out.push_str(&self.format("%Y-%m-%d")?),
            'T' | 'X' => out.push_str(&self.format("%H:%M:%S")?),
            'R' => out.push_str(&self.format("%H:%M")?),
            'r' => out.push_str(&self.format("%I:%M:%S %p")?),
            'D' | 'x' => out.push_str(&self.format("%m/%d/%y")?),
            'c' => out.push_str(&self.format("%a %b %e %H:%M:%S %Y")?),
            other => return Err(type_error(format!("strftime_now: unknown directive %{other}"))),
        }
        Ok(())
    }

    fn month_name(&self) -> &'static str {
        MONTHS[usize::from(self.month.clamp(1, 12)) - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(year: i16, month: u8, day: u8, hour: u8) -> LocalTime {
        LocalTime { year, month, day, hour, minute: 4, second: 5, microsecond: 678 }
    }

    #[test]
    fn formats_as_the_c_locale() {
        let time = at(2026, 1, 2, 3);
        for (format, expected) in [
            ("%d %B %Y", "02 January 2026"),
            ("%-d %b %y %%", "2 Jan 26 %"),
            ("%A %a %w %u", "Friday Fri 5 5"),
            ("%H:%M:%S %I%p %-I", "03:04:05 03AM 3"),
            ("%j %-j %U %W %f", "002 2 00 00 000678"),
            ("%c|%x|%X|%F %T", "Fri Jan  2 03:04:05 2026|01/02/26|03:04:05|2026-01-02 03:04:05"),
            ("Ü%z%Z", "Ü"),
        ] {
            assert_eq!(time.format(format).expect(format), expected);
        }
        assert_eq!(
            at(2024, 12, 31, 0).format("%j %A %I %p %U %W").expect("known"),
            "366 Tuesday 12 AM 52 53"
        );
        assert_eq!(at(2000, 2, 29, 12).format("%a %I %p").expect("known"), "Tue 12 PM");
    }

    #[test]
    fn unknown_directives_are_errors() {
        for format in ["%Q", "%", "%-", "%-B", "%E"] {
            assert!(at(2026, 1, 2, 3).format(format).is_err(), "{format}");
        }
    }

    #[test]
    fn now_is_a_plausible_date() {
        let now = LocalTime::now();
        assert!(now.year >= 2024 && (1..=12).contains(&now.month) && (1..=31).contains(&now.day), "{now:?}");
    }
}
