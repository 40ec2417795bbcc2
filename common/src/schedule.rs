//! Schedules: rules of time, and of events, that start pipelines and actions.
//!
//! All here is pure: it is given a moment, and never asks for the time.

pub mod cron;
pub mod glob;
pub mod overlap;
pub mod plan;
mod read;
pub mod rule;
mod start;
pub mod zone;

#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::read::{Preview, check, compile, is_event_type, preview, type_form};
pub use self::start::{Occasion, Started, Starter, is_met, said};
use crate::clock::Instant;
use crate::duration;
use crate::retry::RetryPolicy;

/// What makes a schedule fire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "schedule_kind", rename_all = "snake_case")]
pub enum Kind {
    /// The clocks of a time zone.
    Cron,
    /// Time that has passed.
    Interval,
    /// A moment.
    Once,
    /// An event.
    Event,
}

/// Where a schedule stands, and who moves it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "schedule_state", rename_all = "snake_case")]
pub enum State {
    /// It fires when it is due. The leader expires or disables it, a client pauses it.
    Active,
    /// A client stopped it. What is due meanwhile does not fire. A client resumes it.
    Paused,
    /// Its runs failed too often in a row. A client resumes it.
    Disabled,
    /// Nothing is left that it could fire. A client may give it more.
    Expired,
}

/// What becomes of moments for which nobody was there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Misfire {
    /// They are skipped.
    Skip,
    /// The latest of them fires.
    #[default]
    FireOnce,
    /// All fire, the oldest first, up to a number.
    FireAll,
}

/// What happens to a fire while the run of one before has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// It is skipped.
    Skip,
    /// It starts beside the other.
    Allow,
    /// It waits for the other's end; at most one waits.
    Queue,
    /// It starts, and the other is cancelled.
    CancelPrevious,
}

/// Why there is a fire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "fire_cause", rename_all = "snake_case")]
pub enum Cause {
    /// It was due.
    Schedule,
    /// An event arrived.
    Event,
    /// A client asked for one now.
    Manual,
    /// A client asked for those of a range.
    Backfill,
}

/// What became of a fire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "fire_outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// It waits for the end of the run before. The leader starts it.
    Waiting,
    /// Its run is under way. The leader notes its end.
    Started,
    /// Its run completed.
    Completed,
    /// Its run failed.
    Failed,
    /// Its run was cancelled.
    Cancelled,
    /// Its run took too long.
    TimedOut,
    /// It started nothing, as a rule of the schedule wants it.
    Skipped,
    /// What it was to start could not be started.
    Refused,
}

/// What a schedule starts. Both inputs are templates over `schedule`, `fire_at` and `event`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Start {
    /// The newest version of a pipeline.
    Pipeline {
        /// Its name.
        pipeline: String,
        /// The run's input.
        input: Value,
    },
    /// A single action.
    Action {
        /// Its name.
        action: String,
        /// Its config.
        input: Value,
        /// How long an attempt may execute, as it was written.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout: Option<String>,
        /// Which workers execute it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lane: Option<String>,
    },
}

/// What a client says of a schedule, checked, with what it left out filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// Unique among schedules.
    pub name: String,
    /// What makes it fire.
    pub kind: Kind,
    /// The expression of a cron.
    pub cron: Option<String>,
    /// The IANA time zone of a cron.
    pub timezone: Option<String>,
    /// The time between fires of an interval.
    #[serde(with = "duration::option")]
    pub interval: Option<Duration>,
    /// The moment of a `once`.
    #[serde(serialize_with = "crate::clock::serialize_option")]
    pub at: Option<Instant>,
    /// What an event's type must be like.
    pub event_type: Option<String>,
    /// An expression over the event that must be true.
    pub condition: Option<String>,
    /// What it starts.
    pub start: Start,
    /// What becomes of what was missed.
    pub misfire: Misfire,
    /// How late a fire may be without being a misfire.
    #[serde(with = "duration")]
    pub misfire_grace: Duration,
    /// The most that `fire_all` fires.
    pub max_catch_up: u32,
    /// What happens while the run before has not ended.
    pub overlap: Overlap,
    /// Nothing fires before.
    #[serde(serialize_with = "crate::clock::serialize_option")]
    pub start_at: Option<Instant>,
    /// Nothing fires after.
    #[serde(serialize_with = "crate::clock::serialize_option")]
    pub end_at: Option<Instant>,
    /// The most fires, but for those that were skipped.
    pub max_fires: Option<u32>,
    /// By how much each fire may be put off.
    #[serde(with = "duration")]
    pub jitter: Duration,
    /// The retry rule of the action, or of those nodes of the pipeline that have none of their own.
    pub retry: Option<RetryPolicy>,
    /// The tags of its runs, and its own.
    pub tags: Vec<String>,
    /// After so many failures in a row it is disabled.
    pub max_consecutive_failures: Option<u32>,
}

impl Spec {
    /// Whether it fires at the same moments as another.
    pub fn has_times_of(&self, other: &Self) -> bool {
        self.kind == other.kind
            && self.cron == other.cron
            && self.timezone == other.timezone
            && self.interval == other.interval
            && self.at == other.at
            && self.start_at == other.start_at
            && self.end_at == other.end_at
            && self.jitter == other.jitter
    }

    /// What becomes of what is late.
    pub fn lateness(&self) -> plan::Lateness {
        plan::Lateness {
            misfire: self.misfire,
            grace: self.misfire_grace,
            max_catch_up: self.max_catch_up as usize,
            jitter: self.jitter,
        }
    }

    /// Between which moments it fires, when its intervals are counted from `anchor` unless it says.
    pub fn bounds(&self, anchor: Instant) -> rule::Bounds {
        rule::Bounds {
            anchor: self.start_at.unwrap_or(anchor),
            start_at: self.start_at,
            end_at: self.end_at,
        }
    }
}

impl State {
    /// All states.
    pub const ALL: [Self; 4] = [Self::Active, Self::Paused, Self::Disabled, Self::Expired];

    /// The name in JSON, SQL and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Disabled => "disabled",
            Self::Expired => "expired",
        }
    }
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Cron, Self::Interval, Self::Once, Self::Event];

    /// The name in JSON, SQL and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cron => "cron",
            Self::Interval => "interval",
            Self::Once => "once",
            Self::Event => "event",
        }
    }
}

impl Outcome {
    /// All outcomes.
    pub const ALL: [Self; 8] = [
        Self::Waiting,
        Self::Started,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
        Self::TimedOut,
        Self::Skipped,
        Self::Refused,
    ];

    /// The name in JSON, SQL and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Started => "started",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
            Self::Skipped => "skipped",
            Self::Refused => "refused",
        }
    }
}
