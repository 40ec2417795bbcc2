//! What this process has in its hands: jobs with their deliveries, and node runs that it executes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::broker::Delivery;
use common::takeover::{AtHand, OnDelivery, on_delivery};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The jobs at hand, by id: a second delivery of one of them meets the first.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    held: Mutex<HashMap<Uuid, Arc<Hand>>>,
}

/// A job at hand, and the delivery that brought it.
#[derive(Debug)]
struct Hand {
    lane: String,
    delivery: Mutex<Option<Delivery>>,
    /// How many node runs are executed under it, the one that asks included.
    holders: std::sync::atomic::AtomicUsize,
    /// Something that ran under it could not be brought to an end here.
    given_up: AtomicBool,
    /// Its claim is committed: lock and audit guard it, with or without a delivery.
    claimed: AtomicBool,
    since: Instant,
}

/// One holder's share in a job. The delivery is acked when every holder is done; when one is dropped without that,
/// it goes back into its queue.
#[derive(Debug)]
pub(crate) struct Hold {
    jobs: Arc<Jobs>,
    id: Uuid,
    hand: Arc<Hand>,
    done: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Jobs {
    /// Takes a delivery of job `id` in hand. None when the job is at hand already: the delivery is adopted when the old
    /// one's channel is gone, else it is a duplicate and acked.
    pub(crate) fn take(self: &Arc<Self>, id: Uuid, delivery: Delivery) -> Option<Hold> {
        let mut held = lock(&self.held);
        if let Some(hand) = held.get(&id) {
            let mut current = lock(&hand.delivery);
            let at_hand = match current.as_ref() {
                Some(first) if first.is_open() => AtHand::Delivered,
                _ => AtHand::Undelivered,
            };
            match on_delivery(at_hand) {
                OnDelivery::Adopt => *current = Some(delivery),
                OnDelivery::Duplicate | OnDelivery::Begin => delivery.ack(),
            }
            return None;
        }
        let hand = Arc::new(Hand {
            lane: delivery.lane.clone(),
            delivery: Mutex::new(Some(delivery)),
            holders: std::sync::atomic::AtomicUsize::new(1),
            given_up: AtomicBool::new(false),
            claimed: AtomicBool::new(false),
            since: Instant::now(),
        });
        held.insert(id, hand.clone());
        Some(Hold { jobs: self.clone(), id, hand, done: false })
    }

    /// Acks deliveries that are older than `age`, and whose claim is committed: no time-out of the broker can hit them
    /// from then on.
    pub(crate) fn let_go(&self, age: Duration) {
        for hand in lock(&self.held).values() {
            if hand.since.elapsed() >= age && hand.claimed.load(Ordering::Acquire) {
                let delivery = lock(&hand.delivery).take();
                delivery.into_iter().for_each(Delivery::ack);
            }
        }
    }

    /// How many node runs of each lane are executed without a delivery.
    pub(crate) fn without_delivery(&self) -> HashMap<String, usize> {
        let mut counts = HashMap::new();
        for hand in lock(&self.held).values() {
            if lock(&hand.delivery).is_none() {
                *counts.entry(hand.lane.clone()).or_default() +=
                    hand.holders.load(Ordering::Acquire);
            }
        }
        counts
    }
}

impl Hold {
    /// Another share in the same job, for a node run that goes on beside.
    pub(crate) fn share(&self) -> Self {
        self.hand.holders.fetch_add(1, Ordering::AcqRel);
        Self { jobs: self.jobs.clone(), id: self.id, hand: self.hand.clone(), done: false }
    }

    /// The claim is committed.
    pub(crate) fn claimed(&self) {
        self.hand.claimed.store(true, Ordering::Release);
    }

    /// All that this holder executed has been recorded.
    pub(crate) fn done(mut self) {
        self.done = true;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if !self.done {
            self.hand.given_up.store(true, Ordering::Release);
        }
        if self.hand.holders.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        lock(&self.jobs.held).remove(&self.id);
        let delivery = lock(&self.hand.delivery).take();
        if !self.hand.given_up.load(Ordering::Acquire) {
            delivery.into_iter().for_each(Delivery::ack);
        }
    }
}

/// Why a node run is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// Its run was told to stop.
    RunStopped,
    /// This worker stops, and gives it back.
    Draining,
}

