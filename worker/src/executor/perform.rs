//! The node's own code, under its time-out and its stop token; a panic in it is a failure like any other.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use common::secret::Mask;
use common::store::claim::Claimed;
use common::telemetry::Traceparent;
use common::wait::Wait;
use futures::FutureExt;
use serde_json::{Value, json};
use tools::{Context, Failure, Log};

use super::prepare::Work;
use super::{call, resume};
use crate::core::Worker;
use crate::registry::Stop;

/// What a node gets to end by itself after it was told to, before it is dropped.
const GRACE: Duration = tools::GRACE.saturating_add(Duration::from_secs(1));

/// How long what has to run alone waits for the worker's other node runs to end.
pub(super) const QUIET_WITHIN: Duration = Duration::from_secs(30);

/// How a node ended without an output.
#[derive(Debug)]
pub(super) enum Ended {
    /// By its own word.
    Failed(Failure),
    /// What it has to do could not be rendered: nothing was tried.
    Unprepared(String),
    /// It took longer than its time-out.
    TimedOut,
    /// It was stopped.
    Stopped,
    /// What it waited for has not come in time, and another try would not change that.
    Expired(String),
    /// What it waited for has not come in time, and another try may.
    TimedOutWaiting(String),
    /// It waits until it is answered.
    Awaits(Box<Wait>),
    /// It waits.
    Waits { waiting: Value, after: Duration, at: Option<chrono::DateTime<chrono::Utc>> },
}

/// Does the work.
pub(super) async fn perform(
    worker: &Arc<Worker>,
    claimed: &Claimed,
    stop: &Stop,
    work: Work,
    mask: &Mask,
) -> Result<Value, Ended> {
    match work {
        Work::Output(output) => Ok(output),
        Work::WaitFor(after) => {
            let waiting =
                json!({ "delay_ms": u64::try_from(after.as_millis()).unwrap_or(u64::MAX) });
            Err(Ended::Waits { waiting, after, at: None })
        }
        Work::WaitUntil(at) => {
            let waiting = json!({ "until": common::clock::text(&at) });
            Err(Ended::Waits { waiting, after: Duration::ZERO, at: Some(at) })
        }
        Work::Await(wait) => Err(Ended::Awaits(wait)),
        Work::Call(calls) => call::begin(worker, claimed, *calls).await,
        Work::Resume(awaited) => resume::conclude(worker, claimed, *awaited).await,
        Work::Action(action, input) => {
            logged(worker, claimed, stop, (action.as_str(), input), mask).await
        }
    }
}

/// What the node prints is stored beside it, and all of it before its outcome is.
async fn logged(
    worker: &Arc<Worker>,
    claimed: &Claimed,
    stop: &Stop,
    asked: (&str, Value),
    mask: &Mask,
) -> Result<Value, Ended> {
    let log = worker.logs.open(mask);
    let context = context(claimed, stop, mask, &log);
    let acted = async {
        let result = act(worker, claimed, stop, asked, context).await;
        log.close();
        result
    };
    let (result, ()) = tokio::join!(acted, worker.logs.follow(claimed, &log));
    result
}

async fn act(
    worker: &Arc<Worker>,
    claimed: &Claimed,
    stop: &Stop,
    (action, input): (&str, Value),
    context: Context,
) -> Result<Value, Ended> {
    let timeout = claimed.context.graph.node(claimed.node).node.timeout;
    let execution = AssertUnwindSafe(worker.tools.execute(action, input, &context));
    let mut execution = std::pin::pin!(execution.catch_unwind());
    let ended = tokio::select! {
        biased;
        result = &mut execution => return settled(result, stop),
        () = tokio::time::sleep(timeout) => Ended::TimedOut,
        () = stop.token().cancelled() => Ended::Stopped,
    };
    context.cancel.cancel();
    // What it still says after that is not asked for, but a result that was there first counts.
    match tokio::time::timeout(GRACE, &mut execution).await {
        Ok(Ok(Ok(output))) => Ok(output),
        _ => Err(ended),
    }
}

fn settled(
    result: Result<Result<Value, Failure>, Box<dyn std::any::Any + Send>>,
    stop: &Stop,
) -> Result<Value, Ended> {
    match result {
        Ok(Ok(output)) => Ok(output),
        Ok(Err(Failure::Cancelled)) if stop.why().is_some() => Err(Ended::Stopped),
        Ok(Err(failure)) => Err(Ended::Failed(failure)),
        Err(panic) => {
            let said = panic
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "no message".to_owned());
            let message = format!("the node's code panicked: {said}");
            Err(Ended::Failed(Failure::Permanent { message }))
        }
    }
}

fn context(claimed: &Claimed, stop: &Stop, mask: &Mask, log: &Log) -> Context {
    let run = &claimed.context;
    let traceparent = run.traceparent.as_deref().and_then(|text| text.parse::<Traceparent>().ok());
    Context {
        traceparent: traceparent.map(|parent| parent.child().to_string()),
        pipeline: run.pipeline.clone(),
        mask: mask.clone(),
        cancel: stop.token().child_token(),
        log: log.clone(),
        ..Context::of(run.id, claimed.id(), claimed.attempt)
    }
}
