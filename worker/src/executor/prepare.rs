//! From a claim to what is to be done: outputs are read, the config is rendered.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use common::context::RunContext;
use common::expression::Scope;
use common::graph::NodeIx;
use common::pipeline::{Delay, NodeType};
use common::secret::Mask;
use common::store::claim::Claimed;
use common::store::{self, verdict};
use serde_json::{Value, json};

use super::secrets;
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
    let names = claimed.context.graph.node(claimed.node).config.secrets();
    let (secrets, mask) = secrets::opened(worker, names).await?;
    let work = render(worker, claimed, secrets.as_ref()).await;
    work.map_err(|message| mask.text(&message)).map(|work| (work, mask))
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
    let scope =
        Scope { input: &context.input, outputs: &known, run: &context.run, output: None, secrets };
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

/// How long a delay waits, by its rendered config.
fn wait(config: &Value) -> Result<Work, String> {
    Delay::read(config).map(|delay| match delay {
        Delay::For(duration) => Work::WaitFor(duration),
        Delay::Until(instant) => Work::WaitUntil(instant),
    })
}
