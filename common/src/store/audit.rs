//! The audit: what the leader looks at to know that every run ends, and the repairs of what does not.
//!
//! A look locks nothing. A repair locks the run, and does nothing unless it finds what the look saw.

use std::collections::HashSet;

use sqlx::PgConnection;
use uuid::Uuid;

use super::requeue::{self, LockedRun, ToQueue};
use super::stop;
use super::timers::{Timer, TimerKind};
use crate::clock::Instant;
use crate::job::Reason;
use crate::node_run::NodeState;
use crate::outbox::{self, Row};
use crate::run::RunState;

/// A node run that something may be wrong with: queued for over 15 s, running on a worker that is not known to be
/// alive, retrying or waiting without a timer (unless it waits for an answer, and has no deadline).
#[derive(Debug, Clone)]
pub struct DoubtfulNode {
    /// Its run.
    pub run: Uuid,
    /// Its node.
    pub node: String,
    /// Where it stands.
    pub state: NodeState,
    /// Its fence.
    pub attempt: i32,
    /// Workers that died under it.
    pub losses: i32,
    /// The worker that runs it.
    pub owner: Option<Uuid>,
    /// The lane of its job.
    pub lane: String,
    /// When its job was last queued.
    pub queued_at: Option<Instant>,
}

/// A worker that is, or was, in the fleet.
#[derive(Debug, Clone)]
pub struct WorkerSeen {
    /// Its id.
    pub id: Uuid,
    /// The lanes that it serves.
    pub lanes: Vec<String>,
    /// Whether its lock is held.
    pub is_locked: bool,
}

/// The doubtful node runs of `runs`, where `alive` are the workers known to be alive.
///
/// `(select true … limit 1)` stands for `exists (…)`, which the planner may turn into one look at the whole table.
pub async fn doubtful_nodes(
    conn: &mut PgConnection,
    runs: &[Uuid],
    alive: &[Uuid],
) -> Result<Vec<DoubtfulNode>, sqlx::Error> {
    sqlx::query_as!(
        DoubtfulNode,
        r#"select n.run_id as run, n.node, n.state as "state: NodeState", n.attempt, n.losses, n.owner, n.lane,
                  n.queued_at
           from node_runs n
           where n.run_id = any($1)
             and case n.state
                 when 'queued' then n.queued_at < clock_timestamp() - interval '15 s'
                 when 'running' then n.owner <> all($2)
                 when 'retrying' then (
                     select true from timers t
                     where t.run_id = n.run_id and t.node = n.node and t.kind = 'retry' limit 1) is null
                 when 'waiting' then (
                     select true from timers t
                     where t.run_id = n.run_id and t.node = n.node and t.kind = 'wait' limit 1) is null
                     and (
                     select true from waits w
                     where w.run_id = n.run_id and w.node = n.node and w.answer is null and w.deadline_at is null
                     limit 1) is null
                 else false
             end"#,
        runs,
        alive
    )
    .fetch_all(conn)
    .await
}

/// Who is in the fleet, and whose lock is held. The locks are asked shared, for the moment of this statement only.
pub async fn workers(conn: &mut PgConnection) -> Result<Vec<WorkerSeen>, sqlx::Error> {
    sqlx::query_as!(
        WorkerSeen,
        r#"select id, lanes, not pg_try_advisory_xact_lock_shared(lock_key) as "is_locked!"
           from workers"#
    )
    .fetch_all(conn)
    .await
}

/// Queues the start of runs anew whose job is lost; each is fenced by the instant at which that was queued.
pub async fn resend_starts(
    conn: &mut PgConnection,
    lost: &[(Uuid, Instant)],
) -> Result<Vec<Row>, sqlx::Error> {
    let mut runs = requeue::lock_runs(conn, lost.iter().map(|(run, _)| *run).collect()).await?;
    let (ids, instants): (Vec<Uuid>, Vec<Instant>) = lost.iter().copied().unzip();
    let still = sqlx::query_scalar!(
        "select r.id from runs r join unnest($1::uuid[], $2::timestamptz[]) as l (id, queued_at)
             on r.id = l.id and r.queued_at = l.queued_at
         where r.state = 'queued'",
        &ids,
        &instants
    )
    .fetch_all(&mut *conn)
    .await?;
    let still: HashSet<Uuid> = still.into_iter().collect();
    runs.retain(|id, _| still.contains(id));
    let rows =
        requeue::queue_starts(conn, &runs.values().collect::<Vec<&LockedRun>>(), Reason::Recovered)
            .await?;
    outbox::insert(conn, &rows).await?;
    Ok(rows)
}

