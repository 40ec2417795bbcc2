//! Fires, written: the fire, its run and its outbox row in one transaction.

mod decide;

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use self::decide::{Decided, decide};
use super::catalogue::{Catalogue, Known};
use crate::clock::Instant;
use crate::outbox::Row;
use crate::schedule::{Cause, Outcome};
use crate::store::accept;

/// An event as templates and conditions see it, with how many led to it.
#[derive(Debug, Clone)]
pub struct Heard {
    /// Its id.
    pub id: Uuid,
    /// Its depth.
    pub depth: i32,
    /// `{id, type, data, depth, at}`
    pub shown: Value,
}

/// What becomes of a fire, as far as the schedule's rules decide it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It starts.
    Start,
    /// It waits for the end of the run before.
    Wait,
    /// It is skipped: why.
    Skip(String),
    /// It cannot start: why.
    Refuse(String),
}

/// A fire that is to be written.
#[derive(Debug, Clone)]
pub struct Fire {
    /// The schedule.
    pub schedule: Uuid,
    /// What the schedule is.
    pub known: Arc<Known>,
    /// Why there is one.
    pub cause: Cause,
    /// When it was to be.
    pub fire_at: Instant,
    /// The same, with its jitter.
    pub due_at: Instant,
    /// Missed moments that it stands for besides itself.
    pub missed: usize,
    /// The event that made it.
    pub event: Option<Heard>,
    /// The backfill that it belongs to.
    pub backfill: Option<Uuid>,
    /// Who asked for it; the schedule's owner, unless somebody did.
    pub by: Option<String>,
    /// What becomes of it.
    pub fate: Fate,
}

/// What became of the fires.
#[derive(Debug, Default)]
pub struct Written {
    /// An item a fire: how it stands, why, and its run. None if there was such a fire before.
    pub done: Vec<Option<Done>>,
    /// Outbox rows, to publish after the commit.
    pub rows: Vec<Row>,
}

/// What became of one.
#[derive(Debug, Clone)]
pub struct Done {
    /// How it stands.
    pub outcome: Outcome,
    /// Why it did not start.
    pub reason: Option<String>,
    /// The run that it started.
    pub run: Option<Uuid>,
}

/// Writes fires of schedules whose clocks the caller has locked. One that there was before is left as it is (R8);
/// only a backfill takes up one that was skipped or refused.
pub async fn fires(
    conn: &mut PgConnection,
    catalogue: &mut Catalogue,
    fires: &[Fire],
) -> Result<Written, sqlx::Error> {
    if fires.is_empty() {
        return Ok(Written::default());
    }
    let decided = decide(conn, catalogue, fires).await?;
    let kept = insert(conn, fires, &decided).await?;
    let mut written = Written::default();
    let mut runs = Vec::new();
    let mut open = Vec::new();
    for (fire, decided) in fires.iter().zip(decided) {
        if !kept.contains(&(fire.schedule, fire.fire_at)) {
            written.done.push(None);
            continue;
        }
        if matches!(decided.done.outcome, Outcome::Started | Outcome::Waiting) {
            open.push((fire, decided.done.run));
        }
        runs.extend(decided.run);
        written.done.push(Some(decided.done));
    }
    written.rows = accept::accept(conn, &runs).await?;
    insert_open(conn, &open).await?;
    Ok(written)
}

/// Starts a fire that has waited, whose schedule's clock the caller has locked.
pub async fn start_waiting(
    conn: &mut PgConnection,
    catalogue: &mut Catalogue,
    fire: &Fire,
) -> Result<(Done, Vec<Row>), sqlx::Error> {
    let mut decided = decide(conn, catalogue, std::slice::from_ref(fire)).await?;
    let Some(Decided { done, run }) = decided.pop() else { return Err(sqlx::Error::RowNotFound) };
    let rows = accept::accept(conn, run.as_slice()).await?;
    sqlx::query!(
        "with fired as (
             update fires set outcome = $3, reason = $4, run_id = $5, fired_at = clock_timestamp()
             where schedule_id = $1 and fire_at = $2
         ), refused as (
             delete from open_fires where schedule_id = $1 and fire_at = $2 and $5::uuid is null
         )
         update open_fires set run_id = $5, event = null where schedule_id = $1 and fire_at = $2 and $5::uuid is not null",
        fire.schedule,
        fire.fire_at,
        done.outcome as Outcome,
        done.reason,
        done.run,
    )
    .execute(conn)
    .await?;
    Ok((done, rows))
}

