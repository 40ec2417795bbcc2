//! One node run, whole, with its attempts.

use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

use crate::clock::Instant;
use crate::node_run::NodeState;

/// A node run.
#[derive(Debug)]
pub struct NodeRun {
    /// Where it stands.
    pub state: NodeState,
    /// Its lane.
    pub lane: String,
    /// The newest attempt; 0 before the first.
    pub attempt: i32,
    /// Its output, whole.
    pub output: Option<Value>,
    /// What it waits for, while it waits.
    pub waiting: Option<Value>,
    /// Its error.
    pub error: Option<Value>,
    /// When its newest job was sent.
    pub queued_at: Option<Instant>,
    /// When its newest attempt began.
    pub started_at: Option<Instant>,
    /// When it ended.
    pub finished_at: Option<Instant>,
}

/// An attempt that ended without completing its node run.
#[derive(Debug)]
pub struct Attempt {
    /// Its number.
    pub attempt: i32,
    /// How it failed.
    pub error: Value,
    /// Whether it counted against `max_attempts`.
    pub spent: bool,
    /// When it began.
    pub started_at: Option<Instant>,
    /// When it ended.
    pub finished_at: Instant,
}

/// The node run; none before the run is started.
pub async fn read(pool: &PgPool, run: Uuid, node: &str) -> Result<Option<NodeRun>, sqlx::Error> {
    sqlx::query_as!(
        NodeRun,
        r#"select state as "state: NodeState", lane, attempt, output, error, queued_at, started_at, finished_at,
               case when state = 'waiting' then shown_wait(run_id, node) end as waiting
           from node_runs where run_id = $1 and node = $2"#,
        run,
        node,
    )
    .fetch_optional(pool)
    .await
}

/// Its attempts that are over, first to last.
pub async fn attempts(pool: &PgPool, run: Uuid, node: &str) -> Result<Vec<Attempt>, sqlx::Error> {
    sqlx::query_as!(
        Attempt,
        "select attempt, error, spent, started_at, finished_at
         from attempts where run_id = $1 and node = $2 order by attempt",
        run,
        node,
    )
    .fetch_all(pool)
    .await
}
