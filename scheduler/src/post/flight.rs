//! Which rows are on their way to the broker.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use uuid::Uuid;

/// How many rows may be on their way.
const WINDOW: usize = 3_000;
/// How many rows may be on their way into a lane that did not take the last ones.
const TRIALS: usize = 10;
/// When a row that was not confirmed may be sent again: the publisher keeps it for 5 s, and waits 5 s for its confirm.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(11);

/// The rows that were handed to the publisher and are not confirmed.
#[derive(Debug, Default)]
pub(super) struct Flight {
    rows: HashMap<Uuid, String>,
    /// In the order in which they left; some may be confirmed.
    departures: VecDeque<(Instant, Uuid)>,
    lanes: HashMap<String, Lane>,
}

#[derive(Debug, Default)]
struct Lane {
    rows: usize,
    /// Its last news was a row that was not confirmed: the queue may be gone. It must not fill the window.
    is_blocked: bool,
}

impl Flight {
    /// Whether a row may be sent now.
    pub(super) fn may_leave(&self, id: Uuid, lane: &str) -> bool {
        let is_open =
            self.lanes.get(lane).is_none_or(|lane| !lane.is_blocked || lane.rows < TRIALS);
        is_open && !self.rows.contains_key(&id)
    }

    /// A row was sent.
    pub(super) fn left(&mut self, id: Uuid, lane: String, now: Instant) {
        if let Some(known) = self.lanes.get_mut(&lane) {
            known.rows += 1;
        } else {
            self.lanes.insert(lane.clone(), Lane { rows: 1, is_blocked: false });
        }
        self.rows.insert(id, lane);
        self.departures.push_back((now, id));
    }

    /// A row was confirmed.
    pub(super) fn confirmed(&mut self, id: Uuid) {
        self.landed(id, false);
    }

    /// Gives up what was not confirmed in time.
    pub(super) fn give_up(&mut self, now: Instant) {
        while let Some((left_at, id)) = self.departures.front().copied() {
            if now.duration_since(left_at) < GIVEN_UP_AFTER {
                break;
            }
            self.departures.pop_front();
            self.landed(id, true);
        }
    }

    fn landed(&mut self, id: Uuid, is_lost: bool) {
        let Some(name) = self.rows.remove(&id) else { return };
        let Some(lane) = self.lanes.get_mut(&name) else { return };
        lane.rows -= 1;
        lane.is_blocked = is_lost;
        if lane.rows == 0 && !is_lost {
            self.lanes.remove(&name);
        }
    }

    /// Whether none is on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// How many more may be sent.
    pub(super) fn room(&self) -> usize {
        WINDOW.saturating_sub(self.rows.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u128) -> Uuid {
        Uuid::from_u128(n)
    }

    #[test]
    fn a_row_is_sent_again_only_when_it_is_given_up() {
        let (mut flight, start) = (Flight::default(), Instant::now());
        flight.left(id(1), "a".to_owned(), start);
        assert!(!flight.may_leave(id(1), "a"));
        flight.give_up(start + Duration::from_secs(10));
        assert!(!flight.may_leave(id(1), "a"));
        flight.give_up(start + GIVEN_UP_AFTER);
        assert!(flight.may_leave(id(1), "a"));
        flight.left(id(1), "a".to_owned(), start + GIVEN_UP_AFTER);
        flight.confirmed(id(1));
        assert_eq!(flight.room(), WINDOW);
    }

    #[test]
    fn a_lane_that_takes_nothing_gets_a_few_trials_until_it_does() {
        let (mut flight, start) = (Flight::default(), Instant::now());
        flight.left(id(0), "gone".to_owned(), start);
        flight.give_up(start + GIVEN_UP_AFTER);
        let later = start + GIVEN_UP_AFTER;
        for n in 1..=TRIALS as u128 {
            assert!(flight.may_leave(id(n), "gone"));
            flight.left(id(n), "gone".to_owned(), later);
        }
        assert!(!flight.may_leave(id(99), "gone"));
        assert!(flight.may_leave(id(99), "other"));
        flight.confirmed(id(1));
        assert!(flight.may_leave(id(99), "gone"));
    }

    #[test]
    fn a_late_confirm_of_a_row_sent_twice_counts_once() {
        let (mut flight, start) = (Flight::default(), Instant::now());
        flight.left(id(1), "a".to_owned(), start);
        flight.confirmed(id(1));
        flight.confirmed(id(1));
        flight.give_up(start + GIVEN_UP_AFTER);
        assert_eq!(flight.room(), WINDOW);
        assert!(flight.lanes.is_empty());
    }
}
