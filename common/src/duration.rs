//! Durations as people write them: `"30s"`, `"1h30m"`, `"500ms"`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer};
use thiserror::Error;

/// The form that a duration has, for messages.
pub const FORM: &str = "a duration such as \"500ms\", \"30s\", \"1h30m\" or \"7d\"";

/// The longest duration: ten years.
pub const LONGEST: Duration = Duration::from_secs(3650 * 24 * 60 * 60);

/// The units, longest first, in milliseconds.
const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidDuration {
    /// It does not have the form of one.
    #[error("`{0}` is not {FORM}")]
    Form(String),
    /// It is longer than [`LONGEST`].
    #[error("`{0}` is longer than 3650d")]
    TooLong(String),
}

/// Reads a duration: whole numbers, each with a unit, the longest unit first.
pub fn parse(text: &str) -> Result<Duration, InvalidDuration> {
    let malformed = || InvalidDuration::Form(excerpt(text));
    let too_long = || InvalidDuration::TooLong(excerpt(text));
    let mut rest = text;
    let mut units = UNITS.iter();
    let mut millis: u64 = 0;
    if rest.is_empty() {
        return Err(malformed());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(malformed)?;
        let (number, tail) = rest.split_at(digits);
        if number.is_empty() {
            return Err(malformed());
        }
        let end = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (name, tail) = tail.split_at(end);
        // `units` only moves on, so that each unit appears once, and in order.
        let (_, unit) = units.find(|(unit, _)| *unit == name).ok_or_else(malformed)?;
        let number: u64 = number.parse().map_err(|_| too_long())?;
        let part = number.checked_mul(*unit).ok_or_else(too_long)?;
        millis = millis.checked_add(part).ok_or_else(too_long)?;
        rest = tail;
    }
    let duration = Duration::from_millis(millis);
    if duration > LONGEST { Err(too_long()) } else { Ok(duration) }
}

/// Writes a duration so that [`parse`] reads it back, to the millisecond.
pub fn text(duration: Duration) -> String {
    let mut millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (name, unit) in UNITS {
        if millis >= unit {
            text.push_str(&format!("{}{name}", millis / unit));
            millis %= unit;
        }
    }
    text
}

/// Messages quote what was sent, but not all of it when it is long.
fn excerpt(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// `#[serde(with = "duration")]`: as [`text`].
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&text(*duration))
}

/// `#[serde(with = "duration")]`: as [`parse`].
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
    parse(&text).map_err(serde::de::Error::custom)
}

/// `#[serde(with = "duration::option")]`: a duration or null.
pub mod option {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// As [`super::text`], or null.
    pub fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        duration.map(super::text).serialize(serializer)
    }

    /// As [`super::parse`], or null.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Option::<String>::deserialize(deserializer)?
            .map(|text| super::parse(&text).map_err(serde::de::Error::custom))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, millis) in [
            ("0s", 0),
            ("500ms", 500),
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("1d2h3m4s5ms", 93_784_005),
            ("90m", 5_400_000),
            ("3650d", 315_360_000_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_with_the_form_wanted() {
        for text in [
            "", " ", "30", "s", "30 s", "1.5s", "-1s", "30S", "30sec", "1m1h", "1s1s", "1h30",
            "٣s", "+1s", "30s ", "1s\0",
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error, InvalidDuration::Form(text.to_owned()));
            assert!(error.to_string().contains("\"1h30m\""), "{error}");
        }
        for text in ["3651d", "99999999999999999999s", "18446744073709551615d", "3650d1ms"] {
            assert_eq!(parse(text), Err(InvalidDuration::TooLong(text.to_owned())));
        }
        let error = parse(&"x".repeat(1000)).unwrap_err().to_string();
        assert!(error.len() < 200, "{error}");
    }

    #[test]
    fn what_is_written_is_read_back() {
        for millis in [0, 1, 999, 1_000, 59_999, 60_000, 3_599_999, 86_400_000, 93_784_005] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse(&text(duration)), Ok(duration));
        }
        assert_eq!(text(Duration::from_secs(5400)), "1h30m");
        assert_eq!(text(Duration::ZERO), "0s");
    }
}
