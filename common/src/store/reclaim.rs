//! What becomes of node runs whose worker may have died: one rule, for take-over and for the audit.

use std::sync::Arc;

use sqlx::PgConnection;
use uuid::Uuid;

use crate::context::{RunContext, RunRow};
use crate::failure::{ErrorKind, NodeError};
use crate::store::definitions::Definitions;
use crate::store::follow::Keeping;
use crate::store::record::{Outcome, Record, Recorded, record};
use crate::store::stop;

pub use crate::takeover::{LOST_PAUSE, Life, MAX_LOSSES, Recovery, recovery, runs_alone};

/// Asks for a worker's lock: shared, so that askers do not hide from each other, and for this statement only.
pub async fn life(conn: &mut PgConnection, worker: Uuid) -> Result<Life, sqlx::Error> {
    let row = sqlx::query!(
        r#"select pg_try_advisory_xact_lock_shared(lock_key) as "free!",
               pg_postmaster_start_time() > locked_at and stopped_at is null as "restarted!"
           from workers where id = $1"#,
        worker
    )
    .fetch_optional(conn)
    .await?;
    Ok(match row {
        Some(row) if !row.free => Life::Alive,
        Some(row) if row.restarted => Life::Unsure,
        _ => Life::Dead,
    })
}

/// A node run that is running.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its node.
    pub node: String,
    /// Its attempt.
    pub attempt: i32,
    /// Workers that died under it.
    pub losses: i32,
    /// The worker that claimed it.
    pub owner: Uuid,
}

/// What runs under a job.
pub async fn under(
    conn: &mut PgConnection,
    run: Uuid,
    job: Uuid,
) -> Result<Vec<Found>, sqlx::Error> {
    sqlx::query_as!(
        Found,
        r#"select node, attempt, losses, owner as "owner!" from node_runs
           where run_id = $1 and job_id = $2 and state = 'running' order by node"#,
        run,
        job
    )
    .fetch_all(conn)
    .await
}

/// The context of a run that goes on; none when there is no such run. The inner error says why it cannot go on here.
pub async fn context(
    conn: &mut PgConnection,
    run: Uuid,
    definitions: &Definitions,
) -> Result<Option<Result<Arc<RunContext>, String>>, sqlx::Error> {
    let row = sqlx::query_as!(
        RunRow,
        "select id, pipeline_id, pipeline, version, action, input, trigger, tags, created_at, traceparent
         from runs where id = $1",
        run
    )
    .fetch_optional(&mut *conn)
    .await?;
    match row {
        None => Ok(None),
        Some(row) => definitions.context(conn, row).await.map(Some),
    }
}

/// The record that moves on a node run whose worker died; `take` by whoever asks, else it is queued anew.
pub fn loss(context: Arc<RunContext>, found: &Found, job: Uuid, take: bool) -> Option<Record> {
    let node = context.graph.index(&found.node)?;
    let error = NodeError::new(
        ErrorKind::WorkerLost,
        format!("the worker {} died under attempt {}", found.owner, found.attempt),
        &found.node,
    );
    let on_worker_lost = context.graph.node(node).node.on_worker_lost;
    let outcome = match recovery(found.losses, on_worker_lost) {
        Recovery::Again if take => Outcome::TakenOver { error },
        Recovery::Again => Outcome::Requeued { error },
        Recovery::Later => Outcome::LostForNow { error, after: LOST_PAUSE },
        Recovery::Fail => Outcome::Lost { error },
    };
    Some(Record {
        context,
        node,
        attempt: found.attempt,
        job,
        outcome,
        verdicts: Vec::new(),
        goes_on: false,
    })
}

/// Moves on node runs whose worker is known to be dead, within the caller's transaction: queued anew, put off, or
/// failed. The jobs that it returns are to be published after the commit.
pub async fn recover(
    conn: &mut PgConnection,
    lost: &[(Uuid, Found)],
    definitions: &Definitions,
) -> Result<Recorded, sqlx::Error> {
    let mut records = Vec::new();
    let mut contexts: std::collections::HashMap<Uuid, Arc<RunContext>> = Default::default();
    for (run, found) in lost {
        let known = match contexts.get(run) {
            Some(context) => Some(context.clone()),
            None => match context(conn, *run, definitions).await? {
                Some(Ok(context)) => Some(context),
                Some(Err(why)) => {
                    stop::break_off(conn, *run, &why).await?;
                    None
                }
                None => None,
            },
        };
        if let Some(context) = known {
            contexts.insert(*run, context.clone());
            records.extend(loss(context, found, Uuid::nil(), false));
        }
    }
    let keeping =
        Keeping { owner: None, serves: &|_: &str| false, quick: &|_: &RunContext, _| false };
    record(conn, &records.into_iter().map(Arc::new).collect::<Vec<_>>(), keeping, 0).await
}
