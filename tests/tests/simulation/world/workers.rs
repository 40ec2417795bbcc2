//! Workers that come, go, halt, and take up jobs.

use super::*;

impl World<'_> {
    pub(super) async fn hire(&mut self) {
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

    pub(super) async fn hire_another(&mut self) {
        if self.workers.iter().filter(|worker| worker.alive).count() < 3 && self.workers.len() < 8 {
            self.hire().await;
        }
    }

    pub(super) async fn lock(&mut self, worker: usize, held: bool) {
        let id = self.workers[worker].id;
        self.workers[worker].locked = held;
        self.model.lock(id, held);
        if let Some(mirror) = &mut self.mirror {
            mirror.lock(id, held).await;
        }
    }

    pub(super) async fn crash(&mut self, worker: usize) {
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
    pub(super) async fn freeze(&mut self, worker: usize) {
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

    pub(super) async fn thaw(&mut self, worker: usize) {
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
    pub(super) async fn work(&mut self, worker: usize) -> bool {
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

    pub(super) async fn begin(&mut self, worker: usize, place: usize) {
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
            Task::ChildEnded { .. } | Task::ChildrenStop { .. } => {
                unreachable!("the run has no others above or below it")
            }
            Task::ToolCall { .. } => unreachable!("no node of the simulation calls a remote tool"),
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
    pub(super) fn assign(&mut self, worker: usize, place: usize, claimed: Vec<Claimed>) {
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
}
