//! How a node run failed, as data.

use serde::{Deserialize, Serialize};

/// What kind of failure it was, by consequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// Another attempt may succeed; this was the last one that was allowed.
    Retryable,
    /// No attempt can succeed.
    Permanent,
    /// The node, or the run, took longer than its time-out.
    TimedOut,
    /// The worker died under it, too often or for a node that must not be run again.
    WorkerLost,
    /// The run was stopped before it ended.
    Cancelled,
}

impl ErrorKind {
    /// The name in JSON, SQL and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Retryable => "retryable",
            Self::Permanent => "permanent",
            Self::TimedOut => "timed_out",
            Self::WorkerLost => "worker_lost",
            Self::Cancelled => "cancelled",
        }
    }
}

/// The error of an attempt, a node run or a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeError {
    /// By consequence.
    pub kind: ErrorKind,
    /// One or more sentences for people; never a secret.
    pub message: String,
    /// The node where it happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

impl NodeError {
    /// An error of `kind` at `node`.
    pub fn new(kind: ErrorKind, message: impl Into<String>, node: &str) -> Self {
        // A null character, which Postgres cannot hold, must not keep a failure from being recorded.
        let message = message.into().replace('\0', "\u{fffd}");
        Self { kind, message, node: Some(node.to_owned()) }
    }
}
