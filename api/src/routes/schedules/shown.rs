//! Schedules and fires as clients see them.

use common::schedule::{Cause, Outcome, Spec, State};
use common::store::schedules::{backfill, read};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::view::Stamp;

/// A schedule: what was said of it, and where it stands.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::routes) struct ScheduleView {
    id: Uuid,
    #[serde(flatten)]
    #[schema(value_type = ScheduleRequest)]
    spec: Spec,
    /// `active`, `paused`, `disabled` or `expired`.
    #[schema(value_type = String)]
    state: State,
    /// Why it is disabled or expired.
    reason: Option<String>,
    /// The next moment at which it is to fire; null when none comes, and of one that listens.
    next_fire_at: Option<Stamp>,
    last_fire_at: Option<Stamp>,
    /// Fires but for those that were skipped, backfilled or asked for.
    fires: i32,
    consecutive_failures: i32,
    created_by: String,
    created_at: Stamp,
    updated_at: Stamp,
}

impl ScheduleView {
    pub(super) fn new(schedule: read::Schedule) -> Self {
        Self {
            id: schedule.id,
            spec: schedule.spec.0,
            state: schedule.state,
            reason: schedule.reason,
            next_fire_at: schedule.next_fire_at.map(Stamp),
            last_fire_at: schedule.last_fire_at.map(Stamp),
            fires: schedule.fires,
            consecutive_failures: schedule.failures,
            created_by: schedule.created_by,
            created_at: Stamp(schedule.created_at),
            updated_at: Stamp(schedule.updated_at),
        }
    }
}

/// One occurrence of a schedule.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::routes) struct FireView {
    /// When it was to be.
    fire_at: Stamp,
    /// The same, with its jitter.
    due_at: Stamp,
    /// When it was decided.
    fired_at: Stamp,
    /// From `due_at` to `fired_at`, in milliseconds.
    lag_ms: i64,
    /// `schedule`, `event`, `manual` or `backfill`.
    #[schema(value_type = String)]
    cause: Cause,
    /// `waiting`, `started`, `completed`, `failed`, `cancelled`, `timed_out`, `skipped` or `refused`.
    #[schema(value_type = String)]
    outcome: Outcome,
    /// Why it was skipped or refused.
    reason: Option<String>,
    /// The run that it started.
    run: Option<Uuid>,
    /// The event that made it.
    event: Option<Uuid>,
    /// Missed moments that it stands for besides itself.
    missed: i32,
}

impl FireView {
    pub(super) fn new(fire: read::Fire) -> Self {
        Self {
            lag_ms: (fire.fired_at - fire.due_at).num_milliseconds(),
            fire_at: Stamp(fire.fire_at),
            due_at: Stamp(fire.due_at),
            fired_at: Stamp(fire.fired_at),
            cause: fire.cause,
            outcome: fire.outcome,
            reason: fire.reason,
            run: fire.run_id,
            event: fire.event_id,
            missed: fire.missed,
        }
    }
}

/// Fires of the past that were asked for.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::routes) struct BackfillView {
    id: Uuid,
    from: Stamp,
    /// The end of the range, which is none of it.
    to: Stamp,
    /// How many of its runs may be under way at once.
    concurrency: i32,
    /// How many moments without a run the range had.
    count: i32,
    /// How many runs it has started.
    started: i32,
    created_by: String,
    created_at: Stamp,
    /// When the last of its runs had ended.
    finished_at: Option<Stamp>,
}

impl BackfillView {
    pub(super) fn new(backfill: backfill::Backfill) -> Self {
        Self {
            id: backfill.id,
            from: Stamp(backfill.from_at),
            to: Stamp(backfill.to_at),
            concurrency: backfill.concurrency,
            count: backfill.count,
            started: backfill.started,
            created_by: backfill.created_by,
            created_at: Stamp(backfill.created_at),
            finished_at: backfill.finished_at.map(Stamp),
        }
    }
}

