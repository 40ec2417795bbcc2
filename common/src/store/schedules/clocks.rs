//! Where schedules stand: rows that change with each fire.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::clock::Instant;
use crate::schedule::plan::Next;
use crate::schedule::{Kind, Spec, State};

/// A row of `schedule_clocks`, locked.
#[derive(Debug, Clone)]
pub struct Clock {
    /// The schedule.
    pub schedule_id: Uuid,
    /// The first moment that has not been decided.
    pub next_fire_at: Option<Instant>,
    /// When the leader is to look.
    pub due_at: Option<Instant>,
    /// The last fire.
    pub last_fire_at: Option<Instant>,
    /// What intervals are counted from.
    pub anchor_at: Instant,
    /// Fires but for those that were skipped.
    pub fires: i32,
    /// Failures in a row.
    pub failures: i32,
}

impl Clock {
    /// Sets what comes next. One that listens is looked at when it ends.
    pub fn set_next(&mut self, spec: &Spec, next: Option<Next>) {
        self.next_fire_at = next.map(|next| next.fire_at);
        self.due_at = match spec.kind {
            Kind::Event => spec.end_at,
            _ => next.map(|next| next.due_at),
        };
    }

    /// Nothing comes any more.
    pub fn stop(&mut self) {
        (self.next_fire_at, self.due_at) = (None, None);
    }

    /// Notes a fire that was not skipped.
    pub fn fired(&mut self, fire_at: Instant) {
        self.fires = self.fires.saturating_add(1);
        self.last_fire_at = self.last_fire_at.max(Some(fire_at));
    }

    /// Whether `max_fires` is reached.
    pub fn is_used_up(&self, spec: &Spec) -> bool {
        spec.max_fires.is_some_and(|most| self.fires >= i32::try_from(most).unwrap_or(i32::MAX))
    }

    /// Notes how a fire ended; the reason for which the schedule is to be disabled, if it is.
    pub fn ended(&mut self, spec: &Spec, failed: bool, why: &str) -> Option<String> {
        self.failures = if failed { self.failures.saturating_add(1) } else { 0 };
        let most = i32::try_from(spec.max_consecutive_failures?).unwrap_or(i32::MAX);
        (failed && self.failures >= most)
            .then(|| format!("{} fires in a row have failed; the last: {why}", self.failures))
    }
}

/// The database's clock.
pub async fn now(conn: &mut PgConnection) -> Result<Instant, sqlx::Error> {
    sqlx::query_scalar!(r#"select clock_timestamp() as "now!""#).fetch_one(conn).await
}

/// Locks the rows of these schedules, by id; those that are deleted are left out.
pub async fn lock(conn: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<Clock>, sqlx::Error> {
    sqlx::query_as!(
        Clock,
        "select schedule_id, next_fire_at, due_at, last_fire_at, anchor_at, fires, failures
         from schedule_clocks where schedule_id = any($1) order by schedule_id for update",
        ids
    )
    .fetch_all(conn)
    .await
}

/// Locks those of these schedules that are due. One that another transaction holds is left for next time.
pub async fn lock_due(conn: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<Clock>, sqlx::Error> {
    sqlx::query_as!(
        Clock,
        "select schedule_id, next_fire_at, due_at, last_fire_at, anchor_at, fires, failures
         from schedule_clocks where schedule_id = any($1) and due_at <= clock_timestamp()
         order by schedule_id for update skip locked",
        ids
    )
    .fetch_all(conn)
    .await
}

/// Writes rows that the caller has locked.
pub async fn save(conn: &mut PgConnection, clocks: &[Clock]) -> Result<(), sqlx::Error> {
    if clocks.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "update schedule_clocks c set next_fire_at = u.next_fire_at, due_at = u.due_at,
             last_fire_at = u.last_fire_at, anchor_at = u.anchor_at, fires = u.fires, failures = u.failures
         from unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[], $4::timestamptz[], $5::timestamptz[],
                 $6::int[], $7::int[])
             as u (id, next_fire_at, due_at, last_fire_at, anchor_at, fires, failures)
         where c.schedule_id = u.id",
        &clocks.iter().map(|c| c.schedule_id).collect::<Vec<_>>(),
        &clocks.iter().map(|c| c.next_fire_at).collect::<Vec<_>>() as &[Option<Instant>],
        &clocks.iter().map(|c| c.due_at).collect::<Vec<_>>() as &[Option<Instant>],
        &clocks.iter().map(|c| c.last_fire_at).collect::<Vec<_>>() as &[Option<Instant>],
        &clocks.iter().map(|c| c.anchor_at).collect::<Vec<_>>(),
        &clocks.iter().map(|c| c.fires).collect::<Vec<_>>(),
        &clocks.iter().map(|c| c.failures).collect::<Vec<_>>(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A schedule that leaves the state active.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// The schedule.
    pub schedule: Uuid,
    /// Its state from now on.
    pub state: State,
    /// Why.
    pub reason: String,
}

/// Ends active schedules whose clocks the caller has locked, and tells those that listen to that.
pub async fn end(conn: &mut PgConnection, endings: &[Ending]) -> Result<(), sqlx::Error> {
    if endings.is_empty() {
        return Ok(());
    }
    for ending in endings {
        tracing::info!(schedule = %ending.schedule, state = ending.state.name(), reason = ending.reason, "a schedule has ended");
    }
    sqlx::query!(
        r#"with ended as (
               update schedules s set state = u.state, reason = u.reason, listens = null, updated_at = clock_timestamp()
               from unnest($1::uuid[], $2::schedule_state[], $3::text[]) as u (id, state, reason)
               where s.id = u.id and s.state = 'active'
               returning s.id, s.name, s.state, s.reason
           )
           insert into events (type, data)
           select 'schedule.' || e.state,
               jsonb_build_object('schedule', jsonb_build_object('id', e.id, 'name', e.name), 'reason', e.reason)
           from ended e
           where exists (select from schedules l where l.listens is not null and 'schedule.' || e.state like l.listens)"#,
        &endings.iter().map(|e| e.schedule).collect::<Vec<_>>(),
        &endings.iter().map(|e| e.state).collect::<Vec<_>>() as &[State],
        &endings.iter().map(|e| e.reason.clone()).collect::<Vec<_>>(),
    )
    .execute(conn)
    .await?;
    Ok(())
}
