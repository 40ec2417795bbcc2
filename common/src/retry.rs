//! When something is tried again: a node's retry rule, and the back-off of reconnecting.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff;
use serde::{Deserialize, Serialize};

use crate::duration;

/// The most attempts that a policy may allow.
pub const MAX_ATTEMPTS: u32 = 1_000;

/// The steepest growth that a policy may ask for.
pub const MAX_MULTIPLIER: f64 = 1_000.0;

/// How often and when a node is tried again after a retryable failure or a time-out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RetryPolicy {
    /// Attempts in all, the first included; 1 means never again.
    pub max_attempts: u32,
    /// The longest that the first retry waits.
    #[serde(with = "duration")]
    pub initial_interval: Duration,
    /// By how much each interval grows over the last.
    pub multiplier: f64,
    /// What an interval never grows beyond.
    #[serde(with = "duration")]
    pub max_interval: Duration,
    /// Retries stop when they would come this long after the first attempt began.
    #[serde(with = "duration::option")]
    pub max_elapsed: Option<Duration>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            initial_interval: Duration::from_secs(1),
            multiplier: 2.0,
            max_interval: Duration::from_secs(60),
            max_elapsed: None,
        }
    }
}

impl RetryPolicy {
    /// How long to wait after `spent` attempts (at least one) have failed: evenly spread between nothing and
    /// the exponential interval (full jitter), so that what failed together does not come back together.
    pub fn interval(&self, spent: u32) -> Duration {
        let mut backoff = full_jitter(self.initial_interval, self.multiplier, self.max_interval);
        let mut interval = next(&mut backoff);
        for _ in 1..spent.min(MAX_ATTEMPTS) {
            if backoff.current_interval >= backoff.max_interval && backoff.multiplier > 1.0 {
                return next(&mut backoff);
            }
            interval = next(&mut backoff);
        }
        interval
    }

    /// How long to wait before the next attempt, or none when there is to be no other: after `spent` attempts,
    /// `elapsed` since the first one began. A `retry_after` that the failure asked for is the least that is
    /// waited.
    pub fn after(
        &self,
        spent: u32,
        elapsed: Duration,
        retry_after: Option<Duration>,
    ) -> Option<Duration> {
        if spent >= self.max_attempts {
            return None;
        }
        let wait = self.interval(spent).max(retry_after.unwrap_or_default()).min(duration::LONGEST);
        match self.max_elapsed {
            Some(most) if elapsed.saturating_add(wait) > most => None,
            _ => Some(wait),
        }
    }
}

/// The endless back-off of whoever has lost a connection: full jitter below 0.2 s at first, below 5 s at last.
#[derive(Debug)]
pub struct Reconnect(ExponentialBackoff);

impl Reconnect {
    /// A back-off that has not waited yet.
    pub fn new() -> Self {
        Self(full_jitter(Duration::from_millis(200), 2.0, Duration::from_secs(5)))
    }

    /// How long to wait before trying again.
    pub fn wait(&mut self) -> Duration {
        next(&mut self.0)
    }

    /// Begins anew, since a connection held.
    pub fn reset(&mut self) {
        self.0.reset();
    }
}

impl Default for Reconnect {
    fn default() -> Self {
        Self::new()
    }
}

/// `backoff` spreads `i ± factor·i`: a factor of 1 on half the interval is full jitter.
fn full_jitter(initial: Duration, multiplier: f64, longest: Duration) -> ExponentialBackoff {
    let initial = initial.min(longest) / 2;
    ExponentialBackoff {
        current_interval: initial,
        initial_interval: initial,
        randomization_factor: 1.0,
        multiplier: if multiplier.is_finite() {
            multiplier.clamp(1.0, MAX_MULTIPLIER)
        } else {
            1.0
        },
        max_interval: longest / 2,
        max_elapsed_time: None,
        ..ExponentialBackoff::default()
    }
}

fn next(backoff: &mut ExponentialBackoff) -> Duration {
    // `backoff` adds up to a nanosecond to the upper bound.
    let most = backoff.current_interval * 2;
    backoff.next_backoff().map_or(most, |wait| wait.min(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(policy: &RetryPolicy, spent: u32) -> (Duration, Duration) {
        let draws = || (0..2_000).map(|_| policy.interval(spent));
        (draws().min().unwrap_or_default(), draws().max().unwrap_or_default())
    }

    #[test]
    fn intervals_grow_to_the_longest_with_full_jitter() {
        let policy = RetryPolicy { max_interval: Duration::from_secs(5), ..RetryPolicy::default() };
        for (spent, most) in
            [(0, 1), (1, 1), (2, 2), (3, 4), (4, 5), (5, 5), (900, 5), (u32::MAX, 5)]
        {
            let (least, longest) = bounds(&policy, spent);
            let most = Duration::from_secs(most);
            assert!(longest <= most, "after {spent}: {longest:?} > {most:?}");
            assert!(
                longest > most.mul_f64(0.95),
                "after {spent}: only up to {longest:?} of {most:?}"
            );
            assert!(least < most.mul_f64(0.05), "after {spent}: never below {least:?}");
        }
    }

    #[test]
    fn odd_policies_neither_panic_nor_exceed_their_longest_interval() {
        for multiplier in [0.0, 1.0, -3.0, 1e300, f64::NAN, f64::INFINITY] {
            for initial in [Duration::ZERO, Duration::from_millis(1), duration::LONGEST] {
                let policy = RetryPolicy {
                    multiplier,
                    initial_interval: initial,
                    max_interval: Duration::from_secs(2),
                    ..RetryPolicy::default()
                };
                for spent in [0, 1, 2, 50, u32::MAX] {
                    assert!(policy.interval(spent) <= Duration::from_secs(2));
                }
            }
        }
        let still = RetryPolicy { multiplier: 1.0, ..RetryPolicy::default() };
        let (_, longest) = bounds(&still, 100);
        assert!(longest <= Duration::from_secs(1), "a multiplier of 1 does not grow: {longest:?}");
    }

    #[test]
    fn retries_end() {
        let policy =
            RetryPolicy { max_elapsed: Some(Duration::from_secs(10)), ..RetryPolicy::default() };
        assert!(policy.after(2, Duration::ZERO, None).is_some());
        assert_eq!(policy.after(3, Duration::ZERO, None), None, "attempts are spent");
        assert_eq!(policy.after(1, Duration::from_secs(11), None), None, "time is spent");
        let asked = Some(Duration::from_secs(7));
        assert_eq!(policy.after(1, Duration::ZERO, asked), asked, "as long as the failure asked");
        assert_eq!(
            policy.after(1, Duration::from_secs(4), asked),
            None,
            "asked beyond max_elapsed"
        );
        let once = RetryPolicy { max_attempts: 1, ..RetryPolicy::default() };
        assert_eq!(once.after(1, Duration::ZERO, None), None);
    }

    #[test]
    fn reconnecting_never_gives_up() {
        let mut backoff = Reconnect::new();
        assert!(backoff.wait() <= Duration::from_millis(200));
        let later: Vec<_> = (0..1_000).map(|_| backoff.wait()).collect();
        assert!(later.iter().all(|wait| *wait <= Duration::from_secs(5)));
        assert!(later.iter().any(|wait| *wait > Duration::from_secs(4)));
        backoff.reset();
        assert!(backoff.wait() <= Duration::from_millis(200));
    }
}
