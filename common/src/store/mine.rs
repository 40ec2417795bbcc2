//! After a commit whose answer was lost, a worker reads what it owns, and goes on from what it finds.

use std::sync::Arc;

use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::context::RunContext;
use crate::store::claim::Claimed;

/// The node runs of a run that `owner` runs under `job`.
pub async fn running(
    conn: &mut PgConnection,
    context: &Arc<RunContext>,
    job: Uuid,
    owner: Uuid,
) -> Result<Vec<Claimed>, sqlx::Error> {
    struct Row {
        node: String,
        attempt: i32,
        spent: i32,
        losses: i32,
        waiting: Option<Value>,
    }
    let rows = sqlx::query_as!(
        Row,
        "select node, attempt, spent, losses, waiting from node_runs
         where run_id = $1 and job_id = $2 and owner = $3 and state = 'running'",
        context.id,
        job,
        owner
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .filter_map(|row| {
            Some(Claimed {
                node: context.graph.index(&row.node)?,
                context: context.clone(),
                attempt: row.attempt,
                spent: row.spent,
                losses: row.losses,
                waiting: row.waiting,
                job,
            })
        })
        .collect())
}

/// Whether the last thing that happened to a node run was done under `attempt` by `owner`.
pub async fn was_moved(
    conn: &mut PgConnection,
    run: Uuid,
    node: &str,
    attempt: i32,
    owner: Uuid,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select exists (
               select from node_runs where run_id = $1 and node = $2 and attempt = $3 and owner = $4
           ) as "moved!""#,
        run,
        node,
        attempt,
        owner
    )
    .fetch_one(conn)
    .await
}
