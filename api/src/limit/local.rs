//! Counting within this process.

use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};

use super::{Count, Rate};

type Limiter =
    RateLimiter<String, DashMapStateStore<String>, DefaultClock, StateInformationMiddleware>;

/// One tier's count.
pub(super) struct Local {
    rate: Rate,
    limiter: Limiter,
}

impl Local {
    pub(super) fn new(rate: Rate) -> Self {
        let burst = std::num::NonZeroU32::new(rate.burst).unwrap_or(std::num::NonZeroU32::MIN);
        let quota = Quota::with_period(rate.interval().max(Duration::from_nanos(1)))
            .unwrap_or_else(|| Quota::per_second(burst));
        let limiter = RateLimiter::dashmap(quota.allow_burst(burst)).with_middleware();
        Self { rate, limiter }
    }

    pub(super) fn rate(&self) -> Rate {
        self.rate
    }

    pub(super) fn charge(&self, who: &str) -> Count {
        let spent = |remaining: u32| self.rate.interval() * (self.rate.burst - remaining);
        match self.limiter.check_key(&who.to_owned()) {
            Ok(state) => {
                let remaining = state.remaining_burst_capacity().min(self.rate.burst);
                Count { rate: self.rate, remaining, reset: spent(remaining), retry_after: None }
            }
            Err(until) => {
                let wait = until.wait_time_from(DefaultClock::default().now());
                Count { rate: self.rate, remaining: 0, reset: spent(0), retry_after: Some(wait) }
            }
        }
    }

    pub(super) fn tidy(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_taken_at_once_and_each_is_counted_by_itself() {
        let local = Local::new(Rate { burst: 3, per: Duration::from_secs(60) });
        let remaining: Vec<u32> = (0..3).map(|_| local.charge("a").remaining).collect();
        assert_eq!(remaining, [2, 1, 0]);
        let over = local.charge("a");
        let wait = over.retry_after.expect("it is one too many");
        assert!(wait > Duration::from_secs(19) && wait <= Duration::from_secs(20), "{wait:?}");
        assert_eq!(over.reset, Duration::from_secs(60));
        assert!(local.charge("b").retry_after.is_none());
    }
}
