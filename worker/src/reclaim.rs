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
    let Some(context) = context(worker, run, job).await? else { return Ok(Vec::new()) };
    let mut taken = Vec::new();
    let mut second = false;
    for _ in 0..LOOKS {
        let (unsure, alive) = match take_dead(worker, &context, job, second, &mut taken).await {
            Ok(left) => left,
            // What was taken is executed; the audit finds the rest.
            Err(error) if !taken.is_empty() => {
                tracing::warn!(%error, "not all that ran under the job could be looked at");
                break;
            }
            Err(error) => return Err(error),
        };
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

/// The run's context, if anything runs under the job. A run whose definition cannot be read any more is broken off.
async fn context(
    worker: &Worker,
    run: Uuid,
    job: Uuid,
) -> Result<Option<Arc<RunContext>>, Arc<store::Error>> {
    let found = {
        let mut conn = worker.core.pool.acquire().await?;
        if reclaim::under(&mut conn, run, job).await?.is_empty() {
            tracing::debug!("the job has nothing left to do");
            return Ok(None);
        }
        reclaim::context(&mut conn, run, &worker.core.definitions).await?
    };
    match found {
        Some(Ok(context)) => Ok(Some(context)),
        Some(Err(why)) => crate::intake::break_off(worker, run, &why).await.map(|()| None),
        None => Ok(None),
    }
}

/// Takes over from the dead; says whether it is unsure of an owner, and whether one lives. No connection is held while
/// what was found is recorded: the recorder needs one, too.
async fn take_dead(
    worker: &Worker,
    context: &Arc<RunContext>,
    job: Uuid,
    second: bool,
    taken: &mut Vec<Assigned>,
) -> Result<(bool, bool), Arc<store::Error>> {
    let seen = {
        let mut conn = worker.core.pool.acquire().await?;
        let mut seen = Vec::new();
        for found in reclaim::under(&mut conn, context.id, job).await? {
            let life = life(worker, &mut conn, context, &found).await?;
            seen.push((found, life));
        }
        seen
    };
    let (mut unsure, mut alive) = (false, false);
    for (found, life) in seen {
        match life {
            Some(Life::Unsure) if !second => unsure = true,
            Some(Life::Dead | Life::Unsure) => {
                taken.extend(take_over(worker, context, job, &found).await?);
            }
            Some(Life::Alive) => alive = true,
            None => {}
        }
    }
    Ok((unsure, alive))
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
    let executed =
        node.is_some_and(|node| worker.core.executing.contains(context.id, node, found.attempt));
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
    match worker.record(record).await? {
        Settled::Recorded(assigned) => Ok(assigned),
        Settled::Stale => Ok(Vec::new()),
    }
}
