//! What became of fires: the ends of their runs, noted; what waited for one, started; what was replaced, cancelled.
//!
//! The leader goes through the fires whose end is not noted. A run's end costs its worker nothing for it.

use std::collections::HashMap;

use sqlx::PgConnection;
use uuid::Uuid;

use super::catalogue::Catalogue;
use super::clocks::{self, Ending};
use super::hear;
use super::write::{self, Fate, Fire};
use super::{due, write::Done};
use crate::clock::Instant;
use crate::outbox::Row;
use crate::run::{RunState, StopReason};
use crate::schedule::{Cause, Outcome, State};
use crate::store::stop::{self, Stopped};

/// The key of a fire.
pub type Key = (Uuid, Instant);

/// A slice of the fires whose end is not noted.
#[derive(Debug, Default)]
pub struct Look {
    /// Those whose runs have ended.
    pub ended: Vec<Key>,
    /// Those that wait for nothing any more.
    pub waiting: Vec<Key>,
    /// Where the next slice begins; none at the end.
    pub next: Option<Key>,
}

/// Looks at up to `limit` fires after one.
pub async fn look(
    conn: &mut PgConnection,
    after: Option<Key>,
    limit: i64,
) -> Result<Look, sqlx::Error> {
    let (schedule, fire_at) = after.unzip();
    let rows = sqlx::query!(
        r#"select o.schedule_id, o.fire_at,
               o.run_id is null and exists (
                   select from schedules s where s.id = o.schedule_id and s.state in ('active', 'expired')
               ) and not exists (
                   select from open_fires p join runs q on q.id = p.run_id and q.finished_at is null
                   where p.schedule_id = o.schedule_id and p.backfill_id is null
               ) as "ready!",
               o.run_id is not null and (r.id is null or r.finished_at is not null) as "ended!"
           from open_fires o left join runs r on r.id = o.run_id
           where $1::uuid is null or (o.schedule_id, o.fire_at) > ($1, $2::timestamptz)
           order by o.schedule_id, o.fire_at limit $3"#,
        schedule,
        fire_at,
        limit
    )
    .fetch_all(conn)
    .await?;
    let mut look = Look::default();
    if rows.len() as i64 == limit {
        look.next = rows.last().map(|row| (row.schedule_id, row.fire_at));
    }
    for row in rows {
        let key = (row.schedule_id, row.fire_at);
        if row.ended {
            look.ended.push(key);
        } else if row.ready {
            look.waiting.push(key);
        }
    }
    Ok(look)
}

/// Notes the ends of the runs of these fires; returns how each ended.
pub async fn note(
    conn: &mut PgConnection,
    catalogue: &mut Catalogue,
    keys: &[Key],
) -> Result<Vec<Outcome>, sqlx::Error> {
    let (schedules, moments): (Vec<Uuid>, Vec<Instant>) = keys.iter().copied().unzip();
    let mut clocks = clocks::lock(conn, &schedules).await?;
    let places: HashMap<Uuid, usize> =
        clocks.iter().enumerate().map(|(place, clock)| (clock.schedule_id, place)).collect();
    let locked: Vec<Uuid> = clocks.iter().map(|clock| clock.schedule_id).collect();
    let loaded = catalogue.load(conn, &locked).await?;
    let ended = take_ended(conn, &schedules, &moments).await?;
    forget_pruned(conn, &schedules, &moments).await?;
    let mut endings = Vec::new();
    let mut outcomes = Vec::with_capacity(ended.len());
    for row in ended {
        outcomes.push(outcome(row.state));
        let (Some(place), Some(loaded)) =
            (places.get(&row.schedule_id), loaded.get(&row.schedule_id))
        else {
            continue;
        };
        let Ok(known) = &loaded.known else { continue };
        // One that was cancelled says nothing, nor one that a client asked for.
        let counts = matches!(row.cause, Cause::Schedule | Cause::Event);
        let failed = matches!(row.state, RunState::Failed | RunState::TimedOut);
        if !counts || row.state == RunState::Cancelled {
            continue;
        }
        let clock = &mut clocks[*place];
        let why = format!("the run {} ended {}", row.run_id, row.state.name());
        if let Some(reason) = clock.ended(&known.spec, failed, &why)
            && loaded.state == State::Active
        {
            clock.stop();
            endings.push(Ending { schedule: row.schedule_id, state: State::Disabled, reason });
        }
    }
    clocks::save(conn, &clocks).await?;
    endings.dedup_by_key(|ending| ending.schedule);
    clocks::end(conn, &endings).await?;
    Ok(outcomes)
}

/// A fire whose run has ended, and is followed no more.
struct Ended {
    schedule_id: Uuid,
    cause: Cause,
    run_id: Uuid,
    state: RunState,
}

