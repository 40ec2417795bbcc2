//! A run is told to stop: what has not begun ends at once, what runs is told by its worker.

use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::failure::{ErrorKind, NodeError};
use crate::job::{Job, Reason, Task};
use crate::outbox::{self, Row};
use crate::run::{RunEvent, RunState, StopReason};
use crate::store::waits;
use crate::wait::Parent;

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// There is no such run.
    Unknown,
    /// It had ended before.
    Ended(RunState),
    /// Node runs of it still run; their workers have to be told by a hint.
    Stopping,
    /// This ended it.
    Stopped(RunState),
}

/// Tells `run` to stop. Within the caller's transaction, which must have locked no node runs yet.
pub async fn stop(
    conn: &mut PgConnection,
    run: Uuid,
    reason: StopReason,
) -> Result<Stopped, sqlx::Error> {
    let locked = sqlx::query!(
        r#"select state as "state: RunState" from runs where id = $1 for no key update"#,
        run
    )
    .fetch_optional(&mut *conn)
    .await?;
    match locked.map(|row| row.state) {
        None => Ok(Stopped::Unknown),
        Some(RunState::Cancelling) => Ok(Stopped::Stopping),
        Some(state) if state.is_terminal() => Ok(Stopped::Ended(state)),
        Some(state) => halt(conn, run, state, reason, why(reason)).await,
    }
}

/// The error of a run that was stopped for `reason`.
fn why(reason: StopReason) -> Option<NodeError> {
    let (kind, message) = match reason {
        StopReason::Cancel => (ErrorKind::Cancelled, "the run was cancelled"),
        StopReason::TimedOut => (ErrorKind::TimedOut, "the run took longer than its time-out"),
        StopReason::FailFast => return None,
    };
    Some(NodeError { kind, message: message.to_owned(), node: None })
}

/// Stops a run that the caller has locked, in the state in which it is.
pub async fn halt(
    conn: &mut PgConnection,
    run: Uuid,
    state: RunState,
    reason: StopReason,
    error: Option<NodeError>,
) -> Result<Stopped, sqlx::Error> {
    let error = error.and_then(|error| serde_json::to_value(error).ok());
    let running = if state == RunState::Queued { 0 } else { cancel_idle(conn, run).await? };
    let next = state
        .next(RunEvent::Stopped { reason, running: running > 0 })
        .map_err(|error| sqlx::Error::Protocol(error.to_string()))?;
    change(conn, run, next, running, Some(reason), error).await?;
    Ok(if next.is_terminal() { Stopped::Stopped(next) } else { Stopped::Stopping })
}

/// Ends all node runs that nobody executes; returns how many are still running.
async fn cancel_idle(conn: &mut PgConnection, run: Uuid) -> Result<i32, sqlx::Error> {
    sqlx::query!(
        r#"with idle as (
               select n.node, r.seq + row_number() over (order by n.node) as seq
               from node_runs as n join runs as r on r.id = n.run_id
               where n.run_id = $1 and n.state in ('pending', 'queued', 'retrying', 'waiting')
           ),
           ended as (
               update node_runs as n set state = 'cancelled', finished_at = clock_timestamp(), seq = i.seq
               from idle as i
               where n.run_id = $1 and n.node = i.node and n.state in ('pending', 'queued', 'retrying', 'waiting')
           )
           update runs set seq = coalesce((select max(seq) from idle), seq) where id = $1"#,
        run
    )
    .execute(&mut *conn)
    .await?;
    waits::close(conn, run).await?;
    let running = sqlx::query_scalar!(
        r#"select count(*)::int as "count!" from node_runs where run_id = $1 and state = 'running'"#,
        run
    )
    .fetch_one(conn)
    .await?;
    Ok(running)
}

/// Writes a run's new state, and removes its timers: none of them has anything left to do.
async fn change(
    conn: &mut PgConnection,
    run: Uuid,
    state: RunState,
    open: i32,
    reason: Option<StopReason>,
    error: Option<Value>,
) -> Result<(), sqlx::Error> {
    let changed = sqlx::query!(
        r#"with gone as (delete from timers where run_id = $1), told as (
               insert into events (type, data, depth)
               select 'run.' || $2::run_state, run_told(r, $2::run_state, $5), coalesce((r.trigger ->> 'depth')::int, 0)
               from runs r
               where r.id = $1 and $2::run_state in ('completed', 'failed', 'cancelled', 'timed_out')
                   and (exists (select from schedules l where l.listens is not null and 'run.' || $2::run_state like l.listens)
                       or exists (select from waits w where w.listens is not null and 'run.' || $2::run_state like w.listens))
           )
           update runs set state = $2::run_state, open = $3, seq = seq + 1, stop_reason = coalesce(stop_reason, $4),
               error = coalesce($5, error),
               finished_at = case when $2::run_state in ('completed', 'failed', 'cancelled', 'timed_out') then clock_timestamp() end
           where id = $1
           returning trigger, lane, pipeline, version, traceparent"#,
        run,
        state as RunState,
        open,
        reason as Option<StopReason>,
        error
    )
    .fetch_one(&mut *conn)
    .await?;
    let Some(parent) = Parent::of(&changed.trigger).filter(|_| state.is_terminal()) else {
        return Ok(());
    };
    let job = Job {
        id: Uuid::now_v7(),
        task: Task::ChildEnded { run: parent.run, child: run },
        reason: Reason::ChildEnded,
        pipeline: changed.pipeline,
        version: changed.version,
        traceparent: changed.traceparent,
    };
    outbox::leave(conn, &[Row::new(changed.lane, job)]).await
}

/// Ends a run that is cancelling, and of which nothing runs any more. True when this ended it.
pub async fn finish_if_idle(conn: &mut PgConnection, run: Uuid) -> Result<bool, sqlx::Error> {
    let locked = sqlx::query!(
        r#"select state as "state: RunState", stop_reason as "stop_reason: StopReason",
               (select count(*)::int from node_runs as n where n.run_id = r.id and n.state = 'running') as "running!"
           from runs as r where id = $1 for no key update"#,
        run
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(row) = locked else { return Ok(false) };
    let reason = row.stop_reason.unwrap_or(StopReason::Cancel);
    if row.running > 0 {
        return Ok(false);
    }
    let Ok(state) = row.state.next(RunEvent::LastStopped(reason)) else { return Ok(false) };
    change(conn, run, state, 0, None, None).await?;
    Ok(true)
}

/// Fails a run that cannot be started or continued at all, and ends whatever of it is left.
pub async fn break_off(
    conn: &mut PgConnection,
    run: Uuid,
    message: &str,
) -> Result<bool, sqlx::Error> {
    let locked = sqlx::query!(
        r#"select state as "state: RunState" from runs where id = $1 for no key update"#,
        run
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(state) = locked.and_then(|row| row.state.next(RunEvent::Broken).ok()) else {
        return Ok(false);
    };
    cancel_idle(conn, run).await?;
    let error = NodeError { kind: ErrorKind::Permanent, message: message.to_owned(), node: None };
    sqlx::query!(
        r#"update node_runs set state = 'cancelled', finished_at = clock_timestamp(), seq = seq + 1
           where run_id = $1 and state = 'running'"#,
        run
    )
    .execute(&mut *conn)
    .await?;
    change(conn, run, state, 0, Some(StopReason::FailFast), serde_json::to_value(error).ok())
        .await?;
    Ok(true)
}
