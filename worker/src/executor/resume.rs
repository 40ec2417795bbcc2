//! From the answer of what a node run waited for to its end: nothing is executed.

use std::sync::Arc;

use common::clock;
use common::pipeline::{OnReject, Undecided};
use common::run::RunState;
use common::store::claim::Claimed;
use common::store::waits::children::{self, Ended as Child};
use common::store::waits::{self, Awaited};
use common::store::{self, is_outage};
use common::wait::{Answer, ChildSpec, OnItemFailure, WaitKind, is_resumed};
use serde_json::{Value, json};
use tools::Failure;

use super::classify::LARGEST_OUTPUT;
use super::perform::Ended;
use super::remote;
use crate::core::Worker;

/// What the node run has waited for, if it is resumed; through outages.
pub(super) async fn awaited(
    worker: &Arc<Worker>,
    claimed: &Claimed,
) -> Result<Option<Awaited>, String> {
    if !is_resumed(claimed.waiting.as_ref(), claimed.spent) {
        return Ok(None);
    }
    let mut reconnect = common::retry::Reconnect::new();
    loop {
        let read = async {
            let mut conn = worker.core.pool.acquire().await?;
            waits::read(&mut conn, claimed.context.id, claimed.id()).await
        };
        match read.await {
            Err(error) if is_outage(&error) => {
                tracing::warn!(%error, "waiting for the database, to read an answer");
                tokio::time::sleep(reconnect.wait()).await;
            }
            Err(error) => return Err(format!("the answer cannot be read: {error}")),
            Ok(found) => return Ok(found.filter(|awaited| awaited.spent == claimed.spent)),
        }
    }
}

/// What the answer makes of the node run.
pub(super) async fn conclude(
    worker: &Arc<Worker>,
    claimed: &Claimed,
    awaited: Awaited,
) -> Result<Value, Ended> {
    let at = awaited.answered_at.as_ref().map(clock::text);
    let Some(answer) = awaited.answer else {
        return permanent("it was resumed before it was answered: a defect of the engine");
    };
    match (awaited.kind, answer) {
        (WaitKind::Approval, Answer::Decided { approved, by, comment }) => {
            decided(&awaited.spec, approved, json!(by), comment, at)
        }
        (WaitKind::Approval, Answer::Deadline) => {
            let why = "nobody has decided in time";
            match word(&awaited.spec, "default") {
                Some(Undecided::Approve) => {
                    decided(&awaited.spec, true, Value::Null, Some(why.to_owned()), at)
                }
                Some(Undecided::Reject) => {
                    decided(&awaited.spec, false, Value::Null, Some(why.to_owned()), at)
                }
                _ => Err(Ended::Expired(why.to_owned())),
            }
        }
        (WaitKind::Event, Answer::EventCame { event }) => Ok(event),
        (WaitKind::Event, Answer::Deadline) => match awaited.spec["on_timeout"].as_str() {
            Some("continue") => Ok(Value::Null),
            _ => {
                let wanted = awaited.spec["type"].as_str().unwrap_or_default();
                Err(Ended::Expired(format!("no event `{wanted}` has come in time")))
            }
        },
        (WaitKind::Child, Answer::ChildrenEnded) => child(worker, claimed).await,
        (WaitKind::Map, Answer::ChildrenEnded) => map(worker, claimed, awaited.spec).await,
        (WaitKind::Child | WaitKind::Map, Answer::Deadline) => Err(Ended::TimedOutWaiting(
            "what it started has not ended within its `timeout`, and is stopped".to_owned(),
        )),
        (WaitKind::Remote, Answer::Answered { value }) => remote::replied(value),
        (WaitKind::Remote, Answer::Deadline) => Err(remote::overdue(&awaited.spec)),
        (_, Answer::Stopped) => Err(Ended::Stopped),
        (kind, answer) => permanent(&format!(
            "what it waited for ({}) was answered with {}: a defect of the engine",
            kind.name(),
            answer.reason().name()
        )),
    }
}

fn permanent<T>(message: &str) -> Result<T, Ended> {
    Err(Ended::Failed(Failure::Permanent { message: message.to_owned() }))
}

fn word<T: serde::de::DeserializeOwned>(spec: &Value, name: &str) -> Option<T> {
    serde_json::from_value(spec.get(name)?.clone()).ok()
}

