//! The database of one run, in memory: what `common::store` writes, by the same decisions, without its SQL.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use common::advance::{Changes, End, Join, Verdict, advance, fresh};
use common::clock::Instant;
use common::context::{Outputs, RunContext};
use common::failure::NodeError;
use common::graph::{EdgeIx, NodeIx};
use common::job::{Job, Reason, Task};
use common::node_run::NodeState;
use common::pipeline::NodeType;
use common::run::{RunEvent, RunState, StopReason};
use common::store::audit::{DoubtfulNode, WorkerSeen};
use common::store::claim::{Claim, Claimed};
use common::store::follow::{self, Follow, Keeping, Places};
use common::store::open_runs::OpenRun;
use common::store::probes::Proof;
use common::store::reclaim::{Found, Life};
use common::store::record::{Outcome, Record, next_state};
use common::store::timers::{Timer, TimerKind};
use common::store::verdict::evaluate;
use common::store::write::Writes;
use common::takeover::may_claim;
use serde_json::{Value, json};
use uuid::Uuid;

mod leader;

/// The only lane.
pub(super) const LANE: &str = "default";

pub(super) struct Model {
    pub(super) context: Arc<RunContext>,
    /// Milliseconds since 1970.
    pub(super) now: i64,
    pub(super) state: RunState,
    pub(super) open: i32,
    failed: bool,
    stop_reason: Option<StopReason>,
    queued_at: i64,
    pub(super) nodes: Vec<Row>,
    pub(super) outbox: Vec<(Job, i64)>,
    timers: BTreeMap<(NodeIx, Kind), i64>,
    locked: BTreeMap<Uuid, bool>,
    probes: Vec<(Uuid, i64, bool)>,
    pub(super) epoch: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Retry,
    Wait,
}

#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) state: NodeState,
    pub(super) attempt: i32,
    pub(super) spent: i32,
    pub(super) losses: i32,
    pub(super) owner: Option<Uuid>,
    pub(super) job: Option<Uuid>,
    waits: bool,
    /// It waits for an answer.
    awaits: bool,
    queued_at: i64,
    join: Join,
}

impl Row {
    /// What has ended stays as it is.
    fn become_(&mut self, state: NodeState) {
        assert!(!self.state.is_terminal(), "a node run that is {:?} becomes {state:?}", self.state);
        self.state = state;
    }
}

pub(super) fn instant(ms: i64) -> Instant {
    Instant::from_timestamp_millis(ms).expect("a time within reach")
}

fn keeping(owner: Option<Uuid>) -> Keeping<'static> {
    Keeping { owner, serves: &|lane| lane == LANE, quick: &|_, _| false }
}

impl Model {
    /// A run that was accepted, with its job in the outbox.
    pub(super) fn new(context: Arc<RunContext>, job: Job, now: i64) -> Self {
        Self {
            context,
            now,
            state: RunState::Queued,
            open: 0,
            failed: false,
            stop_reason: None,
            queued_at: now,
            nodes: Vec::new(),
            outbox: vec![(job, now)],
            timers: BTreeMap::new(),
            locked: BTreeMap::new(),
            probes: Vec::new(),
            epoch: 0,
        }
    }

    fn id(&self, node: NodeIx) -> String {
        self.context.graph.node(node).node.id.clone()
    }

    /// Follows ends, and finds out what conditions say when that is asked.
    fn decide(
        &self,
        ended: &[(NodeIx, End)],
        joins: impl Fn(NodeIx) -> Option<Join>,
        mut verdicts: HashMap<EdgeIx, Verdict>,
    ) -> Changes {
        loop {
            match advance(&self.context.graph, ended, &joins, &verdicts) {
                Ok(changes) => return changes,
                Err(needs) => {
                    assert!(needs.joins.is_empty(), "all joins are known here");
                    for edge in needs.verdicts {
                        let said = evaluate(&self.context, edge, &Value::Null, &Outputs::default());
                        verdicts.insert(edge, said);
                    }
                }
            }
        }
    }

