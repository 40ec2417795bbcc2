//! Schedulers that are elected, lose their session, and do what a leader does.

use super::*;

impl World<'_> {
    /// A candidate asks for the lock.
    pub(super) async fn elect(&mut self) {
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
    pub(super) async fn unseat(&mut self) {
        if let Some(leader) = self.elected.take() {
            self.note(format!("the session of scheduler {leader} ends"));
            if let Some(mirror) = &mut self.mirror {
                mirror.unseat(leader).await;
            }
        }
    }

    /// A scheduler that believes that it leads. It may write only if it does; if not, it learns that it does not.
    pub(super) async fn leading(&mut self) -> Option<usize> {
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

    pub(super) async fn fire(&mut self) -> bool {
        let Some(leader) = self.leading().await else { return false };
        let fired = self.model.fire();
        if let Some(mirror) = &mut self.mirror {
            assert_eq!(fired, mirror.fire(leader).await, "timers");
        }
        self.note(format!("scheduler {leader} fires timers: {fired}"));
        self.same().await;
        fired
    }

    pub(super) async fn look(&mut self) {
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

    pub(super) async fn repair(&mut self) {
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

    pub(super) async fn tick(&mut self, ms: i64) {
        self.model.now += ms;
        self.note(format!("{ms} ms pass"));
        if let Some(mirror) = &mut self.mirror {
            mirror.tick(self.model.now).await;
        }
    }
}
