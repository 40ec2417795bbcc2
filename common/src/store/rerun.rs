//! A rerun *from what failed*: what completed, and depends on nothing that did not, is kept.

use std::collections::HashSet;

use sqlx::PgConnection;
use uuid::Uuid;

use crate::context::RunContext;
use crate::graph::{Graph, NodeIx};

/// The completed nodes that have no uncompleted ancestor.
pub fn kept(graph: &Graph, completed: &HashSet<NodeIx>) -> HashSet<NodeIx> {
    let mut kept = HashSet::new();
    for &node in graph.order() {
        let from_kept =
            graph.incoming(node).iter().all(|edge| kept.contains(&graph.edge(*edge).from));
        if completed.contains(&node) && from_kept {
            kept.insert(node);
        }
    }
    kept
}

/// Copies what is kept of `source` into the run that repeats it, and says which nodes these are.
pub async fn copy_completed(
    conn: &mut PgConnection,
    context: &RunContext,
    source: Uuid,
) -> Result<HashSet<NodeIx>, sqlx::Error> {
    let ids = sqlx::query_scalar!(
        "select node from node_runs where run_id = $1 and state = 'completed'",
        source
    )
    .fetch_all(&mut *conn)
    .await?;
    let completed = ids.iter().filter_map(|id| context.graph.index(id)).collect();
    let kept = kept(&context.graph, &completed);
    let ids: Vec<String> =
        kept.iter().map(|node| context.graph.node(*node).node.id.clone()).collect();
    sqlx::query!(
        r#"insert into node_runs (run_id, node, state, lane, attempt, spent, losses, owner, output, seq, queued_at,
               started_at, finished_at)
           select $1, node, state, lane, attempt, spent, losses, owner, output, 1, queued_at, started_at, finished_at
           from node_runs where run_id = $2 and node = any($3)"#,
        context.id,
        source,
        &ids
    )
    .execute(conn)
    .await?;
    Ok(kept)
}
