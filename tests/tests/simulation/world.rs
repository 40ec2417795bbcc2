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
            _ => {
                let time = [50, 700, 3_000, 9_000, 16_000][self.random.random_range(0..5)];
                self.tick(time).await;
            }
        }
    }

    // ── The broker ──

    async fn publish(&mut self) {
        if self.model.outbox.is_empty() {
            return;
        }
        let (job, _) = &self.model.outbox[self.random.random_range(0..self.model.outbox.len())];
        let job = job.clone();
        self.queue.push(job.clone());
        // Else the confirm is lost, and the row is sent again later.
        if self.random.random_bool(0.8) {
            self.confirm(&job).await;
        }
    }

    async fn confirm(&mut self, job: &Job) {
        self.note(format!("confirm {}", job.id));
        self.model.confirm(job.id);
        if let Some(mirror) = &mut self.mirror {
            mirror.confirm(job.id).await;
        }
        self.same().await;
    }

    async fn deliver(&mut self, worker: usize) {
        let free = self.workers[worker].alive && !self.workers[worker].frozen;
        if !free || self.queue.is_empty() {
            return;
        }
        let job = self.queue.swap_remove(self.random.random_range(0..self.queue.len()));
        if let Task::Probe { probe } = job.task {
            self.note("a probe arrives");
            self.model.arrived(probe);
            if let Some(mirror) = &mut self.mirror {
                mirror.arrived(probe).await;
            }
            return;
        }
        let at_hand = self.workers[worker].held.iter_mut().find(|held| held.job.id == job.id);
        let decided = on_delivery(match &at_hand {
            None => AtHand::Nothing,
            Some(held) if held.delivered => AtHand::Delivered,
            Some(_) => AtHand::Undelivered,
        });
        let what = format!("worker {worker} gets {:?}: {decided:?}", job.task);
        match (decided, at_hand) {
            (OnDelivery::Adopt, Some(held)) => held.delivered = true,
            (OnDelivery::Begin, _) => {
                let held = Held { job, delivered: true, stage: Stage::Begin, running: Vec::new() };
                self.workers[worker].held.push(held);
            }
            _ => {}
        }
        self.note(what);
    }

    fn duplicate(&mut self) {
        if !self.queue.is_empty() {
            let copy = self.queue[self.random.random_range(0..self.queue.len())].clone();
            self.note("a message is duplicated");
            self.queue.push(copy);
        }
    }

    fn lose_messages(&mut self) {
        if self.queue.is_empty() {
            return;
        }
        if self.random.random_bool(0.3) {
            self.note("the queue is purged");
            self.queue.clear();
        } else {
            self.note("a message is lost");
            self.queue.swap_remove(self.random.random_range(0..self.queue.len()));
        }
    }

    /// The worker goes on; what it holds is delivered again.
    fn drop_link(&mut self, worker: usize) {
        for held in &mut self.workers[worker].held {
            if std::mem::take(&mut held.delivered) {
                self.queue.push(held.job.clone());
            }
        }
        self.note(format!("worker {worker} loses its channel"));
    }

    // ── Workers ──

    async fn hire(&mut self) {
        let id = Uuid::now_v7();
        self.workers.push(Worker {
            id,
            alive: true,
            frozen: false,
            locked: true,
            held: Vec::new(),
        });
        self.note(format!("worker {} starts: {id}", self.workers.len() - 1));
        self.lock(self.workers.len() - 1, true).await;
    }

    async fn hire_another(&mut self) {
        if self.workers.iter().filter(|worker| worker.alive).count() < 3 && self.workers.len() < 8 {
            self.hire().await;
        }
    }

    async fn lock(&mut self, worker: usize, held: bool) {
        let id = self.workers[worker].id;
        self.workers[worker].locked = held;
        self.model.lock(id, held);
        if let Some(mirror) = &mut self.mirror {
            mirror.lock(id, held).await;
        }
    }

    async fn crash(&mut self, worker: usize) {
        if !self.workers[worker].alive || self.crashes >= self.most_crashes {
            return;
        }
        self.crashes += 1;
        self.note(format!("worker {worker} crashes"));
        self.drop_link(worker);
        self.workers[worker].alive = false;
        self.workers[worker].frozen = false;
        self.workers[worker].held.clear();
        self.lock(worker, false).await;
    }

    /// It halts, and its servers give it up: its lock is free, its deliveries go back.
    async fn freeze(&mut self, worker: usize) {
        if !self.workers[worker].alive
            || self.workers[worker].frozen
            || self.crashes >= self.most_crashes
        {
            return;
        }
        self.crashes += 1;
        self.note(format!("worker {worker} freezes"));
        self.workers[worker].frozen = true;
        self.drop_link(worker);
        self.lock(worker, false).await;
    }

    async fn thaw(&mut self, worker: usize) {
        if !self.workers[worker].frozen {
            return;
        }
        self.note(format!("worker {worker} thaws"));
        self.workers[worker].frozen = false;
        // It may record before it has its lock again.
        if self.random.random_bool(0.5) {
            self.work(worker).await;
        }
        self.lock(worker, true).await;
    }

    /// One step of one job at hand; none when there is none.
    async fn work(&mut self, worker: usize) -> bool {
        let free = self.workers[worker].alive && !self.workers[worker].frozen;
        if !free || self.workers[worker].held.is_empty() {
            return false;
        }
        let place = self.random.random_range(0..self.workers[worker].held.len());
        let held = &self.workers[worker].held[place];
        match held.stage {
            Stage::Begin if self.workers[worker].locked => self.begin(worker, place).await,
            Stage::Begin => return false,
            Stage::Look { asked } => self.look_under(worker, place, asked).await,
            Stage::Run if held.running.is_empty() => {
                // The ack: a message is gone for good.
                let held = self.workers[worker].held.swap_remove(place);
                self.note(format!("worker {worker} acks {}", held.job.id));
            }
            Stage::Run => {
                let which = self.random.random_range(0..held.running.len());
                match held.running[which].outcome {
                    None => self.execute(worker, place, which),
                    Some(_) => self.record_outcome(worker, place, which).await,
                }
            }
        }
        true
    }

    async fn begin(&mut self, worker: usize, place: usize) {
        let (id, job) = (self.workers[worker].id, self.workers[worker].held[place].job.clone());
        let claimed = match &job.task {
            Task::RunStart { .. } => {
                let started = self.model.start(id, job.id);
                if let Some(mirror) = &mut self.mirror {
                    let theirs = mirror.start(&self.model, id, job.id).await;
                    assert_eq!(names(&started), names(&theirs), "start");
                }
                started
            }
            Task::NodeExecute { run, node, attempt } => {
                let claim = Claim { run: *run, node: node.clone(), attempt: *attempt, job: job.id };
                let claimed = self.model.claim(id, &claim).map(|claimed| vec![claimed]);
                if let Some(mirror) = &mut self.mirror {
                    let theirs = mirror.claim(&claim, id).await;
                    assert_eq!(names(&claimed), names(&theirs), "claim");
                }
                claimed
            }
            Task::Probe { .. } => None,
        };
        self.note(format!("worker {worker} begins {:?}: {:?}", job.task, names(&claimed)));
        match claimed {
            Some(claimed) => {
                self.workers[worker].held[place].stage = Stage::Run;
                self.assign(worker, place, claimed);
            }
            None => self.workers[worker].held[place].stage = Stage::Look { asked: 0 },
        }
        self.same().await;
    }

    /// What is executed here in the same or a later attempt is not executed twice.
    fn assign(&mut self, worker: usize, place: usize, claimed: Vec<Claimed>) {
        for one in claimed {
            let executed = self.workers[worker].held.iter().flat_map(|held| &held.running);
            let mut executed = executed.filter(|it| it.claimed.node == one.node);
            if executed.any(|it| it.claimed.attempt >= one.attempt) {
                continue;
            }
            let running = Running { claimed: one, outcome: None };
            self.workers[worker].held[place].running.push(running);
        }
    }

    async fn look_under(&mut self, worker: usize, place: usize, asked: u32) {
        let job = self.workers[worker].held[place].job.id;
        let found = self.model.under(job);
        if let Some(mirror) = &mut self.mirror {
            let theirs = mirror.under(&self.model, job).await;
            let shown = |found: &[Found]| format!("{found:?}");
            assert_eq!(shown(&found), shown(&theirs), "under");
        }
        let mut again = false;
        for one in found {
            let holder = self.holder(worker, &one).await;
            let decided = on_found(holder, false);
            self.note(format!("worker {worker} finds {} {holder:?}: {decided:?}", one.node));
            match decided {
                OnFound::TakeOver => {
                    if let Some(record) = loss(self.model.context.clone(), &one, job, true) {
                        assert!(self.is_lost(one.owner, record.node, one.attempt), "it lives");
                        let kept = self.record(Some(self.workers[worker].id), &record).await;
                        self.assign(worker, place, kept.unwrap_or_default());
                    }
                }
                OnFound::AskAgain => again = true,
                OnFound::LookTwice | OnFound::Leave => {}
            }
        }
        self.workers[worker].held[place].stage =
            if again && asked + 1 < LOOKS { Stage::Look { asked: asked + 1 } } else { Stage::Run };
    }

    async fn holder(&mut self, worker: usize, found: &Found) -> Holder {
        if found.owner == self.workers[worker].id {
            let node = self.model.context.graph.index(&found.node);
            let mut running = self.workers[worker].held.iter().flat_map(|held| &held.running);
            let executing = running
                .any(|it| Some(it.claimed.node) == node && it.claimed.attempt == found.attempt);
            return Holder::Here { executing };
        }
        let life = self.model.life(found.owner);
        if let Some(mirror) = &mut self.mirror {
            assert_eq!(life, mirror.life(found.owner).await, "life");
        }
        assert_ne!(life, Life::Unsure, "nobody restarts Postgres here");
        Holder::There(life)
    }

    fn execute(&mut self, worker: usize, place: usize, which: usize) {
        let claimed = self.workers[worker].held[place].running[which].claimed.clone();
        let node = claimed.node;
        *self.effects.entry(node).or_default() += 1;
        let completed = |output: Value| {
            let text = output.to_string();
            Outcome::Completed { output: output.into(), text }
        };
        let failed = |kind| Outcome::Failed { error: self.model.error(node, kind), spent: true };
        let outcome = match &self.plan.nodes[node as usize] {
            Kind::Fails | Kind::Condition(crate::interpreter::Test::Undefined) => {
                failed(ErrorKind::Permanent)
            }
            Kind::Flaky(Some(failures)) if claimed.spent < (*failures).cast_signed() => {
                let error = self.model.error(node, ErrorKind::Retryable);
                let after = Duration::from_secs(1);
                Outcome::Retry { error, after, spent: true, breaker: None }
            }
            Kind::Delay if claimed.waiting.is_none() => Outcome::Waiting {
                waiting: json!({"until": "then"}),
                after: Duration::from_secs(3),
                at: None,
            },
            Kind::Condition(test) => {
                let result = matches!(test, crate::interpreter::Test::Always(true));
                completed(json!({"result": result}))
            }
            _ => completed(json!({"value": 1})),
        };
        self.note(format!("worker {worker} executes {node} attempt {}", claimed.attempt));
        self.workers[worker].held[place].running[which].outcome = Some(outcome);
    }

    /// What a worker evaluates before it records: the conditions of the edges that leave.
    fn verdicts(&self, node: NodeIx, outcome: &Outcome) -> Vec<(EdgeIx, Verdict)> {
        let graph = &self.model.context.graph;
        let (fits, output): (&[When], Value) = match outcome {
            Outcome::Completed { output, .. } => {
                (&[When::Success, When::Always], (**output).clone())
            }
            Outcome::Failed { .. } => (&[When::Failure, When::Always], Value::Null),
            _ => return Vec::new(),
        };
        let outgoing = graph.outgoing(node).iter().copied();
        outgoing
            .filter(|edge| fits.contains(&graph.edge(*edge).when))
            .map(|edge| (edge, evaluate(&self.model.context, edge, &output, &Outputs::default())))
            .collect()
    }

    async fn record_outcome(&mut self, worker: usize, place: usize, which: usize) {
        let running = self.workers[worker].held[place].running.swap_remove(which);
        let outcome = running.outcome.expect("it was executed");
        let record = Record {
            context: self.model.context.clone(),
            node: running.claimed.node,
            attempt: running.claimed.attempt,
            job: running.claimed.job,
            verdicts: self.verdicts(running.claimed.node, &outcome),
            outcome,
            goes_on: true,
        };
        let owner = self.workers[worker].locked.then_some(self.workers[worker].id);
        if let Some(kept) = self.record(owner, &record).await {
            self.assign(worker, place, kept);
        }
    }

    /// Nothing is taken from a worker that lives and executes it.
    fn is_lost(&self, owner: Uuid, node: NodeIx, attempt: i32) -> bool {
        let owner = self.workers.iter().find(|worker| worker.id == owner).expect("a worker");
        let mut running = owner.held.iter().flat_map(|held| &held.running);
        !owner.locked || !running.any(|it| it.claimed.node == node && it.claimed.attempt == attempt)
    }

    async fn record(&mut self, owner: Option<Uuid>, record: &Record) -> Option<Vec<Claimed>> {
        let kept = self.model.record(owner, record);
        if let Some(mirror) = &mut self.mirror {
            let theirs = mirror.record(owner, record).await;
            assert_eq!(names(&kept), names(&theirs), "record of {record:?}");
        }
        self.note(format!(
            "record {} attempt {} {:?}: {:?}",
            record.node,
            record.attempt,
            record.outcome,
            names(&kept)
        ));
        self.same().await;
        kept
    }

    async fn cancel(&mut self) {
        if self.random.random_bool(0.7) {
            return;
        }
        self.cancelled = true;
        self.note("cancel");
        self.model.cancel();
        if let Some(mirror) = &mut self.mirror {
            mirror.cancel().await;
        }
        self.same().await;
    }

    // ── Leaders ──

    /// A candidate asks for the lock.
    async fn elect(&mut self) {
        let candidate = self.random.random_range(0..2);
        if self.leaders[candidate].epoch.is_some() {
            return;
        }
        let won = self.elected.is_none();
        if let Some(mirror) = &mut self.mirror {
            let epoch = mirror.campaign(candidate).await;
            assert_eq!(won.then_some(self.model.epoch + 1), epoch, "election");
        }
        if won {
            self.model.epoch += 1;
            self.elected = Some(candidate);
            self.leaders[candidate] = Leader { epoch: Some(self.model.epoch), ..Leader::default() };
            self.note(format!("scheduler {candidate} leads, epoch {}", self.model.epoch));
        }
    }

    /// The leader's session ends, and it does not know yet.
    async fn unseat(&mut self) {
        if let Some(leader) = self.elected.take() {
            self.note(format!("the session of scheduler {leader} ends"));
            if let Some(mirror) = &mut self.mirror {
                mirror.unseat(leader).await;
            }
        }
    }

    /// A scheduler that believes that it leads. It may write only if it does; if not, it learns that it does not.
    async fn leading(&mut self) -> Option<usize> {
        let believing: Vec<usize> =
            (0..2).filter(|leader| self.leaders[*leader].epoch.is_some()).collect();
        if believing.is_empty() {
            return None;
        }
        let leader = believing[self.random.random_range(0..believing.len())];
        let may =
            self.elected == Some(leader) && self.leaders[leader].epoch == Some(self.model.epoch);
        if let Some(mirror) = &mut self.mirror {
            assert_eq!(may, mirror.may_write(leader).await, "the epoch");
        }
        if !may {
            self.note(format!("scheduler {leader} finds that it leads no longer"));
            self.leaders[leader] = Leader::default();
            return None;
        }
        Some(leader)
    }

    async fn fire(&mut self) -> bool {
        let Some(leader) = self.leading().await else { return false };
        let fired = self.model.fire();
        if let Some(mirror) = &mut self.mirror {
            assert_eq!(fired, mirror.fire(leader).await, "timers");
        }
        self.note(format!("scheduler {leader} fires timers: {fired}"));
        self.same().await;
        fired
    }

    async fn look(&mut self) {
        let Some(leader) = self.leading().await else { return };
        let (at, mut mind) = (self.at(), std::mem::take(&mut self.leaders[leader]));
        mind.owners.looked(self.model.workers(), at);
        mind.lanes = Lanes::default();
        mind.lanes.proved(self.model.proofs());
        let alive = mind.owners.alive();
        let (runs, nodes) = (self.model.open_runs(), self.model.doubtful_nodes(&alive));
        mind.repairs.clear();
        let mut verdicts = Vec::new();
        for run in &runs {
            verdicts.push(verdict::of_run(run, &mind.lanes));
        }
        for node in &nodes {
            if let Some(owner) = node.owner {
                mind.owners.doubt(owner, at);
            }
            verdicts.push(verdict::of_node(node, &mind.lanes, &mind.owners));
        }
        if let Some(mirror) = &mut self.mirror {
            let theirs = mirror.look(leader, at).await;
            let mut ours: Vec<String> = verdicts.iter().map(shown).collect();
            ours.sort();
            assert_eq!(ours, theirs, "verdicts");
        }
        for verdict in verdicts {
            match verdict {
                verdict::Verdict::Needs(repair) => mind.repairs.push(repair),
                verdict::Verdict::NeedsProof => mind.lanes.doubt(LANE),
                verdict::Verdict::SeemsStuck => panic!("nothing moves the run on"),
                verdict::Verdict::Fine => {}
            }
        }
        self.note(format!("scheduler {leader} looks: {:?}", mind.repairs));
        let is_probed = !mind.lanes.to_probe(|lane| mind.owners.serve(lane), at).is_empty();
        self.leaders[leader] = mind;
        if is_probed {
            self.model.probe();
            if let Some(mirror) = &mut self.mirror {
                mirror.probe(leader).await;
            }
        }
        self.same().await;
    }

    async fn repair(&mut self) {
        let Some(leader) = self.leading().await else { return };
        if self.leaders[leader].repairs.is_empty() {
            return;
        }
        let repair = self.leaders[leader].repairs.remove(0);
        if let Repair::Recover(_, lost) = &repair {
            // Right before, its lock is asked once more.
            let (at, workers) = (self.at(), self.model.workers());
            self.leaders[leader].owners.looked(workers, at);
            if let Some(mirror) = &mut self.mirror {
                mirror.look_again(leader, at).await;
            }
            if !self.leaders[leader].owners.is_dead(lost.owner) {
                return;
            }
        }
        self.note(format!("scheduler {leader} repairs {repair:?}"));
        match &repair {
            Repair::ResendStart(_, at) => self.model.resend_start(*at),
            Repair::ResendNode(_, node, at) => self.model.resend_node(node, *at),
            Repair::SetTimer(timer) => self.model.set_timer(timer),
            Repair::FinishStopping(_) => self.model.finish_stopping(),
            Repair::FailStuck(..) => panic!("nothing is stuck"),
            Repair::Recover(_, lost) => {
                let found = Found::from(lost.clone());
                let record = loss(self.model.context.clone(), &found, Uuid::nil(), false);
                let record = record.expect("a node of the graph");
                assert!(self.is_lost(found.owner, record.node, found.attempt), "it lives");
                self.model.record(None, &record);
            }
        }
        if let Some(mirror) = &mut self.mirror {
            mirror.repair(leader, &repair).await;
        }
        self.same().await;
    }

    async fn tick(&mut self, ms: i64) {
        self.model.now += ms;
        self.note(format!("{ms} ms pass"));
        if let Some(mirror) = &mut self.mirror {
            mirror.tick(self.model.now).await;
        }
    }

    // ── The end ──

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
