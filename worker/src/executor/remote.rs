//! Tools that are no part of a worker: what a node asks of one, and what the reply makes of the node run.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use common::clock::Instant;
use common::duration;
use common::remote::{Call, LARGEST_INPUT, Refusal, RefusalKind, Said};
use common::secret::Mask;
use common::store::claim::Claimed;
use common::store::remote::{self, Registered};
use common::store::{self, is_outage};
use common::tool::Spec;
use common::wait::{Wait, WaitKind};
use serde_json::{Value, json};
use tools::Failure;

use super::perform::Ended;
use crate::core::Worker;

/// A tool, its schema compiled.
#[derive(Debug)]
pub(crate) struct Tool {
    spec: Spec,
    timeout: Option<Duration>,
    updated_at: Instant,
}

/// The tools whose schemas this worker has compiled, by name.
#[derive(Debug, Default)]
pub(crate) struct Compiled(Mutex<HashMap<String, Arc<Tool>>>);

impl Compiled {
    /// The tool as it is registered now.
    fn of(&self, found: Registered) -> Result<Arc<Tool>, String> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tool) = known.get(&found.name)
            && tool.updated_at == found.updated_at
        {
            return Ok(tool.clone());
        }
        let refused = |errors: Vec<common::problem::Pointed>| {
            let why = errors.into_iter().next().map(|error| error.detail).unwrap_or_default();
            format!("the schema of the tool `{}` cannot be used: {why}", found.name)
        };
        let spec = Spec::new(&found.name, &found.description, found.schema.clone(), None);
        let timeout = found.timeout_ms.and_then(|ms| u64::try_from(ms).ok());
        let tool = Arc::new(Tool {
            spec: spec.map_err(refused)?,
            timeout: timeout.map(Duration::from_millis),
            updated_at: found.updated_at,
        });
        known.insert(found.name, tool.clone());
        Ok(tool)
    }
}

/// The remote tool of this name; none when there is none. Through outages.
pub(super) async fn find(worker: &Arc<Worker>, name: &str) -> Result<Option<Arc<Tool>>, String> {
    // What is part of a worker is asked for most, and nothing can take its name.
    if tools::catalogue().get(name).is_some() {
        return Ok(None);
    }
    let mut reconnect = common::retry::Reconnect::new();
    let found = loop {
        match try_find(worker, name).await {
            Err(error) if is_outage(&error) => {
                tracing::warn!(%error, "waiting for the database, to read a tool");
                tokio::time::sleep(reconnect.wait()).await;
            }
            Err(error) => return Err(format!("the tool `{name}` cannot be read: {error}")),
            Ok(found) => break found,
        }
    };
    found.map(|found| worker.remote_tools.of(found)).transpose()
}

async fn try_find(worker: &Worker, name: &str) -> Result<Option<Registered>, store::Error> {
    let mut conn = worker.core.pool.acquire().await?;
    remote::find(&mut conn, name).await
}

/// The call that the node run waits for; its record sends it. An error is permanent.
pub(super) fn call(claimed: &Claimed, tool: &Tool, input: Value) -> Result<Wait, String> {
    let (node, name) = (claimed.context.graph.node(claimed.node), tool.spec.name());
    if !node.config.secrets().is_empty() {
        return Err(format!(
            "`secrets` cannot be handed to the remote tool `{name}`: the call lies in the broker, where they could be read"
        ));
    }
    let faults = tool.spec.faults(&input, &Mask::default());
    if !faults.is_empty() {
        let said: Vec<String> =
            faults.iter().take(5).map(|it| format!("{}: {}", it.pointer, it.detail)).collect();
        return Err(format!("the input does not fit the tool `{name}`: {}", said.join("; ")));
    }
    let size = input.to_string().len();
    if size > LARGEST_INPUT {
        return Err(format!(
            "the input of the remote tool `{name}` has {size} bytes; {LARGEST_INPUT} are the most: hand on a reference instead"
        ));
    }
    let timeout = tool.timeout.map_or(node.node.timeout, |most| most.min(node.node.timeout));
    let spec = json!({"tool": name, "timeout": duration::text(timeout)});
    let mut wait = Wait::new(WaitKind::Remote, spec, claimed.spent, Some(timeout));
    let timeout_ms = i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX);
    wait.call = Some(Call { tool: name.to_owned(), input, timeout_ms });
    Ok(wait)
}

/// What the reply makes of the node run.
pub(super) fn replied(value: Value) -> Result<Value, Ended> {
    let failure = match serde_json::from_value(value) {
        Ok(Said::Output(output)) => return Ok(output),
        Ok(Said::Error(Refusal { kind: RefusalKind::Retryable, message, retry_after })) => {
            Failure::Retryable { message, retry_after }
        }
        Ok(Said::Error(Refusal { message, .. })) => Failure::Permanent { message },
        Err(error) => Failure::permanent(format!("the stored reply cannot be read: {error}")),
    };
    Err(Ended::Failed(failure))
}

/// No reply has come in time: another attempt may get one.
pub(super) fn overdue(spec: &Value) -> Ended {
    let text = |name| spec[name].as_str().unwrap_or_default();
    Ended::TimedOutWaiting(format!(
        "the remote tool `{}` has not replied within {}",
        text("tool"),
        text("timeout")
    ))
}
