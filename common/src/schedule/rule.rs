//! When a schedule fires: the moments, whatever has become of them.

use std::time::Duration;

use chrono::TimeDelta;
use chrono_tz::Tz;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::cron::Cron;
use super::zone;
use crate::clock::Instant;

/// When a schedule fires, read and checked.
#[derive(Debug, Clone)]
pub enum Rule {
    /// As a cron expression says, by the clocks of a zone.
    Cron {
        /// The expression.
        cron: Box<Cron>,
        /// The zone.
        zone: Tz,
    },
    /// Again and again.
    Interval(TimeDelta),
    /// One time.
    Once(Instant),
    /// When something happens; time makes it fire never.
    Event,
}

/// Between which moments a schedule fires, and what its intervals are counted from.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// What intervals are counted from: `start_at`, else when the schedule was made.
    pub anchor: Instant,
    /// Nothing fires before.
    pub start_at: Option<Instant>,
    /// Nothing fires after.
    pub end_at: Option<Instant>,
}

impl Rule {
    /// The first moment after `after`, within the bounds.
    pub fn next(&self, bounds: &Bounds, after: Instant) -> Option<Instant> {
        // A moment that is `start_at` itself counts.
        let least = bounds.start_at.map(|start| start - TimeDelta::microseconds(1));
        let after = least.map_or(after, |least| after.max(least));
        let next = match self {
            Self::Cron { cron, zone } => zone::next(cron, *zone, after),
            Self::Interval(interval) => next_interval(*interval, bounds, after),
            Self::Once(at) => Some(*at).filter(|at| *at > after),
            Self::Event => None,
        };
        next.filter(|next| bounds.end_at.is_none_or(|end| *next <= end))
    }
}

/// The next whole number of intervals after the anchor. The anchor itself is a moment only if it is `start_at`.
fn next_interval(interval: TimeDelta, bounds: &Bounds, after: Instant) -> Option<Instant> {
    let (anchor, length) = (bounds.anchor, interval.num_microseconds()?.max(1));
    let elapsed = (after - anchor).num_microseconds()?;
    let least = if bounds.start_at == Some(anchor) { 0 } else { 1 };
    let count = (elapsed.div_euclid(length) + 1).max(least);
    anchor.checked_add_signed(TimeDelta::microseconds(length.checked_mul(count)?))
}

/// By how much a fire is put off: up to `jitter`, and always the same for the same fire.
pub fn jitter(jitter: Duration, schedule: Uuid, fire_at: Instant) -> TimeDelta {
    let most = u64::try_from(jitter.as_micros()).unwrap_or(u64::MAX);
    if most == 0 {
        return TimeDelta::zero();
    }
    let mut hash = Sha256::new();
    hash.update(schedule.as_bytes());
    hash.update(fire_at.timestamp_micros().to_be_bytes());
    let digest = hash.finalize();
    let drawn = digest.iter().take(8).fold(0u64, |drawn, byte| drawn << 8 | u64::from(*byte));
    TimeDelta::microseconds(i64::try_from(drawn % (most + 1)).unwrap_or_default())
}
