//! What a leader reads and writes: timers, the audit's looks, and repairs.

use super::*;

impl Model {
    /// Does what is due; true when anything was.
    pub(crate) fn fire(&mut self) -> bool {
        let due: Vec<(NodeIx, Kind)> =
            self.timers.iter().filter(|(_, at)| **at <= self.now).map(|(key, _)| *key).collect();
        for (node, kind) in &due {
            self.timers.remove(&(*node, *kind));
            let row = &mut self.nodes[*node as usize];
            let reason = match row.state {
                NodeState::Retrying => Reason::Retry,
                NodeState::Waiting if row.awaits => Reason::Deadline,
                NodeState::Waiting => Reason::DelayOver,
                _ => continue,
            };
            if self.state != RunState::Running {
                continue;
            }
            row.become_(NodeState::Queued);
            row.queued_at = self.now;
            let next = row.attempt + 1;
            self.send(*node, next, reason);
        }
        !due.is_empty()
    }

    pub(crate) fn open_runs(&self) -> Vec<OpenRun> {
        if self.state.is_terminal() {
            return Vec::new();
        }
        let any = |wanted: &[NodeState]| self.nodes.iter().any(|row| wanted.contains(&row.state));
        vec![OpenRun {
            id: self.context.id,
            state: self.state,
            seq: 0,
            lane: LANE.to_owned(),
            queued_at: Some(instant(self.queued_at)),
            is_old: self.queued_at < self.now - 15_000,
            has_timer: false,
            is_live: match self.state {
                RunState::Running => any(&[
                    NodeState::Queued,
                    NodeState::Running,
                    NodeState::Retrying,
                    NodeState::Waiting,
                ]),
                RunState::Cancelling => any(&[NodeState::Running]),
                _ => false,
            },
        }]
    }

    pub(crate) fn doubtful_nodes(&self, alive: &[Uuid]) -> Vec<DoubtfulNode> {
        if self.state == RunState::Queued || self.state.is_terminal() {
            return Vec::new();
        }
        let has = |node: usize, kind| self.timers.contains_key(&(node as NodeIx, kind));
        let doubtful = |(node, row): &(usize, &Row)| match row.state {
            NodeState::Queued => row.queued_at < self.now - 15_000,
            NodeState::Running => row.owner.is_some_and(|owner| !alive.contains(&owner)),
            NodeState::Retrying => !has(*node, Kind::Retry),
            NodeState::Waiting => !has(*node, Kind::Wait) && !row.awaits,
            _ => false,
        };
        let nodes = self.nodes.iter().enumerate().filter(doubtful);
        nodes
            .map(|(node, row)| DoubtfulNode {
                run: self.context.id,
                node: self.id(node as NodeIx),
                state: row.state,
                attempt: row.attempt,
                losses: row.losses,
                owner: row.owner,
                lane: LANE.to_owned(),
                queued_at: Some(instant(row.queued_at)),
            })
            .collect()
    }

    pub(crate) fn workers(&self) -> Vec<WorkerSeen> {
        let seen = |(id, held): (&Uuid, &bool)| WorkerSeen {
            id: *id,
            lanes: vec![LANE.to_owned()],
            is_locked: *held,
        };
        self.locked.iter().map(seen).collect()
    }

    pub(crate) fn proofs(&self) -> Vec<Proof> {
        let until = self.probes.iter().filter(|probe| probe.2).map(|probe| probe.1).max();
        until
            .map(|until| Proof { lane: LANE.to_owned(), until: instant(until) })
            .into_iter()
            .collect()
    }

    pub(crate) fn probe(&mut self) {
        if self.outbox.iter().any(|(job, _)| matches!(job.task, Task::Probe { .. })) {
            return;
        }
        let oldest = self.outbox.iter().map(|(_, at)| at - 5_000).min();
        let id = Uuid::now_v7();
        let until = (self.now - 15_000).min(oldest.unwrap_or(i64::MAX));
        self.probes.push((id, until, false));
        let job = Job {
            id: Uuid::now_v7(),
            task: Task::Probe { probe: id },
            reason: Reason::Probe,
            pipeline: None,
            version: None,
            traceparent: None,
        };
        self.outbox.push((job, self.now));
    }

    pub(crate) fn rename_probe(&mut self, ours: Uuid, theirs: Uuid) {
        self.probes.iter_mut().filter(|it| it.0 == ours).for_each(|it| it.0 = theirs);
    }

    pub(crate) fn arrived(&mut self, probe: Uuid) {
        self.probes.iter_mut().filter(|it| it.0 == probe).for_each(|it| it.2 = true);
    }

    pub(crate) fn resend_start(&mut self, queued_at: Instant) {
        if self.state != RunState::Queued || instant(self.queued_at) != queued_at {
            return;
        }
        self.queued_at = self.now;
        let (context, run) = (&self.context, self.context.id);
        let job = Job {
            id: Uuid::now_v7(),
            task: Task::RunStart { run },
            reason: Reason::Recovered,
            pipeline: context.pipeline.clone(),
            version: context.version,
            traceparent: None,
        };
        self.outbox.push((job, self.now));
    }

    pub(crate) fn resend_node(&mut self, node: &str, queued_at: Instant) {
        let node = self.context.graph.index(node).expect("a node of the graph");
        let now = self.now;
        let row = &mut self.nodes[node as usize];
        if self.state != RunState::Running
            || row.state != NodeState::Queued
            || instant(row.queued_at) != queued_at
        {
            return;
        }
        row.queued_at = now;
        let next = row.attempt + 1;
        self.send(node, next, Reason::Recovered);
    }

    pub(crate) fn set_timer(&mut self, timer: &Timer) {
        let node = self.context.graph.index(&timer.node).expect("a node of the graph");
        let state = self.nodes[node as usize].state;
        let kind = match (timer.kind, state) {
            (TimerKind::Retry, NodeState::Retrying) => Kind::Retry,
            (TimerKind::Wait, NodeState::Waiting) => Kind::Wait,
            _ => return,
        };
        self.timers.entry((node, kind)).or_insert(self.now);
    }

    pub(crate) fn finish_stopping(&mut self) {
        let running = self.nodes.iter().any(|row| row.state == NodeState::Running);
        if self.state == RunState::Cancelling && !running {
            self.end(RunEvent::LastStopped(self.stop_reason.unwrap_or(StopReason::Cancel)));
        }
    }
}
