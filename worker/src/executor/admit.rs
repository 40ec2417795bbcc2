//! The breaker of a node, if it has one: asked before an attempt, told after it.

use std::sync::Arc;
use std::time::Duration;

use common::failure::{ErrorKind, NodeError};
use common::pipeline::Breaker;
use common::store::breakers::{self, Admission};
use common::store::claim::Claimed;
use common::store::record::Outcome;
use tools::Failure;
use uuid::Uuid;

use super::perform::Ended;
use crate::core::Worker;

/// How long after a node's time-out a probe is taken for lost.
const PROBE_SLACK: Duration = Duration::from_secs(30);

fn breaker(claimed: &Claimed) -> Option<(Uuid, &Breaker)> {
    let breaker = claimed.context.graph.node(claimed.node).node.breaker.as_ref()?;
    claimed.context.pipeline_id.map(|pipeline| (pipeline, breaker))
}

/// Whether the attempt may be made; else it waits, unspent, for the breaker.
pub(super) async fn admit(worker: &Arc<Worker>, claimed: &Claimed) -> Result<Admission, Outcome> {
    let Some((pipeline, breaker)) = breaker(claimed) else { return Ok(Admission::Closed) };
    let patience = claimed.context.graph.node(claimed.node).node.timeout + PROBE_SLACK;
    let asked = async {
        let mut conn = worker.core.pool.acquire().await?;
        breakers::admit(&mut conn, pipeline, claimed.id(), breaker, patience).await
    };
    match asked.await {
        Ok(Admission::Open(after)) => Err(Outcome::Retry {
            error: NodeError::new(ErrorKind::Retryable, "the breaker is open", claimed.id()),
            after,
            spent: false,
            breaker: Some(breakers::key(pipeline, claimed.id())),
        }),
        Ok(admission) => Ok(admission),
        Err(error) => {
            tracing::warn!(%error, "the breaker could not be asked; the attempt is made");
            Ok(Admission::Closed)
        }
    }
}

/// Tells the breaker how the attempt ended.
pub(super) async fn report(
    worker: &Arc<Worker>,
    claimed: &Claimed,
    admission: Admission,
    result: &Result<serde_json::Value, Ended>,
) {
    let Some((pipeline, breaker)) = breaker(claimed) else { return };
    let told = async {
        let mut conn = worker.core.pool.acquire().await?;
        match result {
            Ok(_) | Err(Ended::Failed(Failure::Permanent { .. })) => {
                breakers::succeeded(&mut conn, pipeline, claimed.id()).await
            }
            Err(
                Ended::Failed(Failure::Retryable { .. })
                | Ended::TimedOut
                | Ended::TimedOutWaiting(_),
            ) => {
                let probe = admission == Admission::Probe;
                breakers::failed(&mut conn, pipeline, claimed.id(), breaker, probe).await
            }
            // Nothing was learnt; another attempt may be the probe.
            Err(_) if admission == Admission::Probe => {
                breakers::release(&mut conn, pipeline, claimed.id()).await
            }
            Err(_) => Ok(()),
        }
    };
    if let Err(error) = told.await {
        tracing::warn!(%error, "the breaker could not be told");
    }
}
