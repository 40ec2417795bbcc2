//! Which workers are alive: those whose lock is held.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use common::store::audit::WorkerSeen;
use uuid::Uuid;

use super::looks::APART;

/// What the looks at the workers' locks have shown.
///
/// A worker that lost its session takes its lock again within seconds, as all do after a restart of Postgres; so one
/// look at a free lock proves nothing.
#[derive(Debug, Default)]
pub struct Owners {
    looked_at: Option<Instant>,
    alive: HashSet<Uuid>,
    served: HashSet<String>,
    /// Workers without a lock, and since when each look has found them so.
    doubted: HashMap<Uuid, Instant>,
}

impl Owners {
    /// Takes in a look at all workers.
    pub fn looked(&mut self, workers: Vec<WorkerSeen>, now: Instant) {
        self.looked_at = Some(now);
        self.alive.clear();
        self.served.clear();
        for worker in workers {
            if worker.is_locked {
                self.doubted.remove(&worker.id);
                self.alive.insert(worker.id);
                self.served.extend(worker.lanes);
            } else {
                self.doubted.entry(worker.id).or_insert(now);
            }
        }
    }

    /// When the last look was.
    pub fn looked_at(&self) -> Option<Instant> {
        self.looked_at
    }

    /// The workers that were alive at the last look.
    pub fn alive(&self) -> Vec<Uuid> {
        self.alive.iter().copied().collect()
    }

    /// Whether a worker that is alive serves `lane`.
    pub fn serve(&self, lane: &str) -> bool {
        self.served.contains(lane)
    }

    /// Remembers an owner that the last look did not find alive: it may be newer than that look, or gone.
    pub fn doubt(&mut self, owner: Uuid, now: Instant) {
        if !self.alive.contains(&owner) {
            self.doubted.entry(owner).or_insert(now);
        }
    }

    /// Whether `owner` is dead: without a lock in two looks 10 s apart, and in all between.
    pub fn is_dead(&self, owner: Uuid) -> bool {
        let Some((since, looked_at)) = self.doubted.get(&owner).zip(self.looked_at) else {
            return false;
        };
        looked_at.saturating_duration_since(*since) >= APART
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn seen(id: u128, is_locked: bool) -> WorkerSeen {
        WorkerSeen { id: Uuid::from_u128(id), lanes: vec![format!("lane-{id}")], is_locked }
    }

    #[test]
    fn dead_after_two_looks_ten_seconds_apart() {
        let (mut owners, start) = (Owners::default(), Instant::now());
        let id = Uuid::from_u128(1);
        owners.looked(vec![seen(1, false), seen(2, true)], start);
        assert!(!owners.is_dead(id));
        owners.looked(vec![seen(1, false), seen(2, true)], start + Duration::from_secs(9));
        assert!(!owners.is_dead(id));
        owners.looked(vec![seen(1, false), seen(2, true)], start + Duration::from_secs(10));
        assert!(owners.is_dead(id));
        assert!(!owners.is_dead(Uuid::from_u128(2)));
        assert!(owners.serve("lane-2") && !owners.serve("lane-1"));
    }

    #[test]
    fn a_held_lock_in_between_clears_the_doubt() {
        let (mut owners, start) = (Owners::default(), Instant::now());
        owners.looked(vec![seen(1, false)], start);
        owners.looked(vec![seen(1, true)], start + Duration::from_secs(5));
        owners.looked(vec![seen(1, false)], start + Duration::from_secs(10));
        assert!(!owners.is_dead(Uuid::from_u128(1)));
    }

    #[test]
    fn an_owner_that_no_row_tells_of_is_dead_after_two_looks_too() {
        let (mut owners, start) = (Owners::default(), Instant::now());
        let id = Uuid::from_u128(7);
        owners.looked(vec![], start);
        owners.doubt(id, start + Duration::from_secs(1));
        assert!(!owners.is_dead(id));
        owners.looked(vec![], start + Duration::from_secs(11));
        assert!(owners.is_dead(id));
        owners.looked(vec![seen(7, true)], start + Duration::from_secs(12));
        assert!(!owners.is_dead(id));
    }
}
