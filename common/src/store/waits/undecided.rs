//! What people are to decide.

use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

use crate::clock::Instant;

/// A node run that waits for a decision.
#[derive(Debug)]
pub struct Undecided {
    /// Its run.
    pub run: Uuid,
    /// Its node.
    pub node: String,
    /// The run's pipeline.
    pub pipeline: Option<String>,
    /// What it asks, and whom.
    pub spec: Value,
    /// When nobody needs to decide any more.
    pub deadline_at: Option<Instant>,
    /// Since when it waits.
    pub created_at: Instant,
}

/// A page, oldest runs first, after `after`.
pub async fn list(
    pool: &PgPool,
    after: Option<(Uuid, String)>,
    limit: i64,
) -> Result<Vec<Undecided>, sqlx::Error> {
    let (run, node) = after.unzip();
    sqlx::query_as!(
        Undecided,
        "select w.run_id as run, w.node, r.pipeline, w.spec, w.deadline_at, w.created_at
         from waits as w join runs as r on r.id = w.run_id
         where w.kind = 'approval' and w.answer is null
             and ($1::uuid is null or (w.run_id, w.node) > ($1, $2::text))
         order by w.run_id, w.node limit $3",
        run,
        node,
        limit
    )
    .fetch_all(pool)
    .await
}
