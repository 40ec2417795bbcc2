//! Messages that are sent, delivered, lost and doubled.

use super::*;

impl World<'_> {
    pub(super) async fn publish(&mut self) {
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

    pub(super) async fn confirm(&mut self, job: &Job) {
        self.note(format!("confirm {}", job.id));
        self.model.confirm(job.id);
        if let Some(mirror) = &mut self.mirror {
            mirror.confirm(job.id).await;
        }
        self.same().await;
    }

    pub(super) async fn deliver(&mut self, worker: usize) {
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

    pub(super) fn duplicate(&mut self) {
        if !self.queue.is_empty() {
            let copy = self.queue[self.random.random_range(0..self.queue.len())].clone();
            self.note("a message is duplicated");
            self.queue.push(copy);
        }
    }

    pub(super) fn lose_messages(&mut self) {
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
    pub(super) fn drop_link(&mut self, worker: usize) {
        for held in &mut self.workers[worker].held {
            if std::mem::take(&mut held.delivered) {
                self.queue.push(held.job.clone());
            }
        }
        self.note(format!("worker {worker} loses its channel"));
    }
}
