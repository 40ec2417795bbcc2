//! The guarded update: only node runs whose fence holds are moved on, and only what it returns counts.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{LockedRun, Outcome, Record, next_state};
use crate::advance::Join;
use crate::clock::Instant;
use crate::graph::NodeIx;
use crate::node_run::NodeState;
use crate::run::RunState;

/// What the update found.
pub(super) struct Guarded {
    /// An item a record: the node run as it was, where the fence held.
    pub(super) held: Vec<Option<Held>>,
    /// Counters of the joins that the records lead to.
    pub(super) joins: HashMap<(Uuid, NodeIx), Join>,
}

/// A node run whose fence held.
#[derive(Debug, Clone)]
pub(super) struct Held {
    /// Where it stands now.
    pub(super) state: NodeState,
    pub(super) attempt: i32,
    pub(super) spent: i32,
    pub(super) losses: i32,
    pub(super) waiting: Option<Value>,
    pub(super) owner: Option<Uuid>,
    pub(super) started_at: Option<Instant>,
}

#[derive(Default)]
struct Columns {
    runs: Vec<Uuid>,
    nodes: Vec<String>,
    attempts: Vec<i32>,
    states: Vec<NodeState>,
    spent: Vec<i32>,
    losses: Vec<i32>,
    owners: Vec<Option<Uuid>>,
    jobs: Vec<Option<Uuid>>,
    outputs: Vec<Option<String>>,
    errors: Vec<Option<Value>>,
    waiting: Vec<Option<Value>>,
    seqs: Vec<i64>,
}

/// Writes the outcomes, and reads the counters of the joins concerned, in one statement.
pub(super) async fn guard(
    conn: &mut PgConnection,
    records: &[Arc<Record>],
    runs: &mut HashMap<Uuid, LockedRun>,
    owner: Option<Uuid>,
) -> Result<Guarded, sqlx::Error> {
    let order = order(records, runs);
    let columns = columns(records, &order, runs, owner);
    let (join_runs, join_nodes) = joins(records, &order);
    let rows = sqlx::query!(
        r#"with done as (
               update node_runs as n set state = u.state,
                   attempt = n.attempt + case when u.state = 'running' then 1 else 0 end,
                   spent = n.spent + u.spent, losses = n.losses + u.losses,
                   owner = coalesce(u.owner, n.owner), job_id = coalesce(u.job_id, n.job_id),
                   output = u.output::jsonb, error = u.error, waiting = coalesce(u.waiting, n.waiting), seq = u.seq,
                   queued_at = case when u.state = 'queued' then t.now else n.queued_at end,
                   started_at = case when u.state = 'running' then t.now else n.started_at end,
                   finished_at = case when u.state in ('completed', 'failed', 'cancelled') then t.now end
               from unnest($1::uuid[], $2::text[], $3::int[], $4::node_state[], $5::int[], $6::int[], $7::uuid[],
                       $8::uuid[], $9::text[], $10::jsonb[], $11::jsonb[], $12::bigint[])
                   as u (run_id, node, attempt, state, spent, losses, owner, job_id, output, error, waiting, seq),
                   (select clock_timestamp() as now) as t
               where n.run_id = u.run_id and n.node = u.node and n.state = 'running' and n.attempt = u.attempt
               returning n.run_id, n.node, n.state, u.attempt, n.spent, n.losses, n.waiting, n.owner, n.started_at
           )
           select true as "done!", run_id as "run_id!", node as "node!", state as "state!: NodeState",
               attempt as "attempt!", spent as "spent!", losses as "losses!", waiting, owner, started_at,
               0 as "open_in!", false as "taken_in!", false as "broken_in!", null::jsonb as error
           from done
           union all
           select false, n.run_id, n.node, n.state, n.attempt, n.spent, n.losses, null::jsonb, null::uuid, null::timestamptz,
               n.open_in, n.taken_in,
               n.broken_in, n.error
           from unnest($13::uuid[], $14::text[]) as j (run_id, node)
           join node_runs as n on n.run_id = j.run_id and n.node = j.node
           where n.state = 'pending'"#,
        &columns.runs,
        &columns.nodes,
        &columns.attempts,
        &columns.states as &[NodeState],
        &columns.spent,
        &columns.losses,
        &columns.owners as &[Option<Uuid>],
        &columns.jobs as &[Option<Uuid>],
        &columns.outputs as &[Option<String>],
        &columns.errors as &[Option<Value>],
        &columns.waiting as &[Option<Value>],
        &columns.seqs,
        &join_runs,
        &join_nodes
    )
    .fetch_all(conn)
    .await?;
    let places: HashMap<(Uuid, &str, i32), usize> = order
        .iter()
        .map(|&place| {
            ((records[place].context.id, id(&records[place]), records[place].attempt), place)
        })
        .collect();
    let mut guarded = Guarded { held: vec![None; records.len()], joins: HashMap::new() };
    let contexts: HashMap<Uuid, &Record> =
        records.iter().map(|record| (record.context.id, record.as_ref())).collect();
    for row in rows {
        if row.done {
            let place = places.get(&(row.run_id, row.node.as_str(), row.attempt));
            if let Some(held) = place.and_then(|place| guarded.held.get_mut(*place)) {
                *held = Some(Held {
                    state: row.state,
                    attempt: row.attempt,
                    spent: row.spent,
                    losses: row.losses,
                    waiting: row.waiting,
                    owner: row.owner,
                    started_at: row.started_at,
                });
            }
        } else if let Some(node) =
            contexts.get(&row.run_id).and_then(|record| record.context.graph.index(&row.node))
        {
            let join = Join {
                open: row.open_in,
                taken: row.taken_in,
                broken: row.broken_in,
                error: row.error.and_then(|error| serde_json::from_value(error).ok()),
            };
            guarded.joins.insert((row.run_id, node), join);
        }
    }
    Ok(guarded)
}

