//! Definitions: what a client may ask for, and everything that can be wrong with it.
//!
//! [`check`] reads a definition and finds all errors in one go, each with a JSON pointer and a sentence that says how
//! to mend it. What was stored was checked: [`Definition`] and [`Node`] read it back without checking again.

mod action;
mod check;
mod config;
mod delay;
pub(crate) mod extent;
pub(crate) mod findings;
mod input;
pub(crate) mod read;
pub(crate) mod schema;
mod waits;
mod yaml;

#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use self::action::{check_action, check_action_in};
pub use self::check::{Checked, MOST_BYTES, Refused, check, check_graph, circle, stored_graph};
pub use self::delay::Delay;
pub use self::input::InputSchema;
pub use self::waits::{
    Approval, Call, EXECUTE_PIPELINE, EventWait, OnReject, Undecided, execute_pipeline,
};
pub use self::yaml::from_yaml;
use crate::duration;
use crate::retry::RetryPolicy;

/// The most nodes that a pipeline may have.
pub const MOST_NODES: usize = 20_000;
/// The most edges that a pipeline may have.
pub const MOST_EDGES: usize = 50_000;
/// Whether a text can be the name of a lane.
pub fn is_lane(text: &str) -> bool {
    findings::is_name(text, read::LONGEST_LANE)
}

/// The lane of work that names none.
pub const DEFAULT_LANE: &str = "default";

/// Stands for an id that could not be read. No id is like it.
pub(crate) const UNREADABLE: &str = "\0";

/// A pipeline's definition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Definition {
    /// Unique among the pipelines that are not deleted.
    pub name: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// A JSON Schema for the input of its runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_schema: Option<Value>,
    /// The vertices.
    pub nodes: Vec<Node>,
    /// The arrows.
    #[serde(default)]
    pub edges: Vec<Edge>,
    /// How long a run may take from its start on.
    #[serde(default, with = "duration::option", skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Whether the first failure stops the run's other branches.
    #[serde(default)]
    pub fail_fast: bool,
}

/// A vertex of a pipeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Unique within the pipeline.
    pub id: String,
    /// What kind of node it is.
    #[serde(rename = "type")]
    pub node_type: NodeType,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What the type, or the action, wants to know.
    #[serde(default)]
    pub config: Map<String, Value>,
    /// When it is tried again. None: as what started the run says, else as is usual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryPolicy>,
    /// How long one attempt may execute.
    #[serde(default = "default_timeout", with = "duration")]
    pub timeout: Duration,
    /// Whether, and when, the fleet stops trying for a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<Breaker>,
    /// What happens when its worker dies under it.
    #[serde(default)]
    pub on_worker_lost: OnWorkerLost,
    /// Which workers execute it.
    #[serde(default = "default_lane")]
    pub lane: String,
}

fn default_timeout() -> Duration {
    Node::DEFAULT_TIMEOUT
}

fn default_lane() -> String {
    DEFAULT_LANE.to_owned()
}

impl Node {
    /// How long an attempt may execute that says nothing about it.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5 * 60);

    /// A node with nothing but an id and a type.
    pub fn new(id: impl Into<String>, node_type: NodeType) -> Self {
        Self {
            id: id.into(),
            node_type,
            name: None,
            config: Map::new(),
            retry: None,
            timeout: Self::DEFAULT_TIMEOUT,
            breaker: None,
            on_worker_lost: OnWorkerLost::default(),
            lane: default_lane(),
        }
    }

    /// The action of an action node.
    pub fn action(&self) -> Option<&str> {
        match self.node_type {
            NodeType::Action => self.config.get("action")?.as_str(),
            _ => None,
        }
    }
}

/// What kind of node it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeType {
    /// Where a run begins: outputs the run's input.
    Trigger,
    /// Does something in the world.
    Action,
    /// Lets a language model decide; cannot run here yet.
    Agent,
    /// Outputs `{"result": bool}`.
    Condition,
    /// A marked fork.
    Parallel,
    /// Waits without holding a worker.
    Delay,
    /// Waits until a person decides.
    Approval,
    /// Waits until an event comes.
    WaitForEvent,
}

impl NodeType {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Trigger,
        Self::Action,
        Self::Agent,
        Self::Condition,
        Self::Parallel,
        Self::Delay,
        Self::Approval,
        Self::WaitForEvent,
    ];

    /// The name in JSON, SQL and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trigger => "trigger",
            Self::Action => "action",
            Self::Agent => "agent",
            Self::Condition => "condition",
            Self::Parallel => "parallel",
            Self::Delay => "delay",
            Self::Approval => "approval",
            Self::WaitForEvent => "wait_for_event",
        }
    }

    /// Whether the worker that makes it ready decides it at once, without a message.
    pub fn is_control(self) -> bool {
        matches!(self, Self::Trigger | Self::Condition | Self::Parallel)
    }

    /// Whether it hands on the output of its only predecessor.
    pub fn passes_through(self) -> bool {
        matches!(self, Self::Parallel | Self::Delay)
    }
}

/// An arrow of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// For those who draw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The node that it leaves.
    pub from: String,
    /// The node that it leads to.
    pub to: String,
    /// An expression that must be true for it to be taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// How its source must end for it to be taken.
    #[serde(default)]
    pub when: When,
}

/// How an edge's source must end for it to be taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// It completed.
    #[default]
    Success,
    /// It failed.
    Failure,
    /// However it ended, skipped included.
    Always,
}

/// What happens to a node run whose worker died under it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnWorkerLost {
    /// Another worker runs it again.
    #[default]
    Retry,
    /// It must not be run again: it fails.
    Fail,
}

/// When the fleet stops trying a node for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Breaker {
    /// How many consecutive retryable failures open it.
    pub failure_threshold: u32,
    /// How long it is open before one probe is let through.
    #[serde(with = "duration")]
    pub recovery: Duration,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { failure_threshold: 5, recovery: Duration::from_secs(60) }
    }
}
