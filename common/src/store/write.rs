//! The one statement that writes what follows from a batch: node runs, runs, jobs, timers, attempts.

use serde::Serialize;
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::node_run::NodeState;
use crate::outbox::{Columns, Row};
use crate::run::{RunState, StopReason};
use crate::store::dead_letters;

/// A node run that is new (at a run's start) or moved on by the end of another. As JSON it has the names of its columns.
#[derive(Debug, Clone, Serialize)]
pub struct NodeRow {
    /// The run.
    #[serde(skip)]
    pub run: Uuid,
    /// The node.
    pub node: String,
    /// Its new state.
    pub state: NodeState,
    /// Its lane.
    pub lane: String,
    /// Its attempt: 1 when it is claimed at once, else 0.
    pub attempt: i32,
    /// Incoming edges that are not resolved.
    pub open_in: i32,
    /// Whether a resolved one is taken.
    pub taken_in: bool,
    /// Whether a resolved one is broken.
    pub broken_in: bool,
    /// The worker that claims it.
    pub owner: Option<Uuid>,
    /// The job under which it runs.
    #[serde(rename = "job_id")]
    pub job: Option<Uuid>,
    /// A trigger's output, as JSON text.
    #[serde(skip)]
    pub output: Option<String>,
    /// An edge's error.
    pub error: Option<Value>,
    /// The run's count at this change.
    pub seq: i64,
}

/// What changes in a run.
#[derive(Debug, Clone)]
pub struct RunChange {
    /// The run.
    pub id: Uuid,
    /// Its count of changes.
    pub seq: i64,
    /// Its state from now on.
    pub state: RunState,
    /// Open sinks, or node runs still running.
    pub open: i32,
    /// Its output, as JSON text, at its end.
    pub output: Option<String>,
    /// Its error; one that is already there stays.
    pub error: Option<Value>,
    /// Why it began to stop; one that is already there stays.
    pub stop_reason: Option<StopReason>,
    /// Whether timers of it may be left that its end makes pointless.
    pub has_timers: bool,
}

/// A moment at which something is due.
#[derive(Debug, Clone)]
pub struct TimerRow {
    /// The run.
    pub run: Uuid,
    /// The node, or "" for the run itself.
    pub node: String,
    /// What is due.
    pub kind: TimerKind,
    /// From now, in milliseconds.
    pub after_ms: i64,
    /// Instead: at this instant.
    pub at: Option<crate::clock::Instant>,
    /// The breaker that it waits for.
    pub breaker: Option<String>,
}

/// What a timer makes due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "timer_kind", rename_all = "snake_case")]
pub enum TimerKind {
    /// A delayed run's start.
    Start,
    /// A run's time-out.
    Deadline,
    /// A node run's next attempt.
    Retry,
    /// The end of what a node run waits for.
    Wait,
}

/// An attempt that ended without completing its node run.
#[derive(Debug, Clone)]
pub struct AttemptRow {
    /// The run.
    pub run: Uuid,
    /// The node.
    pub node: String,
    /// Which attempt.
    pub attempt: i32,
    /// The worker that made it.
    pub owner: Option<Uuid>,
    /// How it failed.
    pub error: Value,
    /// Whether it counts against `max_attempts`.
    pub spent: bool,
    /// When it began.
    pub started_at: Option<crate::clock::Instant>,
}

/// Everything that one batch writes.
#[derive(Debug, Clone, Default)]
pub struct Writes {
    /// Node runs.
    pub nodes: Vec<NodeRow>,
    /// Runs, one entry each.
    pub runs: Vec<RunChange>,
    /// Jobs.
    pub jobs: Vec<Row>,
    /// Timers.
    pub timers: Vec<TimerRow>,
    /// Attempts.
    pub attempts: Vec<AttemptRow>,
    /// Dead letters.
    pub letters: Vec<dead_letters::Row>,
}

/// Columns of [`NodeRow`]s.
#[derive(Default)]
struct NodeColumns {
    runs: Vec<Uuid>,
    nodes: Vec<String>,
    states: Vec<NodeState>,
    lanes: Vec<String>,
    attempts: Vec<i32>,
    open: Vec<i32>,
    taken: Vec<bool>,
    broken: Vec<bool>,
    owners: Vec<Option<Uuid>>,
    jobs: Vec<Option<Uuid>>,
    outputs: Vec<Option<String>>,
    errors: Vec<Option<Value>>,
    seqs: Vec<i64>,
}

impl NodeColumns {
    /// By key, so that two batches never lock in different orders.
    fn of(mut rows: Vec<NodeRow>) -> Self {
        rows.sort_unstable_by(|a, b| (a.run, &a.node).cmp(&(b.run, &b.node)));
        let mut columns = Self::default();
        for row in rows {
            columns.runs.push(row.run);
            columns.nodes.push(row.node);
            columns.states.push(row.state);
            columns.lanes.push(row.lane);
            columns.attempts.push(row.attempt);
            columns.open.push(row.open_in);
            columns.taken.push(row.taken_in);
            columns.broken.push(row.broken_in);
            columns.owners.push(row.owner);
            columns.jobs.push(row.job);
            columns.outputs.push(row.output);
            columns.errors.push(row.error);
            columns.seqs.push(row.seq);
        }
        columns
    }
}

