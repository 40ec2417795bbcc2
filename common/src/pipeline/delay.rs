//! How long a delay node waits.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::findings::{kind, shown};
use crate::clock::Instant;
use crate::duration;
use crate::problem::quoted;

/// The fields that say it, of which a delay has one.
pub(super) const FIELDS: [&str; 3] = ["duration", "seconds", "until"];

/// When a delay node is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delay {
    /// This long after it began.
    For(Duration),
    /// At this moment; at once if that has passed.
    Until(Instant),
}

impl Delay {
    /// Reads a delay's config after its templates were rendered.
    pub fn read(config: &Value) -> Result<Self, String> {
        let mut given = FIELDS.into_iter().filter_map(|key| Some((key, config.get(key)?)));
        let (Some((key, value)), None) = (given.next(), given.next()) else {
            return Err("a delay needs exactly one of `duration`, `seconds` and `until`".to_owned());
        };
        match key {
            "seconds" => seconds(value).map(Self::For),
            "duration" => match value.as_str() {
                Some(text) => {
                    duration::parse(text).map(Self::For).map_err(|error| error.to_string())
                }
                None => Err(format!("must be {}, and is {}", duration::FORM, shown(value))),
            },
            _ => until(value).map(Self::Until),
        }
    }
}

fn seconds(value: &Value) -> Result<Duration, String> {
    let most = duration::LONGEST.as_secs();
    let seconds = value.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.filter(|duration| *duration <= duration::LONGEST).ok_or_else(|| {
        format!("must be a number of seconds from 0 to {most}, and is {}", shown(value))
    })
}

fn until(value: &Value) -> Result<Instant, String> {
    let form = "an instant such as \"2026-01-31T06:00:00Z\"";
    let text = value.as_str().ok_or_else(|| format!("must be {form}, and is {}", kind(value)))?;
    DateTime::parse_from_rfc3339(text)
        .map(|instant| instant.with_timezone(&Utc))
        .map_err(|_| format!("must be {form}, and is {}", quoted(text)))
}
