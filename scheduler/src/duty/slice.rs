//! How much a duty does at a time, so that it never holds up the others for long.

use std::time::Duration;

/// What a slice should not take longer than.
const LONG: Duration = Duration::from_millis(50);

/// A limit that halves when a slice took long, and doubles when it was quick. It starts low: a new leader must not
/// stumble over what made the old one too slow.
#[derive(Debug)]
pub(super) struct Slice {
    limit: i64,
    max: i64,
}

impl Slice {
    /// A limit between 1 and `max`.
    pub(super) fn up_to(max: i64) -> Self {
        Self { limit: max.min(8), max }
    }

    /// The limit as it stands.
    pub(super) fn limit(&self) -> i64 {
        self.limit
    }

    /// Learns from a slice that did `done` of what it was allowed to.
    pub(super) fn took(&mut self, done: i64, time: Duration) {
        if time > LONG {
            self.limit = (self.limit / 2).max(1);
        } else if done >= self.limit && time < LONG / 3 {
            self.limit = (self.limit * 2).min(self.max);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_while_it_is_full_and_quick_and_shrinks_when_it_is_slow() {
        let mut slice = Slice::up_to(500);
        slice.took(3, Duration::ZERO);
        assert_eq!(slice.limit(), 8, "there was no more to do");
        for _ in 0..10 {
            slice.took(slice.limit(), Duration::from_millis(5));
        }
        assert_eq!(slice.limit(), 500);
        slice.took(500, Duration::from_millis(30));
        assert_eq!(slice.limit(), 500);
        slice.took(500, Duration::from_millis(51));
        assert_eq!(slice.limit(), 250);
        for _ in 0..20 {
            slice.took(1, Duration::from_secs(1));
        }
        assert_eq!(slice.limit(), 1);
    }
}