/// Rows as a JSON array; none when there are none.
pub(super) fn json_rows(rows: &[impl Serialize]) -> Result<Option<String>, sqlx::Error> {
    if rows.is_empty() {
        return Ok(None);
    }
    serde_json::to_string(rows).map(Some).map_err(|error| sqlx::Error::Encode(error.into()))
}

/// Inserts the node runs of runs that start, one bulk insert.
pub async fn insert_nodes(conn: &mut PgConnection, rows: Vec<NodeRow>) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let c = NodeColumns::of(rows);
    sqlx::query!(
        r#"insert into node_runs (run_id, node, state, lane, attempt, open_in, taken_in, broken_in, owner, job_id,
               output, error, seq, queued_at, started_at, finished_at)
           select i.run_id, i.node, i.state, i.lane, i.attempt, i.open_in, i.taken_in, i.broken_in, i.owner, i.job_id,
               i.output::jsonb, i.error, i.seq,
               case when i.state in ('queued', 'running') then t.now end,
               case when i.state in ('running', 'completed') then t.now end,
               case when i.state in ('completed', 'failed', 'skipped', 'cancelled') then t.now end
           from unnest($1::uuid[], $2::text[], $3::node_state[], $4::text[], $5::int[], $6::int[], $7::bool[],
                   $8::bool[], $9::uuid[], $10::uuid[], $11::text[], $12::jsonb[], $13::bigint[])
               as i (run_id, node, state, lane, attempt, open_in, taken_in, broken_in, owner, job_id, output, error, seq),
               (select clock_timestamp() as now) as t"#,
        &c.runs,
        &c.nodes,
        &c.states as &[NodeState],
        &c.lanes,
        &c.attempts,
        &c.open,
        &c.taken,
        &c.broken,
        &c.owners as &[Option<Uuid>],
        &c.jobs as &[Option<Uuid>],
        &c.outputs as &[Option<String>],
        &c.errors as &[Option<Value>],
        &c.seqs
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Moves pending node runs on: new counters, or ready, skipped, failed.
async fn update_nodes(conn: &mut PgConnection, rows: Vec<NodeRow>) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let c = NodeColumns::of(rows);
    sqlx::query!(
        r#"update node_runs as n set state = u.state, attempt = u.attempt, open_in = u.open_in, taken_in = u.taken_in,
               broken_in = u.broken_in, owner = u.owner, job_id = u.job_id, error = u.error, seq = u.seq,
               queued_at = case when u.state in ('queued', 'running') then t.now end,
               started_at = case when u.state = 'running' then t.now end,
               finished_at = case when u.state in ('failed', 'skipped', 'cancelled') then t.now end
           from unnest($1::uuid[], $2::text[], $3::node_state[], $4::int[], $5::int[], $6::bool[], $7::bool[],
                   $8::uuid[], $9::uuid[], $10::jsonb[], $11::bigint[])
               as u (run_id, node, state, attempt, open_in, taken_in, broken_in, owner, job_id, error, seq),
               (select clock_timestamp() as now) as t
           where n.run_id = u.run_id and n.node = u.node and n.state = 'pending'"#,
        &c.runs,
        &c.nodes,
        &c.states as &[NodeState],
        &c.attempts,
        &c.open,
        &c.taken,
        &c.broken,
        &c.owners as &[Option<Uuid>],
        &c.jobs as &[Option<Uuid>],
        &c.errors as &[Option<Value>],
        &c.seqs
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes the rest of a batch, whose runs the caller has locked.
pub async fn write(conn: &mut PgConnection, writes: Writes) -> Result<(), sqlx::Error> {
    update_nodes(conn, writes.nodes).await?;
    attempts(conn, &writes.attempts).await?;
    dead_letters::insert(conn, &writes.letters).await?;
    timers(conn, &writes.timers).await?;
    runs_and_jobs(conn, &writes.runs, &writes.jobs).await
}

async fn runs_and_jobs(
    conn: &mut PgConnection,
    runs: &[RunChange],
    jobs: &[Row],
) -> Result<(), sqlx::Error> {
    let jobs = Columns::of(jobs);
    let ids: Vec<Uuid> = runs.iter().map(|run| run.id).collect();
    let seqs: Vec<i64> = runs.iter().map(|run| run.seq).collect();
    let states: Vec<RunState> = runs.iter().map(|run| run.state).collect();
    let open: Vec<i32> = runs.iter().map(|run| run.open).collect();
    let outputs: Vec<Option<&str>> = runs.iter().map(|run| run.output.as_deref()).collect();
    let errors: Vec<Option<&Value>> = runs.iter().map(|run| run.error.as_ref()).collect();
    let reasons: Vec<Option<StopReason>> = runs.iter().map(|run| run.stop_reason).collect();
    sqlx::query!(
        r#"with sent as (
               insert into outbox (id, lane, job)
               select s.id, s.lane, s.job::jsonb from unnest($1::uuid[], $2::text[], $3::text[]) as s (id, lane, job)
           ), told as (
               insert into events (type, data, depth)
               select 'run.' || u.state, run_told(r, u.state, u.error), coalesce((r.trigger ->> 'depth')::int, 0)
               from unnest($4::uuid[], $6::run_state[], $9::jsonb[]) as u (id, state, error)
               join runs r on r.id = u.id
               where (select exists (select from schedules where listens is not null)
                       or exists (select from waits where listens is not null))
                   and u.state in ('completed', 'failed', 'cancelled', 'timed_out')
                   and (exists (select from schedules l where l.listens is not null and 'run.' || u.state like l.listens)
                       or exists (select from waits w where w.listens is not null and 'run.' || u.state like w.listens))
           )
           update runs as r set seq = u.seq, state = u.state, open = u.open, output = u.output::jsonb,
               error = coalesce(r.error, u.error), stop_reason = coalesce(r.stop_reason, u.stop_reason),
               started_at = coalesce(r.started_at, t.now),
               finished_at = case when u.state in ('completed', 'failed', 'cancelled', 'timed_out') then t.now end
           from unnest($4::uuid[], $5::bigint[], $6::run_state[], $7::int[], $8::text[], $9::jsonb[], $10::stop_reason[])
                   as u (id, seq, state, open, output, error, stop_reason),
               (select clock_timestamp() as now) as t
           where r.id = u.id"#,
        &jobs.ids,
        &jobs.lanes,
        &jobs.jobs,
        &ids,
        &seqs,
        &states as &[RunState],
        &open,
        &outputs as &[Option<&str>],
        &errors as &[Option<&Value>],
        &reasons as &[Option<StopReason>]
    )
    .execute(&mut *conn)
    .await?;
    let over: Vec<Uuid> = runs
        .iter()
        .filter(|run| run.has_timers && run.state.is_terminal())
        .map(|run| run.id)
        .collect();
    if !over.is_empty() {
        sqlx::query!("delete from timers where run_id = any($1)", &over).execute(conn).await?;
    }
    Ok(())
}

