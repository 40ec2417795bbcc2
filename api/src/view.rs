//! Runs as clients see them.

use std::collections::HashMap;

use common::clock::{self, Instant};
use common::node_run::NodeState;
use common::run::{RunKind, RunState};
use common::store::pipelines::Outlined;
use common::store::runs::{self, NodeRun, Run};
use common::wait::Parent;
use serde::{Serialize, Serializer};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

/// An instant as the api writes it.
#[derive(Debug, ToSchema)]
#[schema(value_type = String, format = DateTime)]
pub(crate) struct Stamp(pub(crate) Instant);

impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        clock::serialize(&self.0, serializer)
    }
}

/// A run, whole.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RunView {
    id: Uuid,
    /// `pipeline` or `action`.
    #[schema(value_type = String)]
    kind: RunKind,
    pipeline: Option<String>,
    /// The version to which it is pinned.
    version: Option<i32>,
    /// `queued`, `running`, `cancelling`, `completed`, `failed`, `cancelled` or `timed_out`.
    #[schema(value_type = String)]
    state: RunState,
    input: Value,
    /// Once it completed: the output of the completed sink; of several, an object by node id.
    output: Option<Value>,
    /// `{kind, message, node}` of the first failure that no failure edge took up.
    error: Option<Value>,
    /// What asked for it.
    trigger: Value,
    tags: Vec<String>,
    /// Who asked for it: a user's id, `key:<prefix>`, or the name in an operator's token.
    created_by: String,
    rerun_of: Option<Uuid>,
    /// The run and the node that started it, and its place among those that the node has started.
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<ParentView>,
    created_at: Stamp,
    started_at: Option<Stamp>,
    finished_at: Option<Stamp>,
    /// In the definition's order.
    nodes: Vec<NodeView>,
}

/// Where a run comes from that another has started.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ParentView {
    run: Uuid,
    node: String,
    index: i32,
}

impl ParentView {
    fn of(trigger: &Value) -> Option<Self> {
        let Parent { run, node, index, .. } = Parent::of(trigger)?;
        Some(Self { run, node, index })
    }
}

/// A node run within a run.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NodeView {
    id: String,
    #[serde(rename = "type")]
    node_type: String,
    /// `pending`, `queued`, `running`, `retrying`, `waiting`, `completed`, `failed`, `skipped` or `cancelled`.
    #[schema(value_type = String)]
    state: NodeState,
    attempt: i32,
    output: Option<Value>,
    /// The output is over 4 KiB, and is left out here; the node's own address has it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    output_omitted: bool,
    error: Option<Value>,
    /// What it waits for, while it waits: `for` says which kind of thing, and the rest depends on that.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<Value>,
    started_at: Option<Stamp>,
    finished_at: Option<Stamp>,
}

impl NodeView {
    fn new(outlined: &Outlined, run: Option<NodeRun>, unwritten: NodeState) -> Self {
        let (id, node_type) = (outlined.id.clone(), outlined.node_type.clone());
        let Some(run) = run else {
            return Self {
                id,
                node_type,
                state: unwritten,
                attempt: 0,
                output: None,
                output_omitted: false,
                error: None,
                waiting: None,
                started_at: None,
                finished_at: None,
            };
        };
        Self {
            id,
            node_type,
            state: run.state,
            attempt: run.attempt,
            output: run.output,
            output_omitted: run.output_omitted,
            error: run.error,
            waiting: run.waiting,
            started_at: run.started_at.map(Stamp),
            finished_at: run.finished_at.map(Stamp),
        }
    }
}

/// The state of a node whose run wrote no node runs: it waits for the start, or the run was stopped before it.
pub(crate) fn unwritten(run: RunState) -> NodeState {
    if run.is_terminal() { NodeState::Cancelled } else { NodeState::Pending }
}

impl RunView {
    pub(crate) fn new(run: Run, outline: &[Outlined]) -> Self {
        let mut written: HashMap<String, NodeRun> =
            run.nodes.0.into_iter().map(|node| (node.node.clone(), node)).collect();
        let unwritten = unwritten(run.state);
        let nodes = outline
            .iter()
            .map(|outlined| NodeView::new(outlined, written.remove(&outlined.id), unwritten))
            .collect();
        Self {
            id: run.id,
            kind: run.kind,
            pipeline: run.pipeline,
            version: run.version,
            state: run.state,
            input: run.input,
            output: run.output,
            error: run.error,
            parent: ParentView::of(&run.trigger),
            trigger: run.trigger,
            tags: run.tags,
            created_by: run.created_by,
            rerun_of: run.rerun_of,
            created_at: Stamp(run.created_at),
            started_at: run.started_at.map(Stamp),
            finished_at: run.finished_at.map(Stamp),
            nodes,
        }
    }
}

/// A run in a list: without its input, its output and its nodes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RunSummary {
    id: Uuid,
    #[schema(value_type = String)]
    kind: RunKind,
    pipeline: Option<String>,
    version: Option<i32>,
    #[schema(value_type = String)]
    state: RunState,
    error: Option<Value>,
    trigger: Value,
    tags: Vec<String>,
    /// Who asked for it: a user's id, `key:<prefix>`, or the name in an operator's token.
    created_by: String,
    rerun_of: Option<Uuid>,
    /// The run and the node that started it, and its place among those that the node has started.
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<ParentView>,
    created_at: Stamp,
    started_at: Option<Stamp>,
    finished_at: Option<Stamp>,
}

impl From<runs::Summary> for RunSummary {
    fn from(run: runs::Summary) -> Self {
        Self {
            id: run.id,
            kind: run.kind,
            pipeline: run.pipeline,
            version: run.version,
            state: run.state,
            error: run.error,
            parent: ParentView::of(&run.trigger),
            trigger: run.trigger,
            tags: run.tags,
            created_by: run.created_by,
            rerun_of: run.rerun_of,
            created_at: Stamp(run.created_at),
            started_at: run.started_at.map(Stamp),
            finished_at: run.finished_at.map(Stamp),
        }
    }
}

/// What is answered to a submission: as much as is known before a worker has it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AcceptedRun {
    pub(crate) id: Uuid,
    /// `pipeline` or `action`.
    pub(crate) kind: &'static str,
    pub(crate) pipeline: Option<String>,
    pub(crate) version: Option<i32>,
    /// `queued`.
    pub(crate) state: &'static str,
}