/// A schedule.
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read strictly, by hand; this describes them")]
pub(in crate::routes) struct ScheduleRequest {
    /// Unique among schedules.
    name: String,
    /// `cron`, `interval`, `once` or `event`.
    kind: String,
    /// Of the kind `cron`: five fields as in crontab(5), six with the seconds first, or `@hourly` … `@yearly`.
    #[schema(example = "0 9 * * mon-fri")]
    cron: Option<String>,
    /// Of the kind `cron`: an IANA name; UTC when left out.
    timezone: Option<String>,
    /// Of the kind `interval`: 1s at the least.
    interval: Option<String>,
    /// Of the kind `once`.
    #[schema(format = DateTime)]
    at: Option<String>,
    /// Of the kind `event`: a type, in which `*` stands for any text, and `?` for any character.
    event_type: Option<String>,
    /// Of the kind `event`: an expression over `event` and its `data` that must be true.
    condition: Option<String>,
    /// `{pipeline, input}` or `{action, input, timeout, lane}`. `input` is a template over `schedule`, `fire_at` and
    /// `event`.
    start: Value,
    /// What becomes of moments for which no scheduler was there: `skip`, `fire_once` (the default: one run, for the
    /// latest) or `fire_all`.
    misfire: Option<String>,
    /// How late a fire may be without being a misfire; 60s when left out.
    misfire_grace: Option<String>,
    /// The most that `fire_all` fires, the oldest first; 100 when left out.
    max_catch_up: Option<i32>,
    /// What happens while the run before has not ended: `skip` (the default), `allow` (the default of the kind `event`),
    /// `queue` or `cancel_previous`.
    overlap: Option<String>,
    /// Nothing fires before; intervals are counted from here.
    #[schema(format = DateTime)]
    start_at: Option<String>,
    /// Nothing fires after.
    #[schema(format = DateTime)]
    end_at: Option<String>,
    /// After so many fires it is expired.
    max_fires: Option<i32>,
    /// Each fire is put off by up to this, always the same for the same fire.
    jitter: Option<String>,
    /// `{max_attempts, initial_interval, multiplier, max_interval, max_elapsed}` of the action, or of those nodes of
    /// the pipeline that have none of their own.
    retry: Option<Value>,
    /// Tags of the schedule and of its runs.
    tags: Option<Vec<String>>,
    /// After so many failed fires in a row it is disabled.
    max_consecutive_failures: Option<i32>,
}

/// A question: when would it fire?
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read strictly, by hand; this describes them")]
pub(in crate::routes) struct PreviewRequest {
    /// `cron`, `interval` or `once`.
    kind: String,
    cron: Option<String>,
    timezone: Option<String>,
    interval: Option<String>,
    #[schema(format = DateTime)]
    at: Option<String>,
    /// After which moment; now when left out.
    #[schema(format = DateTime)]
    after: Option<String>,
    /// How many; 10 when left out, 1,000 at the most.
    count: Option<i32>,
}

/// What comes.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::routes) struct Previewed {
    pub(super) fires: Vec<Stamp>,
}

/// A range of the past.
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read strictly, by hand; this describes them")]
pub(in crate::routes) struct BackfillRequest {
    /// The first moment that may be fired.
    #[schema(format = DateTime)]
    from: String,
    /// The first that may not.
    #[schema(format = DateTime)]
    to: String,
    /// How many runs may be under way at once; 1 when left out, 100 at the most.
    concurrency: Option<i32>,
    /// Only counts.
    preview: Option<bool>,
}

/// What a backfill comes to.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it only describes what is written by hand")]
pub(in crate::routes) struct BackfillAnswer {
    /// How many moments of the range have no run.
    count: usize,
    /// Unless it was only counted.
    id: Option<Uuid>,
}

/// A run that was started by hand.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it only describes what is written by hand")]
pub(in crate::routes) struct TriggerAnswer {
    run: Uuid,
    #[schema(format = DateTime)]
    fire_at: String,
}

/// Something that has happened.
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read strictly, by hand; this describes them")]
pub(in crate::routes) struct EventRequest {
    /// Such as `order.paid`; `run.…` and `schedule.…` are the system's own.
    #[schema(rename = "type")]
    event_type: String,
    /// What conditions and templates see as `event.data`; `{}` when left out.
    data: Option<Value>,
}

/// An event that was accepted.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it only describes what is written by hand")]
pub(in crate::routes) struct EventAnswer {
    id: Uuid,
}
