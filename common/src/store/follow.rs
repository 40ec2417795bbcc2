//! From what [`advance`](crate::advance) decided to rows: who executes a ready node, and which job asks for it.

use std::sync::Arc;

use uuid::Uuid;

use crate::advance::{Changes, Join};
use crate::broker::tool_lane;
use crate::context::RunContext;
use crate::graph::NodeIx;
use crate::job::{Job, Reason, Task};
use crate::node_run::NodeState;
use crate::outbox;
use crate::pipeline::NodeType;
use crate::remote::Call;
use crate::store::claim::Claimed;
use crate::store::write::{NodeRow, Writes};

/// What a process is ready to go on with by itself.
#[derive(Clone, Copy)]
pub struct Keeping<'a> {
    /// The worker that claims; none for the leader, which sends everything.
    pub owner: Option<Uuid>,
    /// Whether it serves a lane.
    pub serves: &'a (dyn Fn(&str) -> bool + Sync),
    /// Whether a node has been quick here.
    pub quick: &'a (dyn Fn(&RunContext, NodeIx) -> bool + Sync),
}

/// Where what is kept goes on.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// The jobs of slots whose node run has just ended: each goes on with one successor.
    pub own: Vec<Uuid>,
    /// Slots that quick successors may fill besides.
    pub spare: usize,
}

/// Whether a node is decided by the worker that makes it ready, and never sent.
pub fn is_control(node_type: NodeType) -> bool {
    matches!(node_type, NodeType::Condition | NodeType::Parallel)
}

/// One run within a batch, while its changes are put together.
pub struct Follow<'a> {
    /// The run.
    pub context: &'a Arc<RunContext>,
    /// The job under which what is kept runs, where no slot's own job is named.
    pub job: Uuid,
    /// The run's count of changes so far.
    pub seq: i64,
}

impl Follow<'_> {
    /// Adds the rows of `changes`, and returns what is kept.
    pub fn apply(
        &mut self,
        changes: &Changes,
        keeping: Keeping<'_>,
        places: &mut Places,
        writes: &mut Writes,
    ) -> Vec<Claimed> {
        for (node, join) in &changes.pending {
            let row = self.row(*node, NodeState::Pending, join);
            writes.nodes.push(row);
        }
        for node in &changes.skipped {
            let row = self.row(*node, NodeState::Skipped, &Join::default());
            writes.nodes.push(row);
        }
        for (node, error) in &changes.failed {
            let mut row = self.row(*node, NodeState::Failed, &Join::default());
            row.error = serde_json::to_value(error).ok();
            writes.nodes.push(row);
        }
        self.ready(&changes.ready, keeping, places, writes)
    }

    /// Claims or sends nodes that are ready.
    pub fn ready(
        &mut self,
        ready: &[NodeIx],
        keeping: Keeping<'_>,
        places: &mut Places,
        writes: &mut Writes,
    ) -> Vec<Claimed> {
        let mut kept = Vec::new();
        for &node in ready {
            let place = keeping.owner.zip(self.place(node, keeping, places));
            match place {
                Some((owner, job)) => {
                    let mut row = self.row(node, NodeState::Running, &Join::default());
                    row.attempt = 1;
                    row.owner = Some(owner);
                    row.job = Some(job);
                    writes.nodes.push(row);
                    kept.push(self.claimed(node, job));
                }
                None => {
                    let row = self.row(node, NodeState::Queued, &Join::default());
                    writes.jobs.push(job(self.context, &row.node, &row.lane, 1, Reason::FanOut));
                    writes.nodes.push(row);
                }
            }
        }
        kept
    }

    /// The job under which this worker goes on with `node`; none when it is sent.
    fn place(&self, node: NodeIx, keeping: Keeping<'_>, places: &mut Places) -> Option<Uuid> {
        let definition = &self.context.graph.node(node).node;
        if is_control(definition.node_type) {
            return Some(self.job);
        }
        if !(keeping.serves)(&definition.lane) {
            return None;
        }
        if let Some(job) = places.own.pop() {
            return Some(job);
        }
        if places.spare > 0 && (keeping.quick)(self.context, node) {
            places.spare -= 1;
            return Some(self.job);
        }
        None
    }

    /// A row for `node`, with its place in the run's count.
    pub fn row(&mut self, node: NodeIx, state: NodeState, join: &Join) -> NodeRow {
        let definition = &self.context.graph.node(node).node;
        self.seq += 1;
        NodeRow {
            run: self.context.id,
            node: definition.id.clone(),
            state,
            lane: definition.lane.clone(),
            attempt: 0,
            open_in: join.open,
            taken_in: join.taken,
            broken_in: join.broken,
            owner: None,
            job: None,
            output: None,
            error: join.error.as_ref().and_then(|error| serde_json::to_value(error).ok()),
            seq: self.seq,
        }
    }

    fn claimed(&self, node: NodeIx, job: Uuid) -> Claimed {
        Claimed {
            context: self.context.clone(),
            node,
            attempt: 1,
            spent: 0,
            losses: 0,
            waiting: None,
            job,
        }
    }
}

/// A row that tells the run that has started this one that it has ended; none if no run has. `lane` is one of its own.
pub fn told(context: &RunContext, lane: &str) -> Option<outbox::Row> {
    let parent = context.parent.as_ref()?;
    Some(outbox::Row::new(
        lane,
        Job {
            id: Uuid::now_v7(),
            task: Task::ChildEnded { run: parent.run, child: context.id },
            reason: Reason::ChildEnded,
            pipeline: context.pipeline.clone(),
            version: context.version,
            traceparent: context.traceparent.clone(),
        },
    ))
}

/// A row that calls a remote tool for `attempt` of a node run.
pub fn call(context: &RunContext, node: &str, attempt: i32, call: &Call) -> outbox::Row {
    let task = Task::ToolCall {
        run: context.id,
        node: node.to_owned(),
        attempt,
        call: Box::new(call.clone()),
    };
    outbox::Row::new(
        tool_lane(&call.tool),
        Job {
            id: Uuid::now_v7(),
            task,
            reason: Reason::Called,
            pipeline: context.pipeline.clone(),
            version: context.version,
            traceparent: context.traceparent.clone(),
        },
    )
}

/// A row that asks for `attempt` of a node run.
pub fn job(
    context: &RunContext,
    node: &str,
    lane: &str,
    attempt: i32,
    reason: Reason,
) -> outbox::Row {
    outbox::Row::new(
        lane,
        Job {
            id: Uuid::now_v7(),
            task: Task::NodeExecute { run: context.id, node: node.to_owned(), attempt },
            reason,
            pipeline: context.pipeline.clone(),
            version: context.version,
            traceparent: context.traceparent.clone(),
        },
    )
}