    pub(super) fn start(&mut self, owner: Uuid, job: Uuid) -> Option<Vec<Claimed>> {
        if self.state != RunState::Queued {
            return None;
        }
        let context = self.context.clone();
        let graph = &context.graph;
        let is_trigger = |node: NodeIx| graph.node(node).node.node_type == NodeType::Trigger;
        let (ended, mut ready): (Vec<NodeIx>, Vec<NodeIx>) =
            graph.roots().iter().partition(|root| is_trigger(**root));
        let ended: Vec<(NodeIx, End)> =
            ended.into_iter().map(|node| (node, End::Completed)).collect();
        let mut changes = self.decide(&ended, |node| Some(fresh(graph, node)), HashMap::new());
        ready.append(&mut changes.ready);
        changes.ready = ready;
        let closes = graph.sinks().len() as i32 <= changes.closed_sinks;
        let halts = changes.unhandled.is_some() && graph.fails_fast() && !closes;
        if halts {
            changes.ready.clear();
        }
        for node in 0..graph.len() as NodeIx {
            let is_root = graph.incoming(node).is_empty();
            let state =
                if is_root && is_trigger(node) { NodeState::Completed } else { NodeState::Pending };
            self.nodes.push(Row {
                state,
                attempt: 0,
                spent: 0,
                losses: 0,
                owner: None,
                job: None,
                waits: false,
                awaits: false,
                queued_at: 0,
                join: fresh(graph, node),
            });
        }
        let kept = self.follow(&changes, Some(owner), job, vec![job]);
        self.open = graph.sinks().len() as i32 - changes.closed_sinks;
        self.failed = changes.unhandled.is_some();
        self.state = RunState::Running;
        if halts {
            self.halt(StopReason::FailFast);
            return Some(Vec::new());
        }
        if self.open == 0 {
            self.end(RunEvent::SinksEnded { failed: self.failed });
            return Some(Vec::new());
        }
        Some(kept)
    }

    fn follow(
        &mut self,
        changes: &Changes,
        owner: Option<Uuid>,
        job: Uuid,
        own: Vec<Uuid>,
    ) -> Vec<Claimed> {
        let context = self.context.clone();
        let mut writes = Writes::default();
        let mut places = Places { own, spare: 0 };
        let mut follow = Follow { context: &context, job, seq: 0 };
        let kept = follow.apply(changes, keeping(owner), &mut places, &mut writes);
        for written in writes.nodes {
            let node = context.graph.index(&written.node).expect("a node of the graph");
            let now = self.now;
            let row = &mut self.nodes[node as usize];
            row.become_(written.state);
            row.attempt = written.attempt;
            row.owner = written.owner;
            row.job = written.job;
            let error = written.error.and_then(|error| serde_json::from_value(error).ok());
            row.join = Join {
                open: written.open_in,
                taken: written.taken_in,
                broken: written.broken_in,
                error,
            };
            row.queued_at = now;
        }
        self.outbox.extend(writes.jobs.into_iter().map(|row| (row.job, self.now)));
        kept
    }

    fn end(&mut self, event: RunEvent) {
        self.state = self.state.next(event).expect("a run ends once");
        self.open = 0;
        self.timers.clear();
    }

    pub(super) fn claim(&mut self, owner: Uuid, claim: &Claim) -> Option<Claimed> {
        let node = self.context.graph.index(&claim.node)?;
        let running = self.state == RunState::Running;
        let row = self.nodes.get_mut(node as usize)?;
        if !running || !may_claim(row.state, row.attempt, claim.attempt) {
            return None;
        }
        row.become_(NodeState::Running);
        row.attempt += 1;
        row.owner = Some(owner);
        row.job = Some(claim.job);
        Some(Claimed {
            context: self.context.clone(),
            node,
            attempt: row.attempt,
            spent: row.spent,
            losses: row.losses,
            waiting: row.waits.then(|| json!({"until": "then"})),
            job: claim.job,
        })
    }

