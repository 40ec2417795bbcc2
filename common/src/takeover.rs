//! What a worker does with a delivery, and with what it finds under it: pure, and the same for workers, for the audit
//! and for a simulation.

use std::time::Duration;

use crate::node_run::NodeState;
use crate::pipeline::OnWorkerLost;

/// How many workers may die under a node run; the last of them fails it.
pub const MAX_LOSSES: i32 = 3;

/// How long a node run waits that has lost two workers, before it is tried alone.
pub const LOST_PAUSE: Duration = Duration::from_secs(5);

/// Whether a node run is to be executed by a worker that runs nothing else meanwhile.
pub fn runs_alone(losses: i32) -> bool {
    losses >= MAX_LOSSES - 1
}

/// What becomes of a node run that has lost its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// It goes on at once.
    Again,
    /// It waits, and then runs alone.
    Later,
    /// It fails.
    Fail,
}

/// Decides by the losses before this one.
pub fn recovery(losses: i32, on_worker_lost: OnWorkerLost) -> Recovery {
    match (on_worker_lost, losses + 1) {
        (OnWorkerLost::Fail, _) => Recovery::Fail,
        (OnWorkerLost::Retry, lost) if lost >= MAX_LOSSES => Recovery::Fail,
        (OnWorkerLost::Retry, lost) if runs_alone(lost) => Recovery::Later,
        (OnWorkerLost::Retry, _) => Recovery::Again,
    }
}

/// What a worker that gets a delivery has of its job already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtHand {
    /// Nothing.
    Nothing,
    /// The job, with a delivery that can be acked.
    Delivered,
    /// The job; its delivery's channel is gone, or it was acked before.
    Undelivered,
}

/// What it does with the delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDelivery {
    /// It asks the database for what the job asks.
    Begin,
    /// It keeps the delivery in the old one's place.
    Adopt,
    /// It acks a duplicate.
    Duplicate,
}

/// Decides what a worker does with a delivery.
pub fn on_delivery(at_hand: AtHand) -> OnDelivery {
    match at_hand {
        AtHand::Nothing => OnDelivery::Begin,
        AtHand::Undelivered => OnDelivery::Adopt,
        AtHand::Delivered => OnDelivery::Duplicate,
    }
}

/// Whether a job that asks for `asked` may claim a node run as it is: the guard of the claim's statement.
pub fn may_claim(state: NodeState, attempt: i32, asked: i32) -> bool {
    state == NodeState::Queued && attempt == asked - 1
}

/// Whether a worker lives, as far as Postgres knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// Its session holds its lock.
    Alive,
    /// Its lock is free.
    Dead,
    /// Its lock is free, but the server was restarted since it took it: it may be about to take it again.
    Unsure,
}

/// Whose a node run is that is found running under a delivered job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// The worker's that looks; it may have no trace of it any more.
    Here {
        /// Whether it executes this attempt.
        executing: bool,
    },
    /// Another worker's.
    There(Life),
}

/// What is done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFound {
    /// It is claimed anew, with the next attempt.
    TakeOver,
    /// It is in living hands; should they die later, the audit finds it.
    Leave,
    /// Its owner is asked again in a moment: a lock is freed some time after a kill.
    AskAgain,
    /// Its owner is looked at a second time, 10 s later.
    LookTwice,
}

/// Decides about what was found; `second` after the second look.
pub fn on_found(holder: Holder, second: bool) -> OnFound {
    match holder {
        Holder::Here { executing: true } => OnFound::Leave,
        Holder::Here { executing: false } | Holder::There(Life::Dead) => OnFound::TakeOver,
        Holder::There(Life::Unsure) if second => OnFound::TakeOver,
        Holder::There(Life::Unsure) => OnFound::LookTwice,
        Holder::There(Life::Alive) if second => OnFound::Leave,
        Holder::There(Life::Alive) => OnFound::AskAgain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_loss_goes_on_two_wait_three_fail() {
        let retry: Vec<_> = (0..4).map(|lost| recovery(lost, OnWorkerLost::Retry)).collect();
        assert_eq!(retry, [Recovery::Again, Recovery::Later, Recovery::Fail, Recovery::Fail]);
        assert_eq!(recovery(0, OnWorkerLost::Fail), Recovery::Fail);
        assert!(!runs_alone(1) && runs_alone(2));
    }

    #[test]
    fn only_the_dead_are_taken_over_from() {
        use Life::{Alive, Dead, Unsure};
        let table = [
            (Holder::Here { executing: true }, OnFound::Leave, OnFound::Leave),
            (Holder::Here { executing: false }, OnFound::TakeOver, OnFound::TakeOver),
            (Holder::There(Dead), OnFound::TakeOver, OnFound::TakeOver),
            (Holder::There(Unsure), OnFound::LookTwice, OnFound::TakeOver),
            (Holder::There(Alive), OnFound::AskAgain, OnFound::Leave),
        ];
        for (holder, first, second) in table {
            assert_eq!((on_found(holder, false), on_found(holder, true)), (first, second));
        }
    }
}
