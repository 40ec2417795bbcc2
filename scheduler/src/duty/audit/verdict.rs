//! What a look at a run or a node run says about it.

use common::clock::Instant;
use common::node_run::NodeState;
use common::run::RunState;
use common::store::audit::DoubtfulNode;
use common::store::open_runs::OpenRun;
use common::store::timers::{Timer, TimerKind};
use uuid::Uuid;

use super::lanes::Lanes;
use super::owners::Owners;

/// What mends it. Each carries the fence by which it does nothing when the look is out of date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repair {
    /// The job that starts the run is lost: queue it anew.
    ResendStart(Uuid, Instant),
    /// The job for the node run is lost: queue it anew.
    ResendNode(Uuid, String, Instant),
    /// It waits for a timer that is not there: give it one that is due.
    SetTimer(Timer),
    /// Its worker is dead: take it over.
    Recover(Uuid, Lost),
    /// It was told to stop, and nothing of it runs any more: end it.
    FinishStopping(Uuid),
    /// Nothing moves it on: fail it.
    FailStuck(Uuid, i64),
}

/// A node run that has lost its worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The node.
    pub node: String,
    /// Its fence.
    pub attempt: i32,
    /// Workers that died under it before.
    pub losses: i32,
    /// The worker that is dead.
    pub owner: Uuid,
}

/// The verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Something will move it on.
    Fine,
    /// Its job should have been claimed long ago: a probe through its lane will tell.
    NeedsProof,
    /// Nothing of it is live. That cannot be; if the next looks show the same, it is failed.
    SeemsStuck,
    /// Nothing will move it on but this.
    Needs(Repair),
}

/// Judges a run by itself.
pub fn of_run(run: &OpenRun, lanes: &Lanes) -> Verdict {
    match (run.state, run.queued_at) {
        (RunState::Queued, None) if run.has_timer => Verdict::Fine,
        (RunState::Queued, None) => {
            let timer = Timer { run: run.id, node: String::new(), kind: TimerKind::Start };
            Verdict::Needs(Repair::SetTimer(timer))
        }
        (RunState::Queued, Some(_)) if !run.is_old => Verdict::Fine,
        (RunState::Queued, Some(queued_at)) if lanes.has_lost(&run.lane, queued_at) => {
            Verdict::Needs(Repair::ResendStart(run.id, queued_at))
        }
        (RunState::Queued, Some(_)) => Verdict::NeedsProof,
        (RunState::Running | RunState::Cancelling, _) if run.is_live => Verdict::Fine,
        (RunState::Running, _) => Verdict::SeemsStuck,
        (RunState::Cancelling, _) => Verdict::Needs(Repair::FinishStopping(run.id)),
        (RunState::Completed | RunState::Failed | RunState::Cancelled | RunState::TimedOut, _) => {
            Verdict::Fine
        }
    }
}

