//! *Execute this node run*: a claim makes it running, raises its attempt, and names its owner and its job.

use std::sync::Arc;

use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::context::{RunContext, RunRow};
use crate::graph::NodeIx;
use crate::store::definitions::Definitions;

/// A node run that this worker owns, and has to bring to an end.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// Its run.
    pub context: Arc<RunContext>,
    /// The node.
    pub node: NodeIx,
    /// The fence: what is recorded must name it.
    pub attempt: i32,
    /// Attempts that counted so far.
    pub spent: i32,
    /// Workers that died under it so far.
    pub losses: i32,
    /// What it has waited for, when it is resumed.
    pub waiting: Option<Value>,
    /// The job under which it runs.
    pub job: Uuid,
}

impl Claimed {
    /// The node's id.
    pub fn id(&self) -> &str {
        &self.context.graph.node(self.node).node.id
    }
}

/// What a message asked for.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The run.
    pub run: Uuid,
    /// The node.
    pub node: String,
    /// The attempt that the claim creates.
    pub attempt: i32,
    /// The job that asks.
    pub job: Uuid,
}

/// What came of a claim.
#[derive(Debug, Clone)]
pub enum ClaimAnswer {
    /// The node run is this worker's.
    Claimed(Claimed),
    /// It is not queued for that attempt: claimed by another, over, or unknown.
    NotQueued,
    /// The run's definition cannot run here; the sentence says why.
    Unreadable(String),
}

/// Claims by key, so that two batches never lock in different orders, each with its place among those of its run. Of
/// several for one node run the last attempt counts.
fn ordered(claims: &[Claim]) -> Vec<(&Claim, i64)> {
    let mut asked: Vec<&Claim> = claims.iter().collect();
    asked.sort_by(|a, b| (a.run, &a.node, b.attempt).cmp(&(b.run, &b.node, a.attempt)));
    asked.dedup_by(|later, kept| later.run == kept.run && later.node == kept.node);
    let mut count = 0;
    let mut run = None;
    let numbered = asked.into_iter().map(|claim| {
        count = if run == Some(claim.run) { count + 1 } else { 1 };
        run = Some(claim.run);
        (claim, count)
    });
    numbered.collect()
}

/// Claims what is still queued for the attempt asked for. One statement: it locks the runs, so that each change has
/// its place in the run's count, and the guard is checked on the rows as they are then.
pub async fn claim(
    conn: &mut PgConnection,
    claims: &[Claim],
    owner: Uuid,
    definitions: &Definitions,
) -> Result<Vec<ClaimAnswer>, sqlx::Error> {
    let asked = ordered(claims);
    let runs: Vec<Uuid> = asked.iter().map(|(claim, _)| claim.run).collect();
    let nodes: Vec<&str> = asked.iter().map(|(claim, _)| claim.node.as_str()).collect();
    let attempts: Vec<i32> = asked.iter().map(|(claim, _)| claim.attempt).collect();
    let jobs: Vec<Uuid> = asked.iter().map(|(claim, _)| claim.job).collect();
    let counts: Vec<i64> = asked.iter().map(|(_, count)| *count).collect();
    let rows = sqlx::query!(
        r#"with numbered as (
               select a.run_id, a.node, a.attempt, a.job_id, r.seq + a.count as seq
               from unnest($1::uuid[], $2::text[], $3::int[], $4::uuid[], $6::bigint[])
                   as a (run_id, node, attempt, job_id, count)
               join runs as r on r.id = a.run_id
               where r.state = 'running' order by a.run_id for no key update of r
           ),
           claimed as (
               update node_runs as n set state = 'running', attempt = u.attempt, owner = $5, job_id = u.job_id,
                   started_at = clock_timestamp(), seq = u.seq
               from numbered as u
               where n.run_id = u.run_id and n.node = u.node and n.state = 'queued' and n.attempt = u.attempt - 1
               returning n.run_id, n.node, n.attempt, n.spent, n.losses, n.waiting, n.job_id, n.seq
           ),
           counted as (
               update runs as r set seq = c.seq from (select run_id, max(seq) as seq from claimed group by run_id) as c
               where r.id = c.run_id
           )
           select c.node, c.attempt, c.spent, c.losses, c.waiting, c.job_id as "job_id!", r.id, r.pipeline_id, r.pipeline,
               r.version, r.action, r.input, r.trigger, r.tags, r.created_at, r.traceparent
           from claimed as c join runs as r on r.id = c.run_id"#,
        &runs,
        &nodes as &[&str],
        &attempts,
        &jobs,
        owner,
        &counts
    )
    .fetch_all(&mut *conn)
    .await?;
    let mut answers: Vec<ClaimAnswer> = claims.iter().map(|_| ClaimAnswer::NotQueued).collect();
    for row in rows {
        let asked = claims.iter().position(|claim| {
            claim.run == row.id && claim.job == row.job_id && claim.node == row.node
        });
        let Some(place) = asked else { continue };
        let run = RunRow {
            id: row.id,
            pipeline_id: row.pipeline_id,
            pipeline: row.pipeline,
            version: row.version,
            action: row.action,
            input: row.input,
            trigger: row.trigger,
            tags: row.tags,
            created_at: row.created_at,
            traceparent: row.traceparent,
        };
        answers[place] = match definitions.context(conn, run).await? {
            Err(why) => ClaimAnswer::Unreadable(why),
            Ok(context) => match context.graph.index(&row.node) {
                None => ClaimAnswer::Unreadable(format!("node {:?} is not defined", row.node)),
                Some(node) => ClaimAnswer::Claimed(Claimed {
                    context,
                    node,
                    attempt: row.attempt,
                    spent: row.spent,
                    losses: row.losses,
                    waiting: row.waiting,
                    job: row.job_id,
                }),
            },
        };
    }
    Ok(answers)
}
