//! Workers, a broker and leaders around a store: what each may do next, and in which order, a seed decides.
//!
//! A step is as small as what a crash can come between: a commit, what is done with its answer, an ack.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::advance::Verdict;
use common::context::Outputs;
use common::failure::ErrorKind;
use common::graph::{EdgeIx, NodeIx};
use common::job::{Job, Task};
use common::pipeline::{NodeType, When};
use common::run::RunState;
use common::store::claim::{Claim, Claimed};
use common::store::reclaim::{Found, Life, loss};
use common::store::record::{Outcome, Record};
use common::store::verdict::evaluate;
use common::takeover::{AtHand, Holder, OnDelivery, OnFound, on_delivery, on_found};
use common::wait::{Wait, WaitKind};
use rand::RngExt;
use rand::rngs::SmallRng;
use scheduler::duty::audit::lanes::Lanes;
use scheduler::duty::audit::owners::Owners;
use scheduler::duty::audit::verdict::{self, Repair};
use serde_json::{Value, json};
use uuid::Uuid;

use super::model::{LANE, Model};
use super::postgres::Mirror;
use crate::interpreter::{Kind, Plan};

mod broker;
mod execution;
mod leaders;
mod workers;

pub(super) struct World<'a> {
    pub(super) plan: &'a Plan,
    pub(super) model: Model,
    pub(super) mirror: Option<&'a mut Mirror>,
    random: SmallRng,
    began: Instant,
    started_at: i64,
    workers: Vec<Worker>,
    queue: Vec<Job>,
    leaders: [Leader; 2],
    /// Which of the two holds the lock.
    elected: Option<usize>,
    /// How often each node was executed.
    pub(super) effects: BTreeMap<NodeIx, i32>,
    pub(super) cancelled: bool,
    /// What was done, for the reader of a failure.
    pub(super) steps: Vec<String>,
    crashes: usize,
    /// Beyond two, node runs fail for being poison.
    most_crashes: usize,
    is_told: bool,
}

struct Worker {
    id: Uuid,
    alive: bool,
    frozen: bool,
    locked: bool,
    held: Vec<Held>,
}

/// A job at hand.
struct Held {
    job: Job,
    /// The delivery can still be acked.
    delivered: bool,
    stage: Stage,
    running: Vec<Running>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Stage {
    Begin,
    Look { asked: u32 },
    Run,
}

struct Running {
    claimed: Claimed,
    /// Its user code has run.
    outcome: Option<Outcome>,
}

#[derive(Default)]
struct Leader {
    /// As far as it knows itself.
    epoch: Option<i64>,
    owners: Owners,
    lanes: Lanes,
    repairs: Vec<Repair>,
}

/// How often the owner of what is found running is asked.
const LOOKS: u32 = 3;

impl<'a> World<'a> {
    pub(super) fn new(
        plan: &'a Plan,
        model: Model,
        mirror: Option<&'a mut Mirror>,
        mut random: SmallRng,
        is_told: bool,
    ) -> Self {
        Self {
            most_crashes: if random.random_bool(0.2) { 5 } else { 2 },
            is_told,
            plan,
            started_at: model.now,
            model,
            mirror,
            random,
            began: Instant::now(),
            workers: Vec::new(),
            queue: Vec::new(),
            leaders: Default::default(),
            elected: None,
            effects: BTreeMap::new(),
            cancelled: false,
            steps: Vec::new(),
            crashes: 0,
        }
    }

    fn at(&self) -> Instant {
        self.began + Duration::from_millis((self.model.now - self.started_at) as u64)
    }

    fn note(&mut self, step: impl Into<String>) {
        let step = step.into();
        if self.is_told {
            println!("{step}");
        }
        self.steps.push(step);
    }

    /// The mirror has done the same: it must look the same, too.
    async fn same(&mut self) {
        if let Some(mirror) = &mut self.mirror {
            let theirs = mirror.shown(&mut self.model).await;
            let ours = self.model.shown();
            assert_eq!(
                ours,
                theirs,
                "model (left) and Postgres (right) differ after: {:?}",
                self.steps.last()
            );
        }
    }

