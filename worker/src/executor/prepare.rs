//! From a claim to what is to be done: outputs are read, the config is rendered.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use common::context::RunContext;
use common::expression::Scope;
use common::graph::NodeIx;
use common::pipeline::{Approval, Delay, EXECUTE_PIPELINE, EventWait, NodeType};
use common::schedule::glob;
use common::secret::Mask;
use common::store::claim::Claimed;
use common::store::waits::Awaited;
use common::store::{self, verdict};
use common::wait::{Wait, WaitKind};
use serde_json::{Value, json};

use super::call::Calls;
use super::{remote, resume, secrets};
use crate::core::Worker;

/// What a node run has to do.
#[derive(Debug)]
pub(crate) enum Work {
    /// Nothing more: this is its output.
    Output(Value),
    /// Wait for so long.
    WaitFor(std::time::Duration),
    /// Wait until then.
    WaitUntil(DateTime<Utc>),
    /// Wait until it is answered.
    Await(Box<Wait>),
    /// Start runs, and wait for them.
    Call(Box<Calls>),
    /// Go on from what it waited for.
    Resume(Box<Awaited>),
    /// Execute an action with this input.
    Action(String, Value),
}

/// Reads those outputs of `nodes` that are not known here, through outages.
pub(super) async fn load(
    worker: &Worker,
    context: &RunContext,
    nodes: &[NodeIx],
) -> Result<(), store::Error> {
    if context.missing(nodes).is_empty() {
        return Ok(());
    }
    Box::pin(read(worker, context, nodes)).await
}

async fn read(worker: &Worker, context: &RunContext, nodes: &[NodeIx]) -> Result<(), store::Error> {
    let mut reconnect = common::retry::Reconnect::new();
    loop {
        let read = async {
            let mut conn = worker.core.pool.acquire().await?;
            verdict::load(&mut conn, context, nodes).await
        };
        match read.await {
            Err(error) if store::is_outage(&error) => {
                tracing::warn!(%error, "waiting for the database, to read outputs");
                tokio::time::sleep(reconnect.wait()).await;
            }
            read => return read,
        }
    }
}

/// Renders what the node has to do, and what must not show of it. An error is permanent.
pub(super) async fn prepare(
    worker: &Arc<Worker>,
    claimed: &Claimed,
) -> Result<(Work, Mask), String> {
    if let Some(awaited) = resume::awaited(worker, claimed).await? {
        return Ok((Work::Resume(Box::new(awaited)), Mask::default()));
    }
    let names = claimed.context.graph.node(claimed.node).config.secrets();
    let (secrets, mask) = secrets::opened(worker, names).await?;
    let work = match render(worker, claimed, secrets.as_ref()).await {
        Ok(Work::Action(action, input)) => ask(worker, claimed, action, input).await,
        work => work,
    };
    work.map_err(|message| mask.text(&message)).map(|work| (work, mask))
}

/// An action is executed here, or asked of a remote tool.
async fn ask(
    worker: &Arc<Worker>,
    claimed: &Claimed,
    action: String,
    input: Value,
) -> Result<Work, String> {
    match remote::find(worker, &action).await? {
        Some(tool) => remote::call(claimed, &tool, input).map(|wait| Work::Await(Box::new(wait))),
        None => Ok(Work::Action(action, input)),
    }
}

async fn render(
    worker: &Arc<Worker>,
    claimed: &Claimed,
    secrets: Option<&Value>,
) -> Result<Work, String> {
    let context = &claimed.context;
    let compiled = context.graph.node(claimed.node);
    let mut reads = compiled.reads.clone();
    reads.extend(compiled.passes_through);
    load(worker, context, &reads)
        .await
        .map_err(|error| format!("outputs cannot be read: {error}"))?;
    let known = context.known(&reads);
    let scope = Scope {
        input: &context.input,
        outputs: &known,
        run: &context.run,
        output: None,
        secrets,
        item: None,
    };
    match compiled.node.node_type {
        NodeType::Trigger => Ok(Work::Output(context.input.clone())),
        NodeType::Parallel => Ok(Work::Output(passed(claimed))),
        NodeType::Condition => {
            let condition = compiled.condition.as_ref().ok_or("the condition has no expression")?;
            let result = condition.is_true(&scope)?;
            Ok(Work::Output(json!({ "result": result })))
        }
        NodeType::Delay if claimed.waiting.is_some() => Ok(Work::Output(passed(claimed))),
        NodeType::Delay => compiled.config.render(&scope).and_then(|config| wait(&config)),
        NodeType::Approval => {
            compiled.config.render(&scope).and_then(|config| approval(claimed, &config))
        }
        NodeType::WaitForEvent => {
            compiled.config.render(&scope).and_then(|config| event(claimed, &config))
        }
        NodeType::Action if compiled.action.as_deref() == Some(EXECUTE_PIPELINE) => {
            let config = compiled.config.render(&scope)?;
            Calls::read(claimed, &config, &scope).map(|calls| Work::Call(Box::new(calls)))
        }
        NodeType::Action | NodeType::Agent => {
            let action = compiled.action.clone().ok_or("the node names no action")?;
            Ok(Work::Action(action, compiled.config.render(&scope)?))
        }
    }
}

/// The output of the only predecessor, else null.
fn passed(claimed: &Claimed) -> Value {
    let from = claimed.context.graph.node(claimed.node).passes_through;
    let output = from.and_then(|node| claimed.context.output(node));
    output.map(|output| output.as_ref().clone()).unwrap_or_default()
}

/// What a person is asked.
fn approval(claimed: &Claimed, config: &Value) -> Result<Work, String> {
    let asked = Approval::read(config)?;
    let spec = json!({
        "message": asked.message, "role": asked.role, "default": asked.default, "on_reject": asked.on_reject,
    });
    let wait = Wait::new(WaitKind::Approval, spec, claimed.spent, asked.deadline);
    Ok(Work::Await(Box::new(wait)))
}

/// Which event it waits for.
fn event(claimed: &Claimed, config: &Value) -> Result<Work, String> {
    let wanted = EventWait::read(config)?;
    // The condition is about an event that has not come yet: it is no part of what is rendered.
    let node = &claimed.context.graph.node(claimed.node).node;
    let spec = json!({
        "type": wanted.event_type, "match": wanted.matching, "condition": node.config.get("condition"),
        "on_timeout": if wanted.continues { "continue" } else { "fail" },
    });
    let mut wait = Wait::new(WaitKind::Event, spec, claimed.spent, wanted.timeout);
    wait.listens = Some(glob::like(&wanted.event_type));
    Ok(Work::Await(Box::new(wait)))
}

/// How long a delay waits, by its rendered config.
fn wait(config: &Value) -> Result<Work, String> {
    Delay::read(config).map(|delay| match delay {
        Delay::For(duration) => Work::WaitFor(duration),
        Delay::Until(instant) => Work::WaitUntil(instant),
    })
}