    /// None: the fence does not hold.
    pub(super) fn record(&mut self, owner: Option<Uuid>, record: &Record) -> Option<Vec<Claimed>> {
        if self.state.is_terminal() {
            return None;
        }
        let stopping = self.state == RunState::Cancelling;
        let now = self.now;
        let row = self.nodes.get_mut(record.node as usize)?;
        if row.state != NodeState::Running || row.attempt != record.attempt {
            return None;
        }
        let state = next_state(&record.outcome, stopping);
        row.become_(state);
        row.spent += i32::from(record.outcome.is_spent());
        row.losses += i32::from(record.outcome.is_loss());
        let mut claimed = Vec::new();
        match state {
            NodeState::Running => {
                row.attempt += 1;
                row.owner = owner.or(row.owner);
                row.job = Some(record.job);
                claimed.push(Claimed {
                    context: record.context.clone(),
                    node: record.node,
                    attempt: row.attempt,
                    spent: row.spent,
                    losses: row.losses,
                    waiting: row.waits.then(|| json!({"until": "then"})),
                    job: record.job,
                });
            }
            NodeState::Queued => {
                row.queued_at = now;
                let reason = match record.outcome {
                    Outcome::Requeued { .. } => Reason::Recovered,
                    _ => Reason::HandedBack,
                };
                let next = row.attempt + 1;
                self.send(record.node, next, reason);
            }
            NodeState::Waiting => {
                row.waits = true;
                row.awaits = matches!(record.outcome, Outcome::Awaiting { .. });
            }
            _ => {}
        }
        let timer = match (&record.outcome, state) {
            (
                Outcome::Retry { after, .. } | Outcome::LostForNow { after, .. },
                NodeState::Retrying,
            ) => Some((Kind::Retry, after)),
            (Outcome::Waiting { after, .. }, NodeState::Waiting) => Some((Kind::Wait, after)),
            (Outcome::Awaiting { wait }, NodeState::Waiting) => {
                wait.deadline.as_ref().map(|deadline| (Kind::Wait, deadline))
            }
            _ => None,
        };
        if let Some((kind, after)) = timer {
            self.timers.insert((record.node, kind), now + after.as_millis() as i64);
        }
        if stopping {
            self.open -= 1;
            if self.open <= 0 {
                self.end(RunEvent::LastStopped(self.stop_reason.unwrap_or(StopReason::Cancel)));
            }
            return Some(claimed);
        }
        claimed.extend(self.go_on(owner, record));
        Some(claimed)
    }

    fn go_on(&mut self, owner: Option<Uuid>, record: &Record) -> Vec<Claimed> {
        let ended: Vec<(NodeIx, End)> =
            record.outcome.end().map(|end| (record.node, end)).into_iter().collect();
        let joins = |node: NodeIx| Some(self.nodes[node as usize].join.clone());
        let changes = self.decide(&ended, joins, record.verdicts.iter().cloned().collect());
        if changes.unhandled.is_some()
            && self.context.graph.fails_fast()
            && self.open > changes.closed_sinks
        {
            self.halt(StopReason::FailFast);
            return Vec::new();
        }
        let own = if record.goes_on { vec![record.job] } else { Vec::new() };
        let kept = self.follow(&changes, owner, record.job, own);
        self.open -= changes.closed_sinks;
        self.failed |= changes.unhandled.is_some();
        if self.open <= 0 {
            self.end(RunEvent::SinksEnded { failed: self.failed });
        }
        kept
    }

    fn send(&mut self, node: NodeIx, attempt: i32, reason: Reason) {
        let row = follow::job(&self.context, &self.id(node), LANE, attempt, reason);
        self.outbox.push((row.job, self.now));
    }

    /// What waits for an answer.
    pub(super) fn waiting(&self) -> Vec<NodeIx> {
        let waits = |row: &Row| row.state == NodeState::Waiting && row.awaits;
        let nodes = self.nodes.iter().enumerate().filter(|(_, row)| waits(row));
        nodes.map(|(node, _)| node as NodeIx).collect()
    }

