//! A job whose node runs are no longer queued: whoever gets the delivery finds what ran under it, and takes over what
//! has lost its worker.

use std::sync::Arc;
use std::time::Duration;

use common::context::RunContext;
use common::store;
use common::store::reclaim::{self, Found, loss};
use common::takeover::{Holder, OnFound, on_found};
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
        let (unsure, ask_again) = match take_dead(worker, &context, job, second, &mut taken).await {
            Ok(left) => left,
            // What was taken is executed; the audit finds the rest.
            Err(error) if !taken.is_empty() => {
                tracing::warn!(%error, "not all that ran under the job could be looked at");
                break;
            }
            Err(error) => return Err(error),
        };
        match (unsure, ask_again) {
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

/// Takes over from the dead; says whether an owner is to be looked at twice, and whether one is to be asked again. No
/// connection is held while what was found is recorded: the recorder needs one, too.
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
            let holder = holder(worker, &mut conn, context, &found).await?;
            seen.push((found, holder));
        }
        seen
    };
    let (mut unsure, mut ask_again) = (false, false);
    for (found, holder) in seen {
        match on_found(holder, second) {
            OnFound::TakeOver => taken.extend(take_over(worker, context, job, &found).await?),
            OnFound::LookTwice => unsure = true,
            OnFound::AskAgain => ask_again = true,
            OnFound::Leave => {}
        }
    }
    Ok((unsure, ask_again))
}

/// Whose it is. What this worker owns and does not execute is nobody's.
async fn holder(
    worker: &Worker,
    conn: &mut store::Connection,
    context: &RunContext,
    found: &Found,
) -> Result<Holder, store::Error> {
    if found.owner != worker.core.id {
        return reclaim::life(conn, found.owner).await.map(Holder::There);
    }
    let node = context.graph.index(&found.node);
    let executing =
        node.is_some_and(|node| worker.core.executing.contains(context.id, node, found.attempt));
    Ok(Holder::Here { executing })
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
