//! Fires of the past that a client asks for, a few runs at a time.

use std::collections::HashSet;
use std::sync::Arc;

use sqlx::PgConnection;
use uuid::Uuid;

use super::catalogue::{Catalogue, Known};
use super::clocks::{self, Clock};
use super::write::{self, Fate, Fire};
use crate::clock::Instant;
use crate::outbox::Row;
use crate::schedule::Cause;

/// The most moments that one backfill may have.
pub const MOST: usize = 10_000;

/// A range whose moments are to be fired.
#[derive(Debug, Clone)]
pub struct Range {
    /// The first moment that may be one.
    pub from: Instant,
    /// The first that may not.
    pub to: Instant,
}

/// What a range comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// There is no such schedule.
    Unknown,
    /// It is started by events, or once: a range has no moments of it.
    NoTimes,
    /// More than [`MOST`].
    TooMany,
    /// So many moments that have no run.
    Moments(usize),
}

/// A backfill as clients see it.
#[derive(Debug, Clone)]
pub struct Backfill {
    /// Its id.
    pub id: Uuid,
    /// The range's first moment.
    pub from_at: Instant,
    /// Its end, which is none of it.
    pub to_at: Instant,
    /// How many of its runs may be under way at once.
    pub concurrency: i32,
    /// How many moments it had.
    pub count: i32,
    /// How many runs it has started.
    pub started: i32,
    /// Who asked for it.
    pub created_by: String,
    /// When.
    pub created_at: Instant,
    /// When the last of its runs had ended.
    pub finished_at: Option<Instant>,
}

/// Counts the moments of a range that have no run, of a schedule whose clock this locks.
pub async fn count(
    conn: &mut PgConnection,
    schedule: Uuid,
    range: &Range,
) -> Result<Counted, sqlx::Error> {
    let clocks = clocks::lock(conn, &[schedule]).await?;
    let loaded = Catalogue::default().load(conn, &[schedule]).await?.remove(&schedule);
    let (Some(clock), Some(loaded)) = (clocks.first(), loaded) else {
        return Ok(Counted::Unknown);
    };
    let Ok(known) = loaded.known else { return Ok(Counted::NoTimes) };
    if !has_times(&known) {
        return Ok(Counted::NoTimes);
    }
    let after = range.from - chrono::TimeDelta::microseconds(1);
    let moments = moments(&known, clock, after, range.to, MOST + 1);
    if moments.len() > MOST {
        return Ok(Counted::TooMany);
    }
    let taken = sqlx::query_scalar!(
        "select fire_at from fires
         where schedule_id = $1 and fire_at >= $2 and fire_at < $3 and outcome not in ('skipped', 'refused')",
        schedule,
        range.from,
        range.to
    )
    .fetch_all(conn)
    .await?;
    let taken: HashSet<Instant> = taken.into_iter().collect();
    Ok(Counted::Moments(moments.iter().filter(|moment| !taken.contains(moment)).count()))
}

fn has_times(known: &Known) -> bool {
    use crate::schedule::Kind;
    matches!(known.spec.kind, Kind::Cron | Kind::Interval)
}

/// Moments after `after` and before `to`. The schedule's own bounds do not hold for the past: it may be younger.
fn moments(known: &Known, clock: &Clock, after: Instant, to: Instant, most: usize) -> Vec<Instant> {
    let mut bounds = known.spec.bounds(clock.anchor_at);
    (bounds.start_at, bounds.end_at) = (None, None);
    // Intervals before the anchor are counted back from it.
    if bounds.anchor > after
        && let crate::schedule::rule::Rule::Interval(length) = known.rule
    {
        let back = (bounds.anchor - after).num_microseconds().unwrap_or(0);
        let length = length.num_microseconds().unwrap_or(1).max(1);
        bounds.anchor -= chrono::TimeDelta::microseconds((back / length + 1) * length);
    }
    let next = |after: Instant| known.rule.next(&bounds, after).filter(|moment| *moment < to);
    std::iter::successors(next(after), |last| next(*last)).take(most).collect()
}