    /// Answers what a node waits for; whether it still did.
    pub(super) fn answer(&mut self, node: NodeIx) -> bool {
        let now = self.now;
        let row = &mut self.nodes[node as usize];
        if self.state != RunState::Running || row.state != NodeState::Waiting || !row.awaits {
            return false;
        }
        row.become_(NodeState::Queued);
        row.queued_at = now;
        let next = row.attempt + 1;
        self.timers.remove(&(node, Kind::Wait));
        self.send(node, next, Reason::Decided);
        true
    }

    pub(super) fn cancel(&mut self) {
        if matches!(self.state, RunState::Queued | RunState::Running) {
            self.halt(StopReason::Cancel);
        }
    }

    fn halt(&mut self, reason: StopReason) {
        let mut running = 0;
        for row in &mut self.nodes {
            match row.state {
                NodeState::Running => running += 1,
                state if state.is_terminal() => {}
                _ => row.become_(NodeState::Cancelled),
            }
        }
        self.stop_reason = self.stop_reason.or(Some(reason));
        self.state = self
            .state
            .next(RunEvent::Stopped { reason, running: running > 0 })
            .expect("it goes on");
        self.open = running;
        self.timers.clear();
    }

    pub(super) fn under(&self, job: Uuid) -> Vec<Found> {
        let running = self.nodes.iter().enumerate();
        let running = running.filter(|(_, row)| row.state == NodeState::Running);
        running
            .filter(|(_, row)| row.job == Some(job))
            .map(|(node, row)| Found {
                node: self.id(node as NodeIx),
                attempt: row.attempt,
                losses: row.losses,
                owner: row.owner.expect("what runs has an owner"),
            })
            .collect()
    }

    pub(super) fn life(&self, worker: Uuid) -> Life {
        if self.locked.get(&worker) == Some(&true) { Life::Alive } else { Life::Dead }
    }

    pub(super) fn lock(&mut self, worker: Uuid, held: bool) {
        self.locked.insert(worker, held);
    }

    pub(super) fn confirm(&mut self, job: Uuid) {
        self.outbox.retain(|(row, _)| row.id != job);
    }

    /// All that is compared with another store: a line for the run, one a node run, one a job.
    pub(super) fn shown(&self) -> String {
        let mut lines = vec![format!("run {} open {}", self.state.name(), self.open)];
        for (node, row) in self.nodes.iter().enumerate() {
            let join = &row.join;
            let counters = match row.state {
                NodeState::Pending => format!("{}{}{}", join.open, join.taken, join.broken),
                _ => String::new(),
            };
            lines.push(format!(
                "{} {} attempt {} spent {} losses {} owner {:?} job {:?} {counters}",
                self.id(node as NodeIx),
                row.state.name(),
                row.attempt,
                row.spent,
                row.losses,
                row.owner,
                row.job
            ));
        }
        lines[1..].sort();
        let mut jobs: Vec<String> = self.outbox.iter().map(|(job, _)| task(job)).collect();
        jobs.sort();
        lines.extend(jobs);
        lines.join("\n")
    }

    /// The error of a stand-in for user code.
    pub(super) fn error(&self, node: NodeIx, kind: common::failure::ErrorKind) -> NodeError {
        NodeError::new(kind, "as the plan says", &self.id(node))
    }
}

/// A job, without the ids that differ from store to store.
pub(super) fn task(job: &Job) -> String {
    match &job.task {
        Task::RunStart { .. } => format!("start {}", job.reason.name()),
        Task::NodeExecute { node, attempt, .. } => {
            format!("execute {node} {attempt} {}", job.reason.name())
        }
        Task::Probe { .. } => "probe".to_owned(),
        Task::ChildEnded { .. } | Task::ChildrenStop { .. } => {
            unreachable!("the run has no others above or below it")
        }
        Task::ToolCall { .. } => unreachable!("no node of the simulation calls a remote tool"),
    }
}
