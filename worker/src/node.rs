//! What nodes do: one action a file. To add one: its file, a line in [`execute`], a name in [`ACTIONS`].
//!
//! Time-outs, panics and the grace after a cancel are the executor's. It raises [`Context::cancel`] (at a time-out
//! too), waits a little longer than [`GRACE`], then drops the future: what is dropped leaves nothing
//! behind either, but it is killed rather than asked.

mod call_api;
mod echo;
mod log;
mod run_command;
mod scalar;

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub(crate) use log::Log;
pub(crate) use run_command::Commands;

pub(crate) use common::pipeline::ACTIONS;

/// What a cancelled node has to end by itself. The executor drops it a little later.
pub(crate) const GRACE: Duration = Duration::from_secs(2);

/// What every node of the worker shares: built once at start, inside the runtime.
pub(crate) struct Tools {
    http: reqwest::Client,
    programs: run_command::Programs,
}

impl Tools {
    pub(crate) fn new(commands: Commands) -> anyhow::Result<Self> {
        Ok(Self { http: call_api::client()?, programs: run_command::Programs::new(commands) })
    }
}

/// What a node may know of the attempt that executes it.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) run: Uuid,
    pub(crate) node: String,
    pub(crate) attempt: i32,
    /// The same for all attempts: `<run>/<node>`.
    pub(crate) idempotency_key: String,
    pub(crate) traceparent: Option<String>,
    /// Stop soon, and answer [`Failure::Cancelled`].
    pub(crate) cancel: CancellationToken,
    /// What is printed here is kept with the attempt.
    pub(crate) log: Log,
}

/// Failures are typed by consequence.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Failure {
    /// Another attempt may end otherwise; the other side may have said when to come back.
    Retryable { message: String, retry_after: Option<Duration> },
    /// Another attempt would end the same way.
    Permanent { message: String },
    /// [`Context::cancel`] was raised.
    Cancelled,
}

impl Failure {
    fn retryable(message: impl Into<String>) -> Self {
        Self::Retryable { message: message.into(), retry_after: None }
    }

    fn permanent(message: impl Into<String>) -> Self {
        Self::Permanent { message: message.into() }
    }
}

pub(crate) type Outcome = Result<Value, Failure>;

/// Executes one attempt of `action` with its rendered input.
pub(crate) async fn execute(
    tools: &Tools,
    action: &str,
    input: Value,
    context: &Context,
) -> Outcome {
    match action {
        "echo" => echo::run(input),
        "call_api" => call_api::run(&tools.http, input, context).await,
        "run_command" => run_command::run(&tools.programs, input, context).await,
        other => Err(Failure::permanent(format!(
            "the action `{other}` cannot run on this worker: it has {}",
            ACTIONS.join(", ")
        ))),
    }
}

/// The config of an action. A mistake in it is permanent, and names its place.
fn config<T: DeserializeOwned>(action: &str, input: Value) -> Result<T, Failure> {
    serde_path_to_error::deserialize(input).map_err(|error| {
        let path = error.path().to_string();
        let place = if path == "." { String::new() } else { format!(", `{path}`") };
        Failure::permanent(format!("config of {action}{place}: {}", error.inner()))
    })
}

/// At most `most` characters from the start of `text`.
fn head(text: &str, most: usize) -> &str {
    text.char_indices().nth(most).map_or(text, |(end, _)| &text[..end])
}

/// At most `most` characters from the end of `text`.
fn tail(text: &str, most: usize) -> &str {
    let skipped = text.chars().count().saturating_sub(most);
    text.char_indices().nth(skipped).map_or("", |(start, _)| &text[start..])
}

#[cfg(test)]
mod tests;
