//! What is due: decided by the database's clock, and written with all that follows from it.

mod batch;

use std::collections::HashMap;

use sqlx::PgConnection;
use uuid::Uuid;

use self::batch::Batch;
use super::catalogue::{Catalogue, Loaded};
use super::clocks::{self, Clock, Ending};
use super::write::{self, Done, Fate, Fire};
use crate::outbox::Row;
use crate::schedule::overlap::{Admission, UnderWay, admit};
use crate::schedule::{Outcome, Overlap, State};

/// What the schedules that were due have done.
#[derive(Debug, Default)]
pub struct Fired {
    /// Schedules that were looked at.
    pub schedules: usize,
    /// How each fire stands, and how late it is, in seconds.
    pub fires: Vec<(Outcome, f64)>,
    /// Outbox rows, to publish after the commit.
    pub rows: Vec<Row>,
}

/// Schedules that are due, earliest first. Nothing is locked yet. The clock is read once, apart: compared with a function
/// that may change from row to row, the index would be read to its end.
pub async fn due(conn: &mut PgConnection, limit: i64) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        "select schedule_id from schedule_clocks where due_at <= (select clock_timestamp())
         order by due_at limit $1",
        limit
    )
    .fetch_all(conn)
    .await
}

/// Puts off a schedule that cannot be fired, so that it does not hold up the others.
pub async fn postpone(conn: &mut PgConnection, schedule: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update schedule_clocks set due_at = clock_timestamp() + interval '30 s' where schedule_id = $1",
        schedule
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Fires those of `ids` that are still due.
pub async fn fire(
    conn: &mut PgConnection,
    catalogue: &mut Catalogue,
    ids: &[Uuid],
) -> Result<Fired, sqlx::Error> {
    let mut clocks = clocks::lock_due(conn, ids).await?;
    let ids: Vec<Uuid> = clocks.iter().map(|clock| clock.schedule_id).collect();
    let loaded = catalogue.load(conn, &ids).await?;
    let now = clocks::now(conn).await?;
    let mut under_way = under_way(conn, &limited(&loaded)).await?;
    let mut batch =
        Batch { now, looked_at: 0, fires: Vec::new(), replaced: Vec::new(), endings: Vec::new() };
    for clock in &mut clocks {
        if let Some(loaded) = loaded.get(&clock.schedule_id) {
            let under_way = under_way.entry(clock.schedule_id).or_default();
            batch.schedule(clock, loaded, under_way);
        }
    }
    let Batch { fires, replaced, mut endings, .. } = batch;
    let written = write::fires(conn, catalogue, &fires).await?;
    cancel(conn, &replaced, &written.done, &fires).await?;
    note(&mut clocks, &fires, &written.done, &mut endings);
    clocks::save(conn, &clocks).await?;
    clocks::end(conn, &endings).await?;
    let late = |fire: &Fire| (now - fire.due_at).as_seconds_f64();
    let told = fires.iter().zip(&written.done);
    let told = told.filter_map(|(fire, done)| Some((done.as_ref()?.outcome, late(fire))));
    Ok(Fired { schedules: clocks.len(), fires: told.collect(), rows: written.rows })
}

/// The schedules for which it matters what is under way.
pub(super) fn limited(loaded: &HashMap<Uuid, Loaded>) -> Vec<Uuid> {
    let matters = |loaded: &Loaded| {
        loaded.known.as_ref().is_ok_and(|known| known.spec.overlap != Overlap::Allow)
    };
    loaded.iter().filter(|(_, loaded)| matters(loaded)).map(|(id, _)| *id).collect()
}

/// What is under way of these schedules, but for backfills: at this moment, not when it was last followed.
pub(super) async fn under_way(
    conn: &mut PgConnection,
    ids: &[Uuid],
) -> Result<HashMap<Uuid, UnderWay>, sqlx::Error> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = sqlx::query!(
        r#"select o.schedule_id, bool_or(r.id is not null) as "running!", bool_or(o.run_id is null) as "waiting!"
           from open_fires o left join runs r on r.id = o.run_id and r.finished_at is null
           where o.schedule_id = any($1) and o.backfill_id is null
           group by o.schedule_id"#,
        ids
    )
    .fetch_all(conn)
    .await?;
    let found = |running, waiting| UnderWay { running, waiting };
    Ok(rows.into_iter().map(|row| (row.schedule_id, found(row.running, row.waiting))).collect())
}

/// Marks all runs under way of these schedules but for each one's newest as replaced: the leader cancels them next.
pub(super) async fn cancel(
    conn: &mut PgConnection,
    replaced: &[Uuid],
    done: &[Option<Done>],
    fires: &[Fire],
) -> Result<(), sqlx::Error> {
    if replaced.is_empty() {
        return Ok(());
    }
    let mut newest: HashMap<Uuid, Uuid> = HashMap::new();
    for (fire, done) in fires.iter().zip(done) {
        if let Some(run) = done.as_ref().and_then(|done| done.run)
            && replaced.contains(&fire.schedule)
        {
            newest.insert(fire.schedule, run);
        }
    }
    let (schedules, runs): (Vec<Uuid>, Vec<Uuid>) = newest.into_iter().unzip();
    sqlx::query!(
        "update open_fires o set cancel = true
         from unnest($1::uuid[], $2::uuid[]) as n (schedule_id, run_id)
         where o.schedule_id = n.schedule_id and o.run_id <> n.run_id and o.backfill_id is null and not o.cancel",
        &schedules,
        &runs
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Counts the fires that were written, and finds schedules that have refused too often.
pub(super) fn note(
    clocks: &mut [Clock],
    fires: &[Fire],
    done: &[Option<Done>],
    endings: &mut Vec<Ending>,
) {
    let places: HashMap<Uuid, usize> =
        clocks.iter().enumerate().map(|(place, clock)| (clock.schedule_id, place)).collect();
    for (fire, done) in fires.iter().zip(done) {
        let (Some(place), Some(done)) = (places.get(&fire.schedule), done) else { continue };
        let clock = &mut clocks[*place];
        clock.last_fire_at = clock.last_fire_at.max(Some(fire.fire_at));
        if done.outcome == Outcome::Refused {
            let why = done.reason.as_deref().unwrap_or_default();
            if let Some(reason) = clock.ended(&fire.known.spec, true, why) {
                clock.stop();
                endings.retain(|ending| ending.schedule != fire.schedule);
                endings.push(Ending { schedule: fire.schedule, state: State::Disabled, reason });
            }
        }
    }
}

/// How a fire is admitted, given what is under way, which it changes.
pub(super) fn fate(overlap: Overlap, under_way: &mut UnderWay) -> (Fate, bool) {
    match admit(overlap, *under_way) {
        Admission::Start => {
            under_way.running = true;
            (Fate::Start, false)
        }
        Admission::Replace => (Fate::Start, true),
        Admission::Wait => {
            under_way.waiting = true;
            (Fate::Wait, false)
        }
        Admission::Skip(why) => (Fate::Skip(why.to_owned()), false),
    }
}
