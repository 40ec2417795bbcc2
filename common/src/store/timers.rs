//! Timers: what is due because time has passed.

use std::collections::BTreeMap;

use sqlx::PgConnection;
use uuid::Uuid;

use super::requeue::{self, LockedRun, ToQueue};
use super::stop::{self, Stopped};
use super::waits;
use crate::job::Reason;
use crate::node_run::NodeState;
use crate::outbox::{self, Row};
use crate::run::{RunState, StopReason};

/// What a timer makes due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "timer_kind", rename_all = "snake_case")]
pub enum TimerKind {
    /// A run whose start was delayed.
    Start,
    /// A run's time-out.
    Deadline,
    /// A node run's next attempt.
    Retry,
    /// A node run that waited for a moment.
    Wait,
}

/// The key of a timer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timer {
    /// The run.
    pub run: Uuid,
    /// The node; empty when the timer is the run's own.
    pub node: String,
    /// What it makes due.
    pub kind: TimerKind,
}

/// What the timers that were due have changed.
#[derive(Debug, Default)]
pub struct Fired {
    /// Timers that were due, and are gone.
    pub timers: usize,
    /// Outbox rows, to publish after the commit.
    pub rows: Vec<Row>,
    /// Runs that changed and go on.
    pub changed: Vec<Uuid>,
    /// Runs that began to stop: their workers are to be told.
    pub stopping: Vec<Uuid>,
    /// Runs that ended.
    pub ended: Vec<Uuid>,
}

/// Timers that are due, earliest first. Nothing is locked yet: the order is runs first.
pub async fn due(conn: &mut PgConnection, limit: i64) -> Result<Vec<Timer>, sqlx::Error> {
    sqlx::query_as!(
        Timer,
        r#"select run_id as run, node, kind as "kind: TimerKind"
           from timers where due_at <= (select clock_timestamp()) order by due_at limit $1"#,
        limit
    )
    .fetch_all(conn)
    .await
}

/// Does what those of `timers` that are still due ask for, and deletes them.
pub async fn fire(conn: &mut PgConnection, timers: &[Timer]) -> Result<Fired, sqlx::Error> {
    let ids = timers.iter().map(|timer| timer.run).collect();
    let mut runs = requeue::lock_runs(conn, ids).await?;
    let taken = take(conn, timers).await?;
    let mut fired = Fired { timers: taken.len(), ..Fired::default() };
    start(conn, &runs, &taken, &mut fired).await?;
    resume(conn, &mut runs, &taken, &mut fired).await?;
    outbox::insert(conn, &fired.rows).await?;
    expire(conn, &runs, &taken, &mut fired).await?;
    Ok(fired)
}

/// Puts off a timer that cannot be fired, so that it does not hold up the others.
pub async fn postpone(conn: &mut PgConnection, timer: &Timer) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update timers set due_at = clock_timestamp() + interval '30 s'
         where run_id = $1 and node = $2 and kind = $3",
        timer.run,
        timer.node,
        timer.kind as TimerKind
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes those that are still due. One that another transaction holds (a breaker's closing) is left for next time:
/// waiting for it here could deadlock.
async fn take(conn: &mut PgConnection, timers: &[Timer]) -> Result<Vec<Timer>, sqlx::Error> {
    let runs: Vec<Uuid> = timers.iter().map(|timer| timer.run).collect();
    let nodes: Vec<String> = timers.iter().map(|timer| timer.node.clone()).collect();
    let kinds: Vec<TimerKind> = timers.iter().map(|timer| timer.kind).collect();
    sqlx::query_as!(
        Timer,
        r#"delete from timers t
           using (
               select l.run_id, l.node, l.kind
               from timers l
               join unnest($1::uuid[], $2::text[], $3::timer_kind[]) as d (run_id, node, kind)
                   on l.run_id = d.run_id and l.node = d.node and l.kind = d.kind
               where l.due_at <= clock_timestamp()
               for update of l skip locked
           ) as l
           where t.run_id = l.run_id and t.node = l.node and t.kind = l.kind
           returning t.run_id as run, t.node, t.kind as "kind: TimerKind""#,
        &runs,
        &nodes,
        &kinds as &[TimerKind]
    )
    .fetch_all(conn)
    .await
}

/// Delayed starts.
async fn start(
    conn: &mut PgConnection,
    runs: &BTreeMap<Uuid, LockedRun>,
    taken: &[Timer],
    fired: &mut Fired,
) -> Result<(), sqlx::Error> {
    let due: Vec<&LockedRun> = taken
        .iter()
        .filter(|timer| timer.kind == TimerKind::Start)
        .filter_map(|timer| runs.get(&timer.run))
        .filter(|run| run.state == RunState::Queued && !run.is_queued)
        .collect();
    fired.rows.extend(requeue::queue_starts(conn, &due, Reason::Delayed).await?);
    Ok(())
}

/// Retries and waits. In a run that is stopping, or has ended, nothing is due any more.
async fn resume(
    conn: &mut PgConnection,
    runs: &mut BTreeMap<Uuid, LockedRun>,
    taken: &[Timer],
    fired: &mut Fired,
) -> Result<(), sqlx::Error> {
    let (ids, names): (Vec<Uuid>, Vec<String>) = taken
        .iter()
        .filter(|timer| matches!(timer.kind, TimerKind::Retry | TimerKind::Wait))
        .filter(|timer| runs.get(&timer.run).is_some_and(|run| run.state == RunState::Running))
        .map(|timer| (timer.run, timer.node.clone()))
        .unzip();
    if ids.is_empty() {
        return Ok(());
    }
    let due = sqlx::query_as!(
        ToQueue,
        r#"select n.run_id as run, n.node, n.state as "state: NodeState", n.attempt, n.lane
           from node_runs n
           join unnest($1::uuid[], $2::text[]) as d (run_id, node) on n.run_id = d.run_id and n.node = d.node
           where n.state in ('retrying', 'waiting')
           order by n.run_id, n.node"#,
        &ids,
        &names
    )
    .fetch_all(&mut *conn)
    .await?;
    let late = waits::expire(conn, runs, &due).await?;
    fired.rows.extend(late.stops);
    let reason = |node: &ToQueue| match node.state {
        NodeState::Waiting if late.nodes.contains(&(node.run, node.node.clone())) => {
            Reason::Deadline
        }
        NodeState::Waiting => Reason::DelayOver,
        _ => Reason::Retry,
    };
    fired.rows.extend(requeue::queue_nodes(conn, runs, &due, reason).await?);
    fired.changed.extend(due.iter().map(|node| node.run));
    fired.changed.dedup();
    Ok(())
}

/// Deadlines.
async fn expire(
    conn: &mut PgConnection,
    runs: &BTreeMap<Uuid, LockedRun>,
    taken: &[Timer],
    fired: &mut Fired,
) -> Result<(), sqlx::Error> {
    let mut late: Vec<Uuid> = taken
        .iter()
        .filter(|timer| timer.kind == TimerKind::Deadline && runs.contains_key(&timer.run))
        .map(|timer| timer.run)
        .collect();
    late.sort_unstable();
    for run in late {
        match stop::stop(conn, run, StopReason::TimedOut).await? {
            Stopped::Stopping => fired.stopping.push(run),
            Stopped::Stopped(_) => fired.ended.push(run),
            Stopped::Unknown | Stopped::Ended(_) => {}
        }
    }
    Ok(())
}