/// Writes into those of these fires whose runs have ended how they did, in the order in which they did.
async fn take_ended(
    conn: &mut PgConnection,
    schedules: &[Uuid],
    moments: &[Instant],
) -> Result<Vec<Ended>, sqlx::Error> {
    sqlx::query_as!(
        Ended,
        r#"with gone as (
               delete from open_fires o
               using unnest($1::uuid[], $2::timestamptz[]) as k (schedule_id, fire_at), runs r
               where o.schedule_id = k.schedule_id and o.fire_at = k.fire_at and r.id = o.run_id
                   and r.finished_at is not null
               returning o.schedule_id, o.fire_at, o.cause, r.id as run_id, r.state, r.finished_at
           ), noted as (
               update fires f set outcome = g.state::text::fire_outcome
               from gone g where f.schedule_id = g.schedule_id and f.fire_at = g.fire_at
           )
           select schedule_id, cause as "cause: Cause", run_id, state as "state: RunState" from gone
           order by finished_at, fire_at"#,
        schedules,
        moments
    )
    .fetch_all(conn)
    .await
}

/// A run that was pruned before its end was noted has ended; how is not known any more.
async fn forget_pruned(
    conn: &mut PgConnection,
    schedules: &[Uuid],
    moments: &[Instant],
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "delete from open_fires o using unnest($1::uuid[], $2::timestamptz[]) as k (schedule_id, fire_at)
         where o.schedule_id = k.schedule_id and o.fire_at = k.fire_at and o.run_id is not null
             and not exists (select from runs r where r.id = o.run_id)",
        schedules,
        moments
    )
    .execute(conn)
    .await?;
    Ok(())
}

fn outcome(state: RunState) -> Outcome {
    match state {
        RunState::Completed => Outcome::Completed,
        RunState::Failed => Outcome::Failed,
        RunState::TimedOut => Outcome::TimedOut,
        RunState::Cancelled => Outcome::Cancelled,
        RunState::Queued | RunState::Running | RunState::Cancelling => Outcome::Started,
    }
}

/// Starts a fire that waits, if nothing of its schedule is under way any more. While the schedule is paused or
/// disabled it goes on waiting.
pub async fn start_waiting(
    conn: &mut PgConnection,
    catalogue: &mut Catalogue,
    key: Key,
) -> Result<Option<(Done, Vec<Row>)>, sqlx::Error> {
    let (schedule, fire_at) = key;
    let mut clocks = clocks::lock(conn, &[schedule]).await?;
    let mut loaded = catalogue.load(conn, &[schedule]).await?;
    let (Some(clock), Some(loaded)) = (clocks.first_mut(), loaded.remove(&schedule)) else {
        return Ok(None);
    };
    let (State::Active | State::Expired, Ok(known)) = (loaded.state, loaded.known) else {
        return Ok(None);
    };
    let waiting = sqlx::query!(
        r#"select cause as "cause: Cause", event from open_fires
           where schedule_id = $1 and fire_at = $2 and run_id is null"#,
        schedule,
        fire_at
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(waiting) = waiting else { return Ok(None) };
    let under_way = due::under_way(conn, &[schedule]).await?;
    if under_way.get(&schedule).is_some_and(|under_way| under_way.running) {
        return Ok(None);
    }
    let fire = Fire {
        schedule,
        known,
        cause: waiting.cause,
        fire_at,
        due_at: fire_at,
        missed: 0,
        event: waiting.event.and_then(hear::heard),
        backfill: None,
        by: None,
        fate: Fate::Start,
    };
    let (done, rows) = write::start_waiting(conn, catalogue, &fire).await?;
    if done.outcome == Outcome::Refused {
        let why = done.reason.clone().unwrap_or_default();
        if let Some(reason) = clock.ended(&fire.known.spec, true, &why) {
            clock.stop();
            clocks::end(conn, &[Ending { schedule, state: State::Disabled, reason }]).await?;
        }
        clocks::save(conn, &clocks).await?;
    }
    Ok(Some((done, rows)))
}

/// Fires whose runs were replaced.
pub async fn replaced(
    conn: &mut PgConnection,
    limit: i64,
) -> Result<Vec<(Key, Uuid)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select schedule_id, fire_at, run_id as "run_id!" from open_fires
           where cancel and run_id is not null order by run_id limit $1"#,
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| ((row.schedule_id, row.fire_at), row.run_id)).collect())
}

/// Cancels the run of a fire that was replaced; returns what came of it.
pub async fn cancel(
    conn: &mut PgConnection,
    (schedule, fire_at): Key,
    run: Uuid,
) -> Result<Stopped, sqlx::Error> {
    let stopped = stop::stop(conn, run, StopReason::Cancel).await?;
    sqlx::query!(
        "update open_fires set cancel = false where schedule_id = $1 and fire_at = $2",
        schedule,
        fire_at
    )
    .execute(conn)
    .await?;
    Ok(stopped)
}
