//! From how a node ended to what is recorded: completed, tried again, failed, waiting, stopped.

use std::sync::Arc;
use std::time::Duration;

use common::failure::{ErrorKind, NodeError};
use common::pipeline::OnWorkerLost;
use common::problem::unstorable;
use common::store::claim::Claimed;
use common::store::outputs;
use common::store::record::Outcome;
use common::wait::Wait;
use serde_json::Value;
use tools::Failure;

use super::perform::Ended;
use crate::core::Worker;
use crate::registry::{Stop, Why};

/// The largest output, as JSON text, in bytes.
pub(super) const LARGEST_OUTPUT: usize = 16 * 1024 * 1024;

/// Decides what is recorded.
pub(super) async fn classify(
    worker: &Arc<Worker>,
    claimed: &Claimed,
    stop: &Stop,
    result: Result<Value, Ended>,
) -> Outcome {
    match result {
        Ok(output) => completed(claimed, output),
        Err(Ended::Waits { waiting, after, at }) => Outcome::Waiting { waiting, after, at },
        Err(Ended::Awaits(wait)) => awaiting(claimed, wait),
        Err(Ended::Stopped | Ended::Failed(Failure::Cancelled)) => stopped(claimed, stop),
        Err(Ended::Failed(Failure::Permanent { message }) | Ended::Unprepared(message)) => {
            let error = NodeError::new(ErrorKind::Permanent, message, claimed.id());
            Outcome::Failed { error, spent: true }
        }
        Err(Ended::Failed(Failure::Retryable { message, retry_after })) => {
            let error = NodeError::new(ErrorKind::Retryable, message, claimed.id());
            again(worker, claimed, error, retry_after).await
        }
        Err(Ended::Expired(message)) => {
            let error = NodeError::new(ErrorKind::TimedOut, message, claimed.id());
            Outcome::Failed { error, spent: true }
        }
        Err(Ended::TimedOutWaiting(message)) => {
            let error = NodeError::new(ErrorKind::TimedOut, message, claimed.id());
            again(worker, claimed, error, None).await
        }
        Err(Ended::TimedOut) => {
            let timeout = claimed.context.graph.node(claimed.node).node.timeout;
            let message = format!("it took longer than its time-out of {timeout:?}");
            let error = NodeError::new(ErrorKind::TimedOut, message, claimed.id());
            again(worker, claimed, error, None).await
        }
    }
}

/// What it waits for is stored, as outputs are.
fn awaiting(claimed: &Claimed, wait: Box<Wait>) -> Outcome {
    let inputs = wait.children.iter().flat_map(|children| &children.inputs);
    let Some(pointer) = inputs.chain([&wait.spec]).find_map(unstorable) else {
        return Outcome::Awaiting { wait: Arc::from(wait) };
    };
    let message = format!(
        "what it waits for, or hands on, has a null character at {pointer:?}, which Postgres cannot hold"
    );
    let error = NodeError::new(ErrorKind::Permanent, message, claimed.id());
    Outcome::Failed { error, spent: true }
}

fn completed(claimed: &Claimed, output: Value) -> Outcome {
    let text = output.to_string();
    let refused = match unstorable(&output) {
        Some(pointer) => Some(format!(
            "the output has a null character at {pointer:?}, which Postgres cannot hold"
        )),
        None if text.len() > LARGEST_OUTPUT => Some(format!(
            "the output has {} bytes; {LARGEST_OUTPUT} are the most: hand on a reference instead",
            text.len()
        )),
        None => None,
    };
    match refused {
        None => Outcome::Completed { output: Arc::new(output), text },
        Some(message) => {
            let error = NodeError::new(ErrorKind::Permanent, message, claimed.id());
            Outcome::Failed { error, spent: true }
        }
    }
}

/// By why it was stopped: its run ends, or this worker does.
fn stopped(claimed: &Claimed, stop: &Stop) -> Outcome {
    let on_worker_lost = claimed.context.graph.node(claimed.node).node.on_worker_lost;
    match (stop.why(), on_worker_lost) {
        (Some(Why::Draining), OnWorkerLost::Retry) => Outcome::HandedBack {
            error: NodeError::new(
                ErrorKind::Cancelled,
                "the worker stopped before it ended, and gave it back",
                claimed.id(),
            ),
        },
        (Some(Why::Draining), OnWorkerLost::Fail) => Outcome::Failed {
            error: NodeError::new(
                ErrorKind::WorkerLost,
                "the worker stopped before it ended, and it must not be run again",
                claimed.id(),
            ),
            spent: false,
        },
        _ => Outcome::Stopped {
            error: NodeError::new(ErrorKind::Cancelled, "the run was stopped", claimed.id()),
        },
    }
}

/// Another attempt, if the retry rule has one left.
async fn again(
    worker: &Arc<Worker>,
    claimed: &Claimed,
    error: NodeError,
    retry_after: Option<Duration>,
) -> Outcome {
    let policy = claimed.context.retry(claimed.node);
    let spent = u32::try_from(claimed.spent + 1).unwrap_or(1);
    let elapsed = match policy.max_elapsed {
        None => Duration::ZERO,
        Some(_) => elapsed(worker, claimed).await,
    };
    match policy.after(spent, elapsed, retry_after) {
        Some(after) => Outcome::Retry { error, after, spent: true, breaker: None },
        None => Outcome::Failed { error, spent: true },
    }
}

/// Since the first attempt began; nothing when that cannot be read, so that it is tried rather than given up.
async fn elapsed(worker: &Arc<Worker>, claimed: &Claimed) -> Duration {
    let read = async {
        let mut conn = worker.core.pool.acquire().await?;
        outputs::elapsed(&mut conn, claimed.context.id, claimed.id()).await
    };
    read.await.unwrap_or_else(|error| {
        tracing::warn!(%error, "the age of the first attempt cannot be read");
        Duration::ZERO
    })
}