fn decided(
    spec: &Value,
    approved: bool,
    by: Value,
    comment: Option<String>,
    at: Option<String>,
) -> Result<Value, Ended> {
    if approved || word(spec, "on_reject") == Some(OnReject::Continue) {
        return Ok(json!({"approved": approved, "by": by, "comment": comment, "at": at}));
    }
    let who = by.as_str().map_or_else(String::new, |by| format!(" by {by}"));
    let why = comment.map_or_else(String::new, |comment| format!(": {comment}"));
    permanent(&format!("it was rejected{who}{why}"))
}

/// The output or the failure of the only child.
async fn child(worker: &Arc<Worker>, claimed: &Claimed) -> Result<Value, Ended> {
    match read(worker, claimed, Asked::All).await?.into_iter().next() {
        Some(Child { state: Some(RunState::Completed), output, .. }) => {
            Ok(output.unwrap_or_default())
        }
        Some(child) => Err(failed("the child run", &child)),
        None => permanent("the child run is gone"),
    }
}

/// The outputs of all children in their order, or what became of each.
async fn map(worker: &Arc<Worker>, claimed: &Claimed, spec: Value) -> Result<Value, Ended> {
    let spec: Option<ChildSpec> = serde_json::from_value(spec).ok();
    let collects = spec.is_some_and(|spec| spec.on_item_failure == OnItemFailure::Collect);
    if !collects && let Some(child) = read(worker, claimed, Asked::Failure).await?.pop() {
        let which = format!("item {}: the child run", child.index);
        return Err(failed(&which, &child));
    }
    let children = read(worker, claimed, Asked::All).await?;
    let shown = |child: Child| match collects {
        false => child.output.unwrap_or_default(),
        true => json!({
            "run": child.run, "state": child.state.map(RunState::name), "output": child.output, "error": child.error,
        }),
    };
    Ok(Value::Array(children.into_iter().map(shown).collect()))
}

/// A child's failure as its parent's: of the same consequence.
fn failed(which: &str, child: &Child) -> Ended {
    let text = |name| child.error.as_ref().and_then(|error| error[name].as_str());
    let state = child.state.map_or("gone", RunState::name);
    let id = child.run.map_or_else(String::new, |run| format!(" {run}"));
    let why = text("message").map_or_else(String::new, |why| format!(": {why}"));
    let message = format!("{which}{id} ended {state}{why}");
    Ended::Failed(match text("kind") {
        Some("retryable" | "timed_out" | "worker_lost") => {
            Failure::Retryable { message, retry_after: None }
        }
        _ => Failure::Permanent { message },
    })
}

enum Asked {
    All,
    Failure,
}

/// Reads what became of the children, through outages.
async fn read(worker: &Arc<Worker>, claimed: &Claimed, asked: Asked) -> Result<Vec<Child>, Ended> {
    let mut reconnect = common::retry::Reconnect::new();
    loop {
        match try_read(worker, claimed, &asked).await {
            Err(error) if is_outage(&error) => {
                tracing::warn!(%error, "waiting for the database, to read what child runs gave");
                tokio::time::sleep(reconnect.wait()).await;
            }
            Err(error) => return permanent(&format!("the child runs cannot be read: {error}")),
            Ok(Err(bytes)) => {
                return permanent(&format!(
                    "the outputs of the child runs have over {bytes} bytes together; {LARGEST_OUTPUT} are the most: \
                     hand on references instead"
                ));
            }
            Ok(Ok(children)) => return Ok(children),
        }
    }
}

/// The inner error is how many bytes there are, when these are too many to be read at all.
async fn try_read(
    worker: &Arc<Worker>,
    claimed: &Claimed,
    asked: &Asked,
) -> Result<Result<Vec<Child>, i64>, store::Error> {
    let mut conn = worker.core.pool.acquire().await?;
    let (run, node, spent) = (claimed.context.id, claimed.id(), claimed.spent);
    if let Asked::Failure = asked {
        let failure = children::failure(&mut conn, run, node, spent).await?;
        return Ok(Ok(failure.into_iter().collect()));
    }
    let size = children::size(&mut conn, run, node, spent).await?;
    if size > LARGEST_OUTPUT as i64 {
        return Ok(Err(size));
    }
    children::all(&mut conn, run, node, spent).await.map(Ok)
}