/// How a node run that is executed can be stopped.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop {
    token: CancellationToken,
    why: Arc<AtomicU8>,
}

impl Stop {
    pub(crate) fn stop(&self, why: Why) {
        let code = match why {
            Why::RunStopped => 1,
            Why::Draining => 2,
        };
        // The first reason stays.
        let _ = self.why.compare_exchange(0, code, Ordering::AcqRel, Ordering::Acquire);
        self.token.cancel();
    }

    pub(crate) fn token(&self) -> &CancellationToken {
        &self.token
    }

    pub(crate) fn why(&self) -> Option<Why> {
        match self.why.load(Ordering::Acquire) {
            1 => Some(Why::RunStopped),
            2 => Some(Why::Draining),
            _ => None,
        }
    }
}

type Executed = HashMap<Uuid, HashMap<u32, (i32, Stop)>>;

/// The node runs that this process executes, by run and node.
#[derive(Debug, Default)]
pub(crate) struct Executing {
    runs: Mutex<Executed>,
}

/// A node run's place among those that are executed; it is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Entry {
    executing: Arc<Executing>,
    run: Uuid,
    node: u32,
    attempt: i32,
    pub(crate) stop: Stop,
}

impl Executing {
    /// None when this attempt, or a later one, is executed already. An earlier one is fenced off, and stopped.
    pub(crate) fn enter(self: &Arc<Self>, run: Uuid, node: u32, attempt: i32) -> Option<Entry> {
        let mut runs = lock(&self.runs);
        let nodes = runs.entry(run).or_default();
        if let Some((executed, stop)) = nodes.get(&node) {
            if *executed >= attempt {
                return None;
            }
            stop.stop(Why::RunStopped);
        }
        let stop = Stop::default();
        nodes.insert(node, (attempt, stop.clone()));
        Some(Entry { executing: self.clone(), run, node, attempt, stop })
    }

    /// Whether an attempt of a node run is executed.
    pub(crate) fn contains(&self, run: Uuid, node: u32, attempt: i32) -> bool {
        let runs = lock(&self.runs);
        let executed = runs.get(&run).and_then(|nodes| nodes.get(&node));
        executed.is_some_and(|(executed, _)| *executed == attempt)
    }

    /// The runs of which something is executed.
    pub(crate) fn runs(&self) -> Vec<Uuid> {
        lock(&self.runs).keys().copied().collect()
    }

    /// How many node runs are executed.
    pub(crate) fn len(&self) -> usize {
        lock(&self.runs).values().map(HashMap::len).sum()
    }

    /// Stops all that is executed of a run.
    pub(crate) fn stop(&self, run: Uuid) {
        if let Some(nodes) = lock(&self.runs).get(&run) {
            nodes.values().for_each(|(_, stop)| stop.stop(Why::RunStopped));
        }
    }

    /// Stops everything, to be given back.
    pub(crate) fn hand_back(&self) {
        lock(&self.runs)
            .values()
            .flat_map(HashMap::values)
            .for_each(|(_, stop)| stop.stop(Why::Draining));
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut runs = lock(&self.executing.runs);
        if let Some(nodes) = runs.get_mut(&self.run) {
            if nodes.get(&self.node).is_some_and(|(attempt, _)| *attempt == self.attempt) {
                nodes.remove(&self.node);
            }
            if nodes.is_empty() {
                runs.remove(&self.run);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_attempt_replaces_the_one_that_it_fences_off() {
        let executing = Arc::new(Executing::default());
        let run = Uuid::now_v7();
        let first = executing.enter(run, 0, 1).expect("nothing is executed");
        assert!(executing.enter(run, 0, 1).is_none(), "a duplicate");
        let second = executing.enter(run, 0, 2).expect("a later attempt");
        assert!(first.stop.token().is_cancelled() && !second.stop.token().is_cancelled());
        drop(first);
        assert!(executing.contains(run, 0, 2) && !executing.contains(run, 0, 1));
        drop(second);
        assert_eq!((executing.len(), executing.runs().len()), (0, 0));
    }
}
