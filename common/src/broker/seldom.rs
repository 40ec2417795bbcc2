//! Log lines that would come a thousand times a second come once a minute.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Remembers when something was last said.
#[derive(Debug, Default)]
pub(super) struct Seldom(HashMap<String, (Instant, u64)>);

impl Seldom {
    const EVERY: Duration = Duration::from_secs(60);

    /// How often it has happened since it was last said, if it is time to say it again.
    pub(super) fn due(&mut self, what: &str, now: Instant) -> Option<u64> {
        if let Some((said_at, count)) = self.0.get_mut(what) {
            *count += 1;
            if now.duration_since(*said_at) < Self::EVERY {
                return None;
            }
            *said_at = now;
            return Some(std::mem::take(count));
        }
        if self.0.len() >= 1000 {
            self.0.retain(|_, (said_at, _)| now.duration_since(*said_at) < Self::EVERY);
        }
        self.0.insert(what.to_owned(), (now, 0));
        Some(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_the_first_and_then_counts_for_a_minute() {
        let (mut seldom, start) = (Seldom::default(), Instant::now());
        assert_eq!(seldom.due("a", start), Some(1));
        assert_eq!(seldom.due("a", start + Duration::from_secs(1)), None);
        assert_eq!(seldom.due("b", start + Duration::from_secs(1)), Some(1));
        assert_eq!(seldom.due("a", start + Duration::from_secs(61)), Some(2));
        assert_eq!(seldom.due("a", start + Duration::from_secs(62)), None);
    }
}