async fn timers(conn: &mut PgConnection, timers: &[TimerRow]) -> Result<(), sqlx::Error> {
    if timers.is_empty() {
        return Ok(());
    }
    let runs: Vec<Uuid> = timers.iter().map(|timer| timer.run).collect();
    let nodes: Vec<&str> = timers.iter().map(|timer| timer.node.as_str()).collect();
    let kinds: Vec<TimerKind> = timers.iter().map(|timer| timer.kind).collect();
    let after: Vec<i64> = timers.iter().map(|timer| timer.after_ms).collect();
    let at: Vec<Option<crate::clock::Instant>> = timers.iter().map(|timer| timer.at).collect();
    let breakers: Vec<Option<&str>> = timers.iter().map(|t| t.breaker.as_deref()).collect();
    sqlx::query!(
        r#"insert into timers (run_id, node, kind, due_at, breaker)
           select i.run_id, i.node, i.kind,
               coalesce(i.at, clock_timestamp() + i.after_ms * interval '1 millisecond'), i.breaker
           from unnest($1::uuid[], $2::text[], $3::timer_kind[], $4::bigint[], $5::timestamptz[], $6::text[])
               as i (run_id, node, kind, after_ms, at, breaker)
           on conflict (run_id, node, kind) do update set due_at = excluded.due_at, breaker = excluded.breaker"#,
        &runs,
        &nodes as &[&str],
        &kinds as &[TimerKind],
        &after,
        &at as &[Option<crate::clock::Instant>],
        &breakers as &[Option<&str>]
    )
    .execute(conn)
    .await?;
    Ok(())
}

async fn attempts(conn: &mut PgConnection, attempts: &[AttemptRow]) -> Result<(), sqlx::Error> {
    if attempts.is_empty() {
        return Ok(());
    }
    let runs: Vec<Uuid> = attempts.iter().map(|attempt| attempt.run).collect();
    let nodes: Vec<&str> = attempts.iter().map(|attempt| attempt.node.as_str()).collect();
    let numbers: Vec<i32> = attempts.iter().map(|attempt| attempt.attempt).collect();
    let owners: Vec<Option<Uuid>> = attempts.iter().map(|attempt| attempt.owner).collect();
    let errors: Vec<&Value> = attempts.iter().map(|attempt| &attempt.error).collect();
    let spent: Vec<bool> = attempts.iter().map(|attempt| attempt.spent).collect();
    let started: Vec<Option<crate::clock::Instant>> =
        attempts.iter().map(|attempt| attempt.started_at).collect();
    sqlx::query!(
        r#"insert into attempts (run_id, node, attempt, owner, error, spent, started_at)
           select * from unnest($1::uuid[], $2::text[], $3::int[], $4::uuid[], $5::jsonb[], $6::bool[], $7::timestamptz[])
           on conflict do nothing"#,
        &runs,
        &nodes as &[&str],
        &numbers,
        &owners as &[Option<Uuid>],
        &errors as &[&Value],
        &spent,
        &started as &[Option<crate::clock::Instant>]
    )
    .execute(conn)
    .await?;
    Ok(())
}