/// Queues node runs anew whose job is lost; each is fenced by the instant at which that was queued.
pub async fn resend_nodes(
    conn: &mut PgConnection,
    lost: &[(Uuid, String, Instant)],
) -> Result<Vec<Row>, sqlx::Error> {
    let mut runs = requeue::lock_runs(conn, lost.iter().map(|(run, ..)| *run).collect()).await?;
    runs.retain(|_, run| run.state == RunState::Running);
    let ids: Vec<Uuid> = lost.iter().map(|(run, ..)| *run).collect();
    let nodes: Vec<String> = lost.iter().map(|(_, node, _)| node.clone()).collect();
    let instants: Vec<Instant> = lost.iter().map(|(.., queued_at)| *queued_at).collect();
    let mut still = sqlx::query_as!(
        ToQueue,
        r#"select n.run_id as run, n.node, n.state as "state: NodeState", n.attempt, n.lane
           from node_runs n
           join unnest($1::uuid[], $2::text[], $3::timestamptz[]) as l (run_id, node, queued_at)
               on n.run_id = l.run_id and n.node = l.node and n.queued_at = l.queued_at
           where n.state = 'queued'
           order by n.run_id, n.node"#,
        &ids,
        &nodes,
        &instants
    )
    .fetch_all(&mut *conn)
    .await?;
    still.retain(|node| runs.contains_key(&node.run));
    let rows = requeue::queue_nodes(conn, &mut runs, &still, |_| Reason::Recovered).await?;
    outbox::insert(conn, &rows).await?;
    Ok(rows)
}

/// Gives a timer, due at once, to what waits without one.
pub async fn set_timer(conn: &mut PgConnection, timer: &Timer) -> Result<bool, sqlx::Error> {
    requeue::lock_runs(conn, vec![timer.run]).await?;
    let set = sqlx::query!(
        "insert into timers (run_id, node, kind, due_at)
         select $1, $2, $3, coalesce(
             (select deadline_at from waits where run_id = $1 and node = $2 and answer is null), clock_timestamp())
         where case $3::timer_kind
             when 'start' then exists (
                 select from runs where id = $1 and state = 'queued' and queued_at is null)
             when 'retry' then exists (
                 select from node_runs where run_id = $1 and node = $2 and state = 'retrying')
             when 'wait' then exists (
                 select from node_runs where run_id = $1 and node = $2 and state = 'waiting')
             else false
         end
         on conflict do nothing",
        timer.run,
        timer.node,
        timer.kind as TimerKind
    )
    .execute(conn)
    .await?;
    Ok(set.rows_affected() > 0)
}

/// Fails a run that nothing moves on, as long as it has not changed since it counted `seq`.
pub async fn fail_stuck(conn: &mut PgConnection, run: Uuid, seq: i64) -> Result<bool, sqlx::Error> {
    let locked = requeue::lock_runs(conn, vec![run]).await?;
    let is_as_seen =
        locked.get(&run).is_some_and(|run| run.state == RunState::Running && run.seq == seq);
    if !is_as_seen || is_live(conn, run).await? {
        return Ok(false);
    }
    stop::break_off(
        conn,
        run,
        "nothing was left that could move this run on, although it had not ended: a defect of the engine",
    )
    .await
}

async fn is_live(conn: &mut PgConnection, run: Uuid) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select exists (
               select from node_runs
               where run_id = $1 and state in ('queued', 'running', 'retrying', 'waiting')
           ) as "live!""#,
        run
    )
    .fetch_one(conn)
    .await
}
