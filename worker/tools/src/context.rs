//! What a tool may know of the attempt that it executes.

use common::secret::Mask;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::Log;

/// What a tool may know of the attempt that it executes.
#[derive(Debug, Clone)]
pub struct Context {
    /// The run.
    pub run: Uuid,
    /// The pipeline's name; none for a single action.
    pub pipeline: Option<String>,
    /// The node within it.
    pub node: String,
    /// From 1.
    pub attempt: i32,
    /// The same for all attempts: `<run>/<node>`.
    pub idempotency_key: String,
    /// To hand to outside systems.
    pub traceparent: Option<String>,
    /// Hides the secrets that the input holds. What the tool returns is masked anyway; what it shortens, or says in any
    /// other way, it masks itself, before that.
    pub mask: Mask,
    /// What is printed here is kept with the attempt.
    pub log: Log,
    /// Stop soon, and answer [`Failure::Cancelled`](crate::Failure::Cancelled).
    pub cancel: CancellationToken,
}

impl Context {
    /// That of an attempt without secrets, without a trace, and which nobody cancels: `..Context::of(…)` has the rest.
    pub fn of(run: Uuid, node: &str, attempt: i32) -> Self {
        Self {
            run,
            pipeline: None,
            node: node.to_owned(),
            attempt,
            idempotency_key: format!("{run}/{node}"),
            traceparent: None,
            mask: Mask::default(),
            log: Log::default(),
            cancel: CancellationToken::new(),
        }
    }
}
