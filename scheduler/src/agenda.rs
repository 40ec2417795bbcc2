//! Which duty is next.

use std::time::{Duration, Instant};

use crate::duty::Duty;

/// The longest that a duty is left alone after it failed.
const MAX_PENANCE: Duration = Duration::from_secs(30);

/// The duties of a leader, and when each is due.
pub(crate) struct Agenda(Vec<Turn>);

/// A duty's turn.
pub(crate) struct Turn {
    duty: Box<dyn Duty>,
    due_at: Instant,
    failures: u32,
}

impl Agenda {
    /// All duties are due at once.
    pub(crate) fn new(duties: Vec<Box<dyn Duty>>, now: Instant) -> Self {
        Self(duties.into_iter().map(|duty| Turn { duty, due_at: now, failures: 0 }).collect())
    }

    /// The duty that is due first: so none starves, as long as each slice is short.
    pub(crate) fn next(&mut self) -> &mut Turn {
        self.0.iter_mut().min_by_key(|turn| turn.due_at).expect("a leader has duties")
    }
}

impl Turn {
    pub(crate) fn due_at(&self) -> Instant {
        self.due_at
    }

    pub(crate) fn name(&self) -> &'static str {
        self.duty.name()
    }

    pub(crate) fn duty(&mut self) -> &mut dyn Duty {
        self.duty.as_mut()
    }

    /// It went well, and is due again at `next`.
    pub(crate) fn done(&mut self, next: Instant) {
        self.failures = 0;
        self.due_at = next;
    }

    /// It failed, and is left alone for a while, longer each time.
    pub(crate) fn failed(&mut self, now: Instant) {
        let penance = Duration::from_millis(100 << self.failures.min(10));
        self.failures += 1;
        self.due_at = now + penance.min(MAX_PENANCE);
    }
}

#[cfg(test)]
mod tests {
    use common::store::leader::LeaderError;
    use futures::future::BoxFuture;

    use super::*;
    use crate::duty::Desk;

    struct Named(&'static str);

    impl Duty for Named {
        fn name(&self) -> &'static str {
            self.0
        }

        fn step<'a>(
            &'a mut self,
            _: &'a mut Desk<'_>,
        ) -> BoxFuture<'a, Result<Duration, LeaderError>> {
            Box::pin(async { Ok(Duration::ZERO) })
        }
    }

    #[test]
    fn a_duty_that_never_rests_leaves_room_to_the_others() {
        let now = Instant::now();
        let mut agenda = Agenda::new(vec![Box::new(Named("busy")), Box::new(Named("calm"))], now);
        agenda.next().done(now + Duration::from_millis(50));
        assert_eq!(agenda.next().name(), "calm");
        agenda.next().done(now + Duration::from_millis(150));
        assert_eq!(agenda.next().name(), "busy");
        agenda.next().done(now + Duration::from_millis(151));
        assert_eq!(agenda.next().name(), "calm");
    }

    #[test]
    fn a_duty_that_fails_is_left_alone_for_longer_each_time() {
        let now = Instant::now();
        let mut agenda = Agenda::new(vec![Box::new(Named("a"))], now);
        let mut waits = Vec::new();
        for _ in 0..12 {
            agenda.next().failed(now);
            waits.push(agenda.next().due_at().duration_since(now).as_millis());
        }
        assert_eq!(waits[..4], [100, 200, 400, 800]);
        assert_eq!(waits[11], 30_000);
        agenda.next().done(now);
        agenda.next().failed(now);
        assert_eq!(agenda.next().due_at().duration_since(now).as_millis(), 100);
    }
}