/// Notes a backfill; the leader starts its runs.
pub async fn create(
    conn: &mut PgConnection,
    id: Uuid,
    schedule: Uuid,
    range: &Range,
    concurrency: i32,
    count: i32,
    by: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into backfills (id, schedule_id, from_at, to_at, after_at, concurrency, count, created_by)
         values ($1, $2, $3, $4, $3::timestamptz - interval '1 microsecond', $5, $6, $7)",
        id,
        schedule,
        range.from,
        range.to,
        concurrency,
        count,
        by
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Up to `limit` of the backfills that go on, after one: their ids, and their schedules'.
pub async fn open(
    conn: &mut PgConnection,
    after: Uuid,
    limit: i64,
) -> Result<Vec<(Uuid, Uuid)>, sqlx::Error> {
    let rows = sqlx::query!(
        "select id, schedule_id from backfills where finished_at is null and id > $1 order by id limit $2",
        after,
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.schedule_id)).collect())
}

/// Starts as many runs as a backfill has room for. Returns how many, and what to publish after the commit.
pub async fn advance(
    conn: &mut PgConnection,
    catalogue: &mut Catalogue,
    id: Uuid,
    schedule: Uuid,
) -> Result<(usize, Vec<Row>), sqlx::Error> {
    let clocks = clocks::lock(conn, &[schedule]).await?;
    let known = catalogue.load(conn, &[schedule]).await?.remove(&schedule);
    let known = known.and_then(|loaded| loaded.known.ok());
    let (Some(clock), Some(known)) = (clocks.first(), known) else {
        finish(conn, id).await?;
        return Ok((0, Vec::new()));
    };
    let Some((left, room, by)) = room(conn, id, schedule).await? else {
        return Ok((0, Vec::new()));
    };
    if room == 0 {
        return Ok((0, Vec::new()));
    }
    let moments = moments(&known, clock, left.from, left.to, room);
    let fires: Vec<Fire> =
        moments.iter().map(|moment| fire(&known, schedule, *moment, id, &by)).collect();
    let written = write::fires(conn, catalogue, &fires).await?;
    let started = written.done.iter().flatten().filter(|done| done.run.is_some()).count();
    let after = moments.last().copied().unwrap_or(left.to);
    sqlx::query!(
        "update backfills set after_at = $2, started = started + $3,
             finished_at = case when $4 and not exists (select from open_fires where schedule_id = $5 and backfill_id = $1)
                 then clock_timestamp() end
         where id = $1",
        id,
        after,
        i32::try_from(started).unwrap_or(i32::MAX),
        moments.is_empty(),
        schedule
    )
    .execute(conn)
    .await?;
    Ok((fires.len(), written.rows))
}

/// What is left of a backfill's range, how many runs it may start now, and who asked for it.
async fn room(
    conn: &mut PgConnection,
    id: Uuid,
    schedule: Uuid,
) -> Result<Option<(Range, usize, String)>, sqlx::Error> {
    let row = sqlx::query!(
        r#"select b.after_at, b.to_at, b.concurrency, b.created_by, (
               select count(*) from open_fires o join runs r on r.id = o.run_id and r.finished_at is null
               where o.schedule_id = $2 and o.backfill_id = $1
           ) as "open!"
           from backfills b where b.id = $1 and b.finished_at is null for update of b"#,
        id,
        schedule
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| {
        let room = usize::try_from(i64::from(row.concurrency) - row.open).unwrap_or(0);
        (Range { from: row.after_at, to: row.to_at }, room, row.created_by)
    }))
}

async fn finish(conn: &mut PgConnection, id: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query!("update backfills set finished_at = clock_timestamp() where id = $1", id)
        .execute(conn)
        .await?;
    Ok(())
}

fn fire(known: &Arc<Known>, schedule: Uuid, fire_at: Instant, id: Uuid, by: &str) -> Fire {
    Fire {
        schedule,
        known: known.clone(),
        cause: Cause::Backfill,
        fire_at,
        due_at: fire_at,
        missed: 0,
        event: None,
        backfill: Some(id),
        by: Some(by.to_owned()),
        fate: Fate::Start,
    }
}

/// The backfills of a schedule, newest first.
pub async fn list(
    conn: &mut PgConnection,
    schedule: Uuid,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Backfill>, sqlx::Error> {
    sqlx::query_as!(
        Backfill,
        "select id, from_at, to_at, concurrency, count, started, created_by, created_at, finished_at
         from backfills where schedule_id = $1 and ($2::uuid is null or id < $2) order by id desc limit $3",
        schedule,
        before,
        limit
    )
    .fetch_all(conn)
    .await
}
