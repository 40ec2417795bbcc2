//! Queueing anew: what is due, and what was lost on its way.

use std::collections::BTreeMap;

use sqlx::PgConnection;
use uuid::Uuid;

use crate::job::{Job, Reason, Task};
use crate::node_run::NodeState;
use crate::outbox::Row;
use crate::run::RunState;

/// A run whose lock is held until the transaction ends.
#[derive(Debug)]
pub(super) struct LockedRun {
    pub(super) id: Uuid,
    pub(super) state: RunState,
    pub(super) lane: String,
    pub(super) is_queued: bool,
    pub(super) seq: i64,
    pipeline: Option<String>,
    version: Option<i32>,
    traceparent: Option<String>,
}

impl LockedRun {
    pub(super) fn row(&self, lane: &str, task: Task, reason: Reason) -> Row {
        let job = Job {
            id: Uuid::now_v7(),
            task,
            reason,
            pipeline: self.pipeline.clone(),
            version: self.version,
            traceparent: self.traceparent.clone(),
        };
        Row::new(lane, job)
    }
}

/// Locks the runs in the order that all take: by id.
pub(super) async fn lock_runs(
    conn: &mut PgConnection,
    mut ids: Vec<Uuid>,
) -> Result<BTreeMap<Uuid, LockedRun>, sqlx::Error> {
    ids.sort_unstable();
    ids.dedup();
    let runs = sqlx::query_as!(
        LockedRun,
        r#"select id, state as "state: RunState", lane, queued_at is not null as "is_queued!", seq,
                  pipeline, version, traceparent
           from runs where id = any($1) order by id for no key update"#,
        &ids
    )
    .fetch_all(conn)
    .await?;
    Ok(runs.into_iter().map(|run| (run.id, run)).collect())
}

/// A node run that is to be queued, and as what.
#[derive(Debug)]
pub(super) struct ToQueue {
    pub(super) run: Uuid,
    pub(super) node: String,
    pub(super) state: NodeState,
    pub(super) attempt: i32,
    pub(super) lane: String,
}

impl ToQueue {
    /// Sorted by key already, as the statements that read them return them.
    async fn write(
        conn: &mut PgConnection,
        nodes: &[Self],
        seqs: &[i64],
    ) -> Result<(), sqlx::Error> {
        let runs: Vec<Uuid> = nodes.iter().map(|node| node.run).collect();
        let names: Vec<String> = nodes.iter().map(|node| node.node.clone()).collect();
        sqlx::query!(
            "update node_runs n set state = 'queued', queued_at = clock_timestamp(), seq = q.seq
             from unnest($1::uuid[], $2::text[], $3::bigint[]) as q (run_id, node, seq)
             where n.run_id = q.run_id and n.node = q.node",
            &runs,
            &names,
            seqs
        )
        .execute(conn)
        .await?;
        Ok(())
    }
}

/// Queues node runs of locked runs: each change gets a count of its own run's.
pub(super) async fn queue_nodes(
    conn: &mut PgConnection,
    runs: &mut BTreeMap<Uuid, LockedRun>,
    nodes: &[ToQueue],
    reason: impl Fn(&ToQueue) -> Reason,
) -> Result<Vec<Row>, sqlx::Error> {
    if nodes.is_empty() {
        return Ok(Vec::new());
    }
    let mut rows = Vec::with_capacity(nodes.len());
    let mut seqs = Vec::with_capacity(nodes.len());
    let mut changed = BTreeMap::new();
    for node in nodes {
        let run = runs.get_mut(&node.run).ok_or(sqlx::Error::RowNotFound)?;
        run.seq += 1;
        seqs.push(run.seq);
        changed.insert(run.id, run.seq);
        let task =
            Task::NodeExecute { run: node.run, node: node.node.clone(), attempt: node.attempt + 1 };
        rows.push(run.row(&node.lane, task, reason(node)));
    }
    ToQueue::write(conn, nodes, &seqs).await?;
    let (ids, counts): (Vec<Uuid>, Vec<i64>) = changed.into_iter().unzip();
    sqlx::query!(
        "update runs r set seq = c.seq from unnest($1::uuid[], $2::bigint[]) as c (id, seq) where r.id = c.id",
        &ids,
        &counts
    )
    .execute(conn)
    .await?;
    Ok(rows)
}

/// Queues the start of locked runs.
pub(super) async fn queue_starts(
    conn: &mut PgConnection,
    runs: &[&LockedRun],
    reason: Reason,
) -> Result<Vec<Row>, sqlx::Error> {
    if runs.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<Uuid> = runs.iter().map(|run| run.id).collect();
    sqlx::query!("update runs set queued_at = clock_timestamp() where id = any($1)", &ids)
        .execute(conn)
        .await?;
    Ok(runs.iter().map(|run| run.row(&run.lane, Task::RunStart { run: run.id }, reason)).collect())
}
