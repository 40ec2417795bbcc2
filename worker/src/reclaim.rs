//! A job whose node runs are no longer queued: whoever gets the delivery finds what ran under it, and takes over what
//! has lost its worker.

use std::sync::Arc;
use std::time::Duration;

use common::context::RunContext;
use common::store;
use common::store::reclaim::{self, Found, Life, loss};
use uuid::Uuid;

use crate::commit::{Assigned, Settled};
use crate::core::Worker;

/// A lock is freed some 40 ms after a kill: a held one is asked again, so often and so far apart.
const LOOKS: u32 = 14;
const BETWEEN_LOOKS: Duration = Duration::from_millis(150);
/// After a restart of Postgres a living worker takes its lock again within this.
const SECOND_LOOK: Duration = Duration::from_secs(10);

/// Takes over what ran under `job` and has lost its worker. What is left with a living one is that one's.
pub(crate) async fn look(
    worker: &Worker,
    run: Uuid,
    job: Uuid,
) -> Result<Vec<Assigned>, Arc<store::Error>> {
    let mut conn = worker.core.pool.acquire().await?;
    if reclaim::under(&mut conn, run, job).await?.is_empty() {
        tracing::debug!("the job has nothing left to do");
        return Ok(Vec::new());
    }
    let context = match reclaim::context(&mut conn, run, &worker.core.definitions).await? {
        Some(Ok(context)) => context,
        _ => return Ok(Vec::new()),
    };
    let mut taken = Vec::new();
    let mut second = false;
    for _ in 0..LOOKS {
        let (mut alive, mut unsure) = (false, false);
        for found in reclaim::under(&mut conn, run, job).await? {
            match life(worker, &mut conn, &context, &found).await? {
                Some(Life::Dead) => taken.extend(take_over(worker, &context, job, &found).await?),
                Some(Life::Unsure) if second => {
                    taken.extend(take_over(worker, &context, job, &found).await?);
                }
                Some(Life::Unsure) => unsure = true,
                Some(Life::Alive) => alive = true,
                None => {}
            }
        }
        match (unsure, alive && !second) {
            (true, _) => {
                second = true;
                tokio::time::sleep(SECOND_LOOK).await;
            }
            (false, true) => tokio::time::sleep(BETWEEN_LOOKS).await,
            (false, false) => break,
        }
    }
    Ok(taken)
}

/// Whether the owner of what was found lives; none when it is this worker, and executes it. What this worker owns and
/// does not execute is taken over as from the dead.
async fn life(
    worker: &Worker,
    conn: &mut store::Connection,
    context: &RunContext,
    found: &Found,
) -> Result<Option<Life>, store::Error> {
    if found.owner != worker.core.id {
        return reclaim::life(conn, found.owner).await.map(Some);
    }
    let node = context.graph.index(&found.node);
    let executed = node.is_some_and(|node| worker.core.executing.contains(context.id, node));
    Ok((!executed).then_some(Life::Dead))
}

async fn take_over(
    worker: &Worker,
    context: &Arc<RunContext>,
    job: Uuid,
    found: &Found,
) -> Result<Vec<Assigned>, Arc<store::Error>> {
    let Some(record) = loss(context.clone(), found, job, true) else { return Ok(Vec::new()) };
    tracing::info!(node = found.node, attempt = found.attempt, owner = %found.owner, "taking over from a dead worker");
    metrics::counter!("gathering_takeovers_total").increment(1);
    match worker.records.submit(record).await? {
        Settled::Recorded(assigned) => Ok(assigned),
        Settled::Stale => Ok(Vec::new()),
    }
}
