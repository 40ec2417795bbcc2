//! `execute_pipeline`: which runs a node starts, before it waits for them.

use std::sync::Arc;

use common::expression::Scope;
use common::pipeline::{Call, InputSchema};
use common::store::claim::Claimed;
use common::store::pipelines::{self, Submittable};
use common::store::{self, is_outage};
use common::wait::{ChildSpec, Children, DEEPEST, Parent, Wait, WaitKind};
use serde_json::{Value, json};
use tools::Failure;

use super::classify::LARGEST_OUTPUT;
use super::perform::Ended;
use crate::core::Worker;

/// What is to be run: with `for_each`, one input an item.
#[derive(Debug)]
pub(crate) struct Calls {
    call: Call,
    inputs: Vec<Value>,
}

impl Calls {
    /// Reads a rendered config, and renders the input of each item.
    pub(super) fn read(
        claimed: &Claimed,
        config: &Value,
        scope: &Scope<'_>,
    ) -> Result<Self, String> {
        let call = Call::read(config)?;
        let Some(items) = &call.for_each else {
            let inputs = vec![call.input.clone().unwrap_or_else(|| json!({}))];
            return Ok(Self { call, inputs });
        };
        let template = claimed.context.graph.node(claimed.node).each.as_ref();
        let mut inputs = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            inputs.push(match template {
                None => item.clone(),
                Some(template) => {
                    let item = json!({"item": item, "index": index});
                    let input = template.render(&Scope { item: Some(&item), ..*scope });
                    input.map_err(|why| format!("the input of item {index}: {why}"))?
                }
            });
        }
        Ok(Self { call, inputs })
    }
}

/// What the node run waits for: runs that its record starts. An empty list has nothing to wait for.
pub(super) async fn begin(
    worker: &Arc<Worker>,
    claimed: &Claimed,
    Calls { call, inputs }: Calls,
) -> Result<Value, Ended> {
    let permanent = |message: String| Ended::Failed(Failure::Permanent { message });
    if call.for_each.is_some() && inputs.is_empty() {
        return Ok(json!([]));
    }
    let depth = Parent::of(&claimed.context.run["trigger"]).map_or(1, |above| above.depth + 1);
    if depth > DEEPEST {
        return Err(permanent(format!(
            "{DEEPEST} runs stand above this one already, each started by the one before: that is the most"
        )));
    }
    let (pipeline, schema) = find(worker, &call.pipeline).await.map_err(permanent)?;
    if let Some(schema) = &schema {
        let faults = inputs.iter().map(|input| schema.check(input)).enumerate();
        if let Some((index, faults)) = faults.into_iter().find(|(_, faults)| !faults.is_empty()) {
            let which =
                if call.for_each.is_some() { format!(" of item {index}") } else { String::new() };
            let said: Vec<String> =
                faults.iter().take(5).map(|it| format!("{}: {}", it.pointer, it.detail)).collect();
            let why = said.join("; ");
            return Err(permanent(format!(
                "the input{which} does not fit the pipeline {:?}: {why}",
                call.pipeline
            )));
        }
    }
    let spec = ChildSpec {
        pipeline: pipeline.name,
        pipeline_id: pipeline.id,
        version: pipeline.version,
        lane: pipeline.lane,
        depth,
        max_concurrency: call.max_concurrency,
        on_item_failure: call.on_item_failure,
    };
    let bytes: usize = inputs.iter().map(|input| input.to_string().len()).sum();
    if bytes > LARGEST_OUTPUT {
        return Err(permanent(format!(
            "the inputs of the runs that it starts have {bytes} bytes together; {LARGEST_OUTPUT} are the most: hand on \
             references instead"
        )));
    }
    let kind = if call.for_each.is_some() { WaitKind::Map } else { WaitKind::Child };
    let mut wait = Wait::new(kind, json!(spec), claimed.spent, call.timeout);
    wait.children = Some(Children { spec, inputs, bytes });
    Err(Ended::Awaits(Box::new(wait)))
}

/// The pipeline as it stands, with what inputs are checked against; through outages.
async fn find(
    worker: &Arc<Worker>,
    name: &str,
) -> Result<(Submittable, Option<InputSchema>), String> {
    let mut reconnect = common::retry::Reconnect::new();
    let found = loop {
        match try_find(worker, name).await {
            Err(error) if is_outage(&error) => {
                tracing::warn!(%error, "waiting for the database, to start child runs");
                tokio::time::sleep(reconnect.wait()).await;
            }
            Err(error) => return Err(format!("the pipeline {name:?} cannot be read: {error}")),
            Ok(found) => break found,
        }
    };
    match found {
        None => Err(format!("there is no pipeline {name:?}")),
        Some((pipeline, _)) if pipeline.paused => {
            Err(format!("the pipeline {name:?} is paused: resume it, then run this again"))
        }
        Some((pipeline, schema)) => {
            // It was compiled when the version was made; one that no longer compiles checks nothing.
            let schema = schema.and_then(|schema| InputSchema::compile(&schema).ok());
            Ok((pipeline, schema))
        }
    }
}

async fn try_find(
    worker: &Arc<Worker>,
    name: &str,
) -> Result<Option<(Submittable, Option<Value>)>, store::Error> {
    let mut conn = worker.core.pool.acquire().await?;
    let found = pipelines::submittable(&mut conn, &[name.to_owned()]).await?.pop();
    let Some(pipeline) = found else { return Ok(None) };
    let schema = match pipeline.has_schema {
        true => pipelines::input_schema(&mut conn, pipeline.id, pipeline.version).await?,
        false => None,
    };
    Ok(Some((pipeline, schema)))
}
