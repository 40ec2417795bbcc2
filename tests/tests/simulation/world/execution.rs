//! What a worker does with what it claimed, or found.

use super::*;

impl World<'_> {
    pub(super) async fn look_under(&mut self, worker: usize, place: usize, asked: u32) {
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

    pub(super) async fn holder(&mut self, worker: usize, found: &Found) -> Holder {
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

    pub(super) fn execute(&mut self, worker: usize, place: usize, which: usize) {
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
            // Every other one has a deadline.
            Kind::Approval if claimed.waiting.is_none() => {
                let deadline = node.is_multiple_of(2).then_some(Duration::from_secs(6));
                let wait = Wait::new(WaitKind::Approval, json!({}), claimed.spent, deadline);
                Outcome::Awaiting { wait: wait.into() }
            }
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
    pub(super) fn verdicts(&self, node: NodeIx, outcome: &Outcome) -> Vec<(EdgeIx, Verdict)> {
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

    pub(super) async fn record_outcome(&mut self, worker: usize, place: usize, which: usize) {
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
    pub(super) fn is_lost(&self, owner: Uuid, node: NodeIx, attempt: i32) -> bool {
        let owner = self.workers.iter().find(|worker| worker.id == owner).expect("a worker");
        let mut running = owner.held.iter().flat_map(|held| &held.running);
        !owner.locked || !running.any(|it| it.claimed.node == node && it.claimed.attempt == attempt)
    }

    pub(super) async fn record(
        &mut self,
        owner: Option<Uuid>,
        record: &Record,
    ) -> Option<Vec<Claimed>> {
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

    /// Somebody decides what waits for it; true when anything did.
    pub(super) async fn decide(&mut self) -> bool {
        let waiting = self.model.waiting();
        if waiting.is_empty() {
            return false;
        }
        let node = waiting[self.random.random_range(0..waiting.len())];
        // Also what has been decided just now.
        for _ in 0..2 {
            let counts = self.model.answer(node);
            if let Some(mirror) = &mut self.mirror {
                assert_eq!(counts, mirror.answer(&self.model, node).await, "decision");
            }
            self.note(format!("a decision on {node} counts: {counts}"));
            self.same().await;
        }
        true
    }

    pub(super) async fn cancel(&mut self) {
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
}
