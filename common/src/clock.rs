//! Instants as people and programs read them.
//!
//! There is one clock for all that is compared between processes: the database's. This module only prints.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Serialize, Serializer};

/// An instant: UTC, in the database's precision of a microsecond.
pub type Instant = DateTime<Utc>;

/// RFC 3339 in UTC with six digits and `Z`.
pub fn text(instant: &Instant) -> String {
    instant.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// `#[serde(serialize_with = "clock::serialize")]`: as [`text`].
pub fn serialize<S: Serializer>(instant: &Instant, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&text(instant))
}

/// `#[serde(serialize_with = "clock::serialize_option")]`: as [`text`], or null.
pub fn serialize_option<S: Serializer>(
    instant: &Option<Instant>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    instant.as_ref().map(text).serialize(serializer)
}
