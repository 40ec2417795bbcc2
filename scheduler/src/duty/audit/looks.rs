//! What only two looks 10 s apart can make certain.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// How far apart two looks have to be.
pub const APART: Duration = Duration::from_secs(10);

/// Doubts, and since when each has been seen at every look.
#[derive(Debug)]
pub struct Looks<K> {
    since: HashMap<K, Instant>,
    seen: HashSet<K>,
}

impl<K> Default for Looks<K> {
    fn default() -> Self {
        Self { since: HashMap::new(), seen: HashSet::new() }
    }
}

impl<K: Eq + Hash + Clone> Looks<K> {
    /// Notes that the look at `now` shows `key` in doubt; whether that is certain by now.
    pub fn doubt(&mut self, key: &K, now: Instant) -> bool {
        self.seen.insert(key.clone());
        let since = *self.since.entry(key.clone()).or_insert(now);
        now.duration_since(since) >= APART
    }

    /// Ends a look that has met everything: what it did not show in doubt is fine again.
    pub fn end(&mut self) {
        self.since.retain(|key, _| self.seen.contains(key));
        self.seen.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certain_after_two_looks_ten_seconds_apart() {
        let (mut looks, start) = (Looks::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!looks.doubt(&"a", at(0)));
        looks.end();
        assert!(!looks.doubt(&"a", at(9)));
        looks.end();
        assert!(looks.doubt(&"a", at(10)));
    }

    #[test]
    fn a_look_without_the_doubt_begins_anew() {
        let (mut looks, start) = (Looks::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        looks.doubt(&"a", at(0));
        looks.end();
        looks.doubt(&"b", at(5));
        looks.end();
        assert!(!looks.doubt(&"a", at(12)));
    }
}