/// Who executed a node run, and since when, by run and node.
pub(super) type Executed = HashMap<(Uuid, String), (Option<Uuid>, Option<Instant>)>;

/// Who executed what has lost its worker, and since when: the update overwrites it.
pub(super) async fn lost(
    conn: &mut PgConnection,
    records: &[Arc<Record>],
) -> Result<Executed, sqlx::Error> {
    let losses = records.iter().filter(|record| record.outcome.is_loss());
    let (runs, nodes): (Vec<Uuid>, Vec<String>) =
        losses.map(|record| (record.context.id, id(record).to_owned())).unzip();
    if runs.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = sqlx::query!(
        "select n.run_id, n.node, n.owner, n.started_at from unnest($1::uuid[], $2::text[]) as u (run_id, node)
         join node_runs as n on n.run_id = u.run_id and n.node = u.node",
        &runs,
        &nodes
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| ((row.run_id, row.node), (row.owner, row.started_at))).collect())
}

fn id(record: &Record) -> &str {
    &record.context.graph.node(record.node).node.id
}

/// The records of runs that go on, by key, each node run once: two batches never lock in different orders.
fn order(records: &[Arc<Record>], runs: &HashMap<Uuid, LockedRun>) -> Vec<usize> {
    let mut order: Vec<usize> = (0..records.len())
        .filter(|&place| {
            runs.get(&records[place].context.id).is_some_and(|run| !run.state.is_terminal())
        })
        .collect();
    order.sort_by(|&a, &b| {
        let key = |record: &'_ Record| (record.context.id, -record.attempt);
        let (a, b) = (&records[a], &records[b]);
        (key(a).0, id(a), key(a).1).cmp(&(key(b).0, id(b), key(b).1))
    });
    order.dedup_by(|a, b| {
        records[*a].context.id == records[*b].context.id && records[*a].node == records[*b].node
    });
    order
}

fn columns(
    records: &[Arc<Record>],
    order: &[usize],
    runs: &mut HashMap<Uuid, LockedRun>,
    owner: Option<Uuid>,
) -> Columns {
    let mut columns = Columns::default();
    for record in order.iter().map(|&place| records[place].as_ref()) {
        let Some(run) = runs.get_mut(&record.context.id) else { continue };
        run.seq += 1;
        let state = next_state(&record.outcome, run.state == RunState::Cancelling);
        let taken_over = state == NodeState::Running;
        columns.runs.push(record.context.id);
        columns.nodes.push(id(record).to_owned());
        columns.attempts.push(record.attempt);
        columns.states.push(state);
        columns.spent.push(record.outcome.is_spent().into());
        columns.losses.push(record.outcome.is_loss().into());
        columns.owners.push(owner.filter(|_| taken_over));
        columns.jobs.push(taken_over.then_some(record.job));
        columns.outputs.push(match &record.outcome {
            Outcome::Completed { text, .. } => Some(text.clone()),
            _ => None,
        });
        let error = record.outcome.error().filter(|_| !taken_over && state != NodeState::Queued);
        columns.errors.push(error.and_then(|error| serde_json::to_value(error).ok()));
        columns.waiting.push(match &record.outcome {
            Outcome::Waiting { waiting, .. } => Some(waiting.clone()),
            Outcome::Awaiting { wait } => Some(wait.mark()),
            _ => None,
        });
        columns.seqs.push(run.seq);
    }
    columns
}

/// The successors of ending nodes that have more than one incoming edge: their counters are needed.
fn joins(records: &[Arc<Record>], order: &[usize]) -> (Vec<Uuid>, Vec<String>) {
    let mut seen = HashSet::new();
    let mut joins = (Vec::new(), Vec::new());
    for record in order.iter().map(|&place| records[place].as_ref()) {
        if record.outcome.end().is_none() {
            continue;
        }
        let graph = &record.context.graph;
        for edge in graph.outgoing(record.node) {
            let target = graph.edge(*edge).to;
            if graph.incoming(target).len() > 1 && seen.insert((record.context.id, target)) {
                joins.0.push(record.context.id);
                joins.1.push(graph.node(target).node.id.clone());
            }
        }
    }
    joins
}
