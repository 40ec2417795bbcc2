//! What changed in a run, for those who wait for it or follow it.

use serde::Deserialize;
use serde_json::Value;
use sqlx::PgPool;
use sqlx::types::Json;
use uuid::Uuid;

use crate::clock::Instant;
use crate::node_run::NodeState;
use crate::run::RunState;

/// A run, and what changed in it after some point of its sequence.
#[derive(Debug)]
pub struct Changes {
    /// Where the run stands.
    pub state: RunState,
    /// The count of its changes: at least that of each of its node runs.
    pub seq: i64,
    /// The first failure that was not taken up.
    pub error: Option<Value>,
    /// When it came to its state, if that is noted.
    pub at: Option<Instant>,
    /// The node runs that changed, in the order of their last change.
    pub nodes: Json<Vec<NodeChange>>,
}

/// A node run as its last change left it.
#[derive(Debug, Clone, Deserialize)]
pub struct NodeChange {
    /// The node.
    pub node: String,
    /// Where it stands.
    pub state: NodeState,
    /// The newest attempt.
    pub attempt: i32,
    /// Its error.
    pub error: Option<Value>,
    /// The run's count at this change.
    pub seq: i64,
    /// When it came to its state, if that is noted.
    pub at: Option<Instant>,
}

/// The run as it is, and the node runs that changed after `seq`. Those that are only written down are no change yet.
pub async fn since(pool: &PgPool, run: Uuid, seq: i64) -> Result<Option<Changes>, sqlx::Error> {
    sqlx::query_as!(
        Changes,
        r#"select r.state as "state: RunState", r.seq, r.error,
               coalesce(r.finished_at, case r.state when 'queued' then r.created_at when 'running' then r.started_at end)
                   as at,
               coalesce((
                   select json_agg(json_build_object(
                       'node', n.node, 'state', n.state, 'attempt', n.attempt, 'error', n.error, 'seq', n.seq,
                       'at', coalesce(n.finished_at,
                                      case n.state when 'queued' then n.queued_at when 'running' then n.started_at end))
                       order by n.seq, n.node)
                   from node_runs n where n.run_id = r.id and n.seq > $2 and n.state <> 'pending'
               ), '[]') as "nodes!: Json<Vec<NodeChange>>"
           from runs r where r.id = $1"#,
        run,
        seq,
    )
    .fetch_optional(pool)
    .await
}

/// How far a run is.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// The run.
    pub id: Uuid,
    /// Where it stands.
    pub state: RunState,
    /// The count of its changes.
    pub seq: i64,
}

/// How far these runs are: one query for all that anybody waits for.
pub async fn progress(pool: &PgPool, runs: &[Uuid]) -> Result<Vec<Progress>, sqlx::Error> {
    sqlx::query_as!(
        Progress,
        r#"select id, state as "state: RunState", seq from runs where id = any($1)"#,
        runs,
    )
    .fetch_all(pool)
    .await
}