/// Inserts the fires, and returns the keys of those that were not there.
async fn insert(
    conn: &mut PgConnection,
    fires: &[Fire],
    decided: &[Decided],
) -> Result<HashSet<(Uuid, Instant)>, sqlx::Error> {
    let done =
        |of: fn(&Done) -> Option<Uuid>| decided.iter().map(|d| of(&d.done)).collect::<Vec<_>>();
    let kept = sqlx::query!(
        "insert into fires (schedule_id, fire_at, cause, outcome, reason, run_id, event_id, due_at, missed)
         select * from unnest($1::uuid[], $2::timestamptz[], $3::fire_cause[], $4::fire_outcome[], $5::text[],
             $6::uuid[], $7::uuid[], $8::timestamptz[], $9::int[])
         on conflict (schedule_id, fire_at) do update
             set cause = excluded.cause, outcome = excluded.outcome, reason = excluded.reason,
                 run_id = excluded.run_id, due_at = excluded.due_at, fired_at = clock_timestamp()
             where excluded.cause = 'backfill' and fires.outcome in ('skipped', 'refused')
         returning schedule_id, fire_at",
        &fires.iter().map(|f| f.schedule).collect::<Vec<_>>(),
        &fires.iter().map(|f| f.fire_at).collect::<Vec<_>>(),
        &fires.iter().map(|f| f.cause).collect::<Vec<_>>() as &[Cause],
        &decided.iter().map(|d| d.done.outcome).collect::<Vec<_>>() as &[Outcome],
        &decided.iter().map(|d| d.done.reason.as_deref()).collect::<Vec<_>>() as &[Option<&str>],
        &done(|done| done.run) as &[Option<Uuid>],
        &fires.iter().map(|f| f.event.as_ref().map(|e| e.id)).collect::<Vec<_>>() as &[Option<Uuid>],
        &fires.iter().map(|f| f.due_at).collect::<Vec<_>>(),
        &fires.iter().map(|f| i32::try_from(f.missed).unwrap_or(i32::MAX)).collect::<Vec<_>>(),
    )
    .fetch_all(conn)
    .await?;
    Ok(kept.into_iter().map(|row| (row.schedule_id, row.fire_at)).collect())
}

/// Notes the fires whose end is to be followed.
async fn insert_open(
    conn: &mut PgConnection,
    open: &[(&Fire, Option<Uuid>)],
) -> Result<(), sqlx::Error> {
    if open.is_empty() {
        return Ok(());
    }
    let waits = |fire: &Fire, run: &Option<Uuid>| {
        fire.event.as_ref().filter(|_| run.is_none()).map(|event| event.shown.clone())
    };
    sqlx::query!(
        "insert into open_fires (schedule_id, fire_at, run_id, cause, backfill_id, event)
         select * from unnest($1::uuid[], $2::timestamptz[], $3::uuid[], $4::fire_cause[], $5::uuid[], $6::jsonb[])",
        &open.iter().map(|(f, _)| f.schedule).collect::<Vec<_>>(),
        &open.iter().map(|(f, _)| f.fire_at).collect::<Vec<_>>(),
        &open.iter().map(|(_, run)| *run).collect::<Vec<_>>() as &[Option<Uuid>],
        &open.iter().map(|(f, _)| f.cause).collect::<Vec<_>>() as &[Cause],
        &open.iter().map(|(f, _)| f.backfill).collect::<Vec<_>>() as &[Option<Uuid>],
        &open.iter().map(|(f, run)| waits(f, run)).collect::<Vec<_>>() as &[Option<Value>],
    )
    .execute(conn)
    .await?;
    Ok(())
}