/// Judges a node run that is in doubt.
pub fn of_node(node: &DoubtfulNode, lanes: &Lanes, owners: &Owners) -> Verdict {
    let timer = |kind| {
        Verdict::Needs(Repair::SetTimer(Timer { run: node.run, node: node.node.clone(), kind }))
    };
    match node.state {
        NodeState::Queued => match node.queued_at {
            Some(queued_at) if lanes.has_lost(&node.lane, queued_at) => {
                Verdict::Needs(Repair::ResendNode(node.run, node.node.clone(), queued_at))
            }
            _ => Verdict::NeedsProof,
        },
        NodeState::Running => match node.owner {
            Some(owner) if owners.is_dead(owner) => {
                let (node, run) = (node.clone(), node.run);
                let DoubtfulNode { node, attempt, losses, .. } = node;
                Verdict::Needs(Repair::Recover(run, Lost { node, attempt, losses, owner }))
            }
            _ => Verdict::Fine,
        },
        NodeState::Retrying => timer(TimerKind::Retry),
        NodeState::Waiting => timer(TimerKind::Wait),
        NodeState::Pending
        | NodeState::Completed
        | NodeState::Failed
        | NodeState::Skipped
        | NodeState::Cancelled => Verdict::Fine,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use std::time::Duration;

    use common::store::audit::WorkerSeen;
    use common::store::probes::Proof;

    use super::*;

    const RUN: Uuid = Uuid::from_u128(1);
    const DEAD: Uuid = Uuid::from_u128(2);
    const ALIVE: Uuid = Uuid::from_u128(3);

    fn instant(seconds: i64) -> Instant {
        Instant::from_timestamp(seconds, 0).unwrap()
    }

    /// The lane `default` is proved until second 100.
    fn lanes() -> Lanes {
        let mut lanes = Lanes::default();
        lanes.proved(vec![Proof { lane: "default".to_owned(), until: instant(100) }]);
        lanes
    }

    fn owners() -> Owners {
        let (mut owners, now) = (Owners::default(), std::time::Instant::now());
        for seconds in [0, 10] {
            let look = [(DEAD, false), (ALIVE, true)].map(|(id, is_locked)| WorkerSeen {
                id,
                lanes: vec![],
                is_locked,
            });
            owners.looked(look.to_vec(), now + Duration::from_secs(seconds));
        }
        owners
    }

    fn run(state: RunState) -> OpenRun {
        OpenRun {
            id: RUN,
            state,
            seq: 7,
            lane: "default".to_owned(),
            queued_at: Some(instant(50)),
            is_old: true,
            has_timer: false,
            is_live: false,
        }
    }

    fn node(state: NodeState) -> DoubtfulNode {
        DoubtfulNode {
            run: RUN,
            node: "a".to_owned(),
            state,
            attempt: 2,
            losses: 1,
            owner: None,
            lane: "default".to_owned(),
            queued_at: Some(instant(50)),
        }
    }

    fn timer(node: &str, kind: TimerKind) -> Verdict {
        Verdict::Needs(Repair::SetTimer(Timer { run: RUN, node: node.to_owned(), kind }))
    }

    #[test]
    fn runs() {
        let table = [
            ("young", OpenRun { is_old: false, ..run(RunState::Queued) }, Verdict::Fine),
            (
                "queued before what is proved",
                run(RunState::Queued),
                Verdict::Needs(Repair::ResendStart(RUN, instant(50))),
            ),
            (
                "queued after what is proved",
                OpenRun { queued_at: Some(instant(101)), ..run(RunState::Queued) },
                Verdict::NeedsProof,
            ),
            (
                "in another lane",
                OpenRun { lane: "gpu".to_owned(), ..run(RunState::Queued) },
                Verdict::NeedsProof,
            ),
            (
                "delayed",
                OpenRun { queued_at: None, has_timer: true, ..run(RunState::Queued) },
                Verdict::Fine,
            ),
            (
                "delayed without a timer",
                OpenRun { queued_at: None, ..run(RunState::Queued) },
                timer("", TimerKind::Start),
            ),
            ("going on", OpenRun { is_live: true, ..run(RunState::Running) }, Verdict::Fine),
            ("with nothing live", run(RunState::Running), Verdict::SeemsStuck),
            ("stopping", OpenRun { is_live: true, ..run(RunState::Cancelling) }, Verdict::Fine),
            (
                "stopping with nothing running",
                run(RunState::Cancelling),
                Verdict::Needs(Repair::FinishStopping(RUN)),
            ),
            ("ended", run(RunState::Completed), Verdict::Fine),
        ];
        for (name, row, expected) in table {
            assert_eq!(of_run(&row, &lanes()), expected, "{name}");
        }
    }

    #[test]
    fn node_runs() {
        let table = [
            (
                "queued before what is proved",
                node(NodeState::Queued),
                Verdict::Needs(Repair::ResendNode(RUN, "a".to_owned(), instant(50))),
            ),
            (
                "queued after what is proved",
                DoubtfulNode { queued_at: Some(instant(101)), ..node(NodeState::Queued) },
                Verdict::NeedsProof,
            ),
            (
                "of a dead worker",
                DoubtfulNode { owner: Some(DEAD), ..node(NodeState::Running) },
                Verdict::Needs(Repair::Recover(
                    RUN,
                    Lost { node: "a".to_owned(), attempt: 2, losses: 1, owner: DEAD },
                )),
            ),
            (
                "of a living worker",
                DoubtfulNode { owner: Some(ALIVE), ..node(NodeState::Running) },
                Verdict::Fine,
            ),
            (
                "of a worker that is not known yet",
                DoubtfulNode { owner: Some(RUN), ..node(NodeState::Running) },
                Verdict::Fine,
            ),
            ("without a timer", node(NodeState::Retrying), timer("a", TimerKind::Retry)),
            ("waiting without a timer", node(NodeState::Waiting), timer("a", TimerKind::Wait)),
        ];
        for (name, row, expected) in table {
            assert_eq!(of_node(&row, &lanes(), &owners()), expected, "{name}");
        }
    }
}