    /// Faults and work in a random order; then only work, until nothing is left to do.
    pub(super) async fn run(&mut self) {
        for _ in 0..2 {
            self.hire().await;
        }
        for _ in 0..self.random.random_range(20..120) {
            self.step().await;
        }
        self.heal().await;
    }

    async fn step(&mut self) {
        let worker = self.random.random_range(0..self.workers.len());
        match self.random.random_range(0..100) {
            0..14 => self.publish().await,
            14..30 => self.deliver(worker).await,
            30..62 => drop(self.work(worker).await),
            62..65 => self.duplicate(),
            65..67 => self.lose_messages(),
            67..69 => self.drop_link(worker),
            69..72 => self.crash(worker).await,
            72..74 => self.freeze(worker).await,
            74..77 => self.thaw(worker).await,
            77..80 => self.hire_another().await,
            80..83 => self.elect().await,
            83..84 => self.unseat().await,
            84..88 => drop(self.fire().await),
            88..91 => self.look().await,
            91..94 => self.repair().await,
            94..95 => self.cancel().await,
            95..97 => drop(self.decide().await),
            _ => {
                let time = [50, 700, 3_000, 9_000, 16_000][self.random.random_range(0..5)];
                self.tick(time).await;
            }
        }
    }

    /// No more faults: everything goes on until nothing is left to do.
    async fn heal(&mut self) {
        self.note("no more faults");
        for worker in 0..self.workers.len() {
            self.thaw(worker).await;
        }
        if !self.workers.iter().any(|worker| worker.alive) {
            self.hire().await;
        }
        for _ in 0..120 {
            while let Some((job, _)) = self.model.outbox.first().cloned() {
                self.queue.push(job.clone());
                self.confirm(&job).await;
            }
            for worker in 0..self.workers.len() {
                if self.workers[worker].alive {
                    while !self.queue.is_empty() {
                        self.deliver(worker).await;
                    }
                    while self.work(worker).await {}
                }
            }
            let at_rest = self.queue.is_empty() && self.model.outbox.is_empty();
            if self.model.state.is_terminal() && at_rest {
                return;
            }
            if at_rest {
                if self.elected.is_none() {
                    self.elect().await;
                }
                self.fire().await;
                while self.decide().await {}
                self.look().await;
                while self.leaders.iter().any(|leader| !leader.repairs.is_empty()) {
                    self.repair().await;
                }
                self.tick(2_500).await;
            }
        }
        panic!("the run does not end: {}", self.model.shown());
    }

    /// Whether a run is over whose ending faults may have changed.
    pub(super) fn may_differ(&self) -> bool {
        let lost = |row: &super::model::Row| row.losses >= common::takeover::MAX_LOSSES;
        self.cancelled
            || self.model.nodes.iter().any(lost)
            || (self.plan.fail_fast && self.model.state == RunState::Failed)
    }

    /// Control nodes and triggers count no effects of their own.
    pub(super) fn is_executed(&self, node: NodeIx) -> bool {
        self.model.context.graph.node(node).node.node_type != NodeType::Trigger
    }
}

/// What was claimed, to be compared.
fn names(claimed: &Option<Vec<Claimed>>) -> Option<Vec<String>> {
    let name = |it: &Claimed| {
        let waits = it.waiting.is_some();
        format!(
            "{} attempt {} spent {} losses {} waits {waits}",
            it.id(),
            it.attempt,
            it.spent,
            it.losses
        )
    };
    claimed.as_ref().map(|claimed| claimed.iter().map(name).collect())
}

/// A verdict, without instants.
pub(super) fn shown(verdict: &verdict::Verdict) -> String {
    use verdict::Verdict::{Fine, NeedsProof, SeemsStuck};
    match verdict {
        Fine => "fine".to_owned(),
        NeedsProof => "needs proof".to_owned(),
        SeemsStuck => "seems stuck".to_owned(),
        verdict::Verdict::Needs(repair) => format!("{repair:?}"),
    }
}
