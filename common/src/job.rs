//! What a message asks of a worker: ids, fence, reason. Never a secret, and never input or output: but for calls of
//! tools that are no part of a worker, since nothing else reaches them.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A pointer to rows: everything else is read from Postgres.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The outbox row that announced it.
    #[serde(rename = "job")]
    pub id: Uuid,
    /// What is asked.
    #[serde(flatten)]
    pub task: Task,
    /// Why it was sent.
    pub reason: Reason,
    /// The pipeline's name, for those who read messages; none for a single action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<String>,
    /// The pipeline's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i32>,
    /// W3C trace context; travels as a header of the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

/// What a job asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Task {
    /// Write the run's node runs, and begin.
    #[serde(rename = "run.start")]
    RunStart {
        /// The run.
        run: Uuid,
    },
    /// Execute one node run.
    #[serde(rename = "node.execute")]
    NodeExecute {
        /// The run.
        run: Uuid,
        /// The node.
        node: String,
        /// The fence: the attempt that the claim will create.
        attempt: i32,
    },
    /// Do what a tool does: for a program that is no worker. The only message that holds an input.
    #[serde(rename = "tool.call")]
    ToolCall {
        /// The run.
        run: Uuid,
        /// The node.
        node: String,
        /// The fence: the attempt that waits for the reply.
        attempt: i32,
        /// The tool.
        tool: String,
        /// What it is given.
        input: serde_json::Value,
        /// How long a reply is waited for.
        timeout_ms: i64,
    },
    /// Report that this message has come through the lane.
    #[serde(rename = "probe")]
    Probe {
        /// The row to report to.
        probe: Uuid,
    },
}

impl Task {
    /// The AMQP `type` of the message.
    pub fn name(&self) -> &'static str {
        match self {
            Self::RunStart { .. } => "run.start",
            Self::NodeExecute { .. } => "node.execute",
            Self::ToolCall { .. } => "tool.call",
            Self::Probe { .. } => "probe",
        }
    }

    /// The run that it concerns.
    pub fn run(&self) -> Option<Uuid> {
        match self {
            Self::RunStart { run } | Self::NodeExecute { run, .. } | Self::ToolCall { run, .. } => {
                Some(*run)
            }
            Self::Probe { .. } => None,
        }
    }
}

/// Why a job was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A client submitted the run.
    Submitted,
    /// A delayed start is due.
    Delayed,
    /// A predecessor ended, and this node is ready.
    FanOut,
    /// A retry is due.
    Retry,
    /// What the node waited for is over.
    DelayOver,
    /// A node asks a tool that is no part of a worker.
    Called,
    /// The message was lost, or its worker was.
    Recovered,
    /// A worker stopped before it could end it.
    HandedBack,
    /// The leader asks whether the lane's messages arrive.
    Probe,
}

impl Reason {
    /// The name in JSON and headers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Submitted => "submitted",
            Self::Delayed => "delayed",
            Self::FanOut => "fan_out",
            Self::Retry => "retry",
            Self::DelayOver => "delay_over",
            Self::Called => "called",
            Self::Recovered => "recovered",
            Self::HandedBack => "handed_back",
            Self::Probe => "probe",
        }
    }
}
