//! The leader's duties. Each does a slice at a time over the leader's one connection, and says when it wants to go on.

pub mod audit;
pub mod census;
pub mod children;
pub mod leftover;
pub mod prune;
pub mod schedules;
pub mod settle;
mod slice;
pub mod timers;

use std::time::{Duration, Instant};

use common::store::leader::{LeaderError, Session};
use common::store::pulse::{self, Pulse};
use futures::future::BoxFuture;

use crate::post::Post;

/// What a duty works with while it is its turn.
pub struct Desk<'s> {
    /// The session that holds the lock: the only way in which the leader writes.
    pub session: &'s mut Session,
    /// The way to the broker.
    pub post: &'s mut Post,
    /// What awaited the leader at the last look, and when that was.
    pub pulse: &'s mut Option<(Instant, Pulse)>,
}

impl Desk<'_> {
    /// What awaits the leader, as of 0.2 s ago at most; the times are as of now. A duty that finds work there does
    /// it until its own look finds none.
    pub async fn pulse(&mut self) -> Result<Pulse, LeaderError> {
        if let Some((at, mut pulse)) = *self.pulse
            && at.elapsed() < FRESH
        {
            let since = at.elapsed().as_secs_f64();
            pulse.schedule_in = pulse.schedule_in.map(|seconds| seconds - since);
            pulse.timer_in = pulse.timer_in.map(|seconds| seconds - since);
            return Ok(pulse);
        }
        let pulse = pulse::look(self.session.reader()).await?;
        *self.pulse = Some((Instant::now(), pulse));
        Ok(pulse)
    }

    /// Something was done: what the last look found is over.
    pub fn stale(&mut self) {
        *self.pulse = None;
    }
}

/// How long a look serves all duties: with the shortest rest, a moment less than it, one look a rest.
const FRESH: Duration = Duration::from_millis(195);

/// Something that has to be done because time has passed.
pub trait Duty: Send {
    /// The word for logs and metrics.
    fn name(&self) -> &'static str;

    /// Does a slice of under 100 ms, and returns how long to rest before the next.
    fn step<'a>(
        &'a mut self,
        desk: &'a mut Desk<'_>,
    ) -> BoxFuture<'a, Result<Duration, LeaderError>>;
}

/// All duties, as a new leader takes them up: it remembers nothing.
pub fn all(retention: Duration, audit_retention: Duration) -> Vec<Box<dyn Duty>> {
    vec![
        Box::new(schedules::Due::default()),
        Box::new(timers::Timers::default()),
        Box::new(schedules::Hear::default()),
        Box::new(schedules::Follow::default()),
        Box::new(settle::Settle),
        Box::new(leftover::Leftover::default()),
        Box::new(audit::Audit::default()),
        Box::new(census::Census::default()),
        Box::new(children::Children::default()),
        Box::new(prune::Prune::new(retention, audit_retention)),
    ]
}
