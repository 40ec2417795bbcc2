//! Retries, delays, delayed starts and deadlines that are due.

use std::time::{Duration, Instant};

use common::breakpoint;
use common::store::leader::LeaderError;
use common::store::timers::{self, Fired, Timer, TimerKind};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::slice::Slice;
use super::{Desk, Duty};

/// How long a timer that is due by now may wait to be seen, beside the age of the look that all duties share.
const REST: Duration = Duration::from_millis(200);
/// Stopping a run can be long.
const DEADLINES: usize = 16;

/// Fires timers; when some of them cannot be fired, one by one, so that each fails alone.
pub struct Timers {
    slice: Slice,
    careful: usize,
}

impl Default for Timers {
    fn default() -> Self {
        Self { slice: Slice::up_to(500), careful: 0 }
    }
}

impl Duty for Timers {
    fn name(&self) -> &'static str {
        "timers"
    }

    fn step<'a>(
        &'a mut self,
        desk: &'a mut Desk<'_>,
    ) -> BoxFuture<'a, Result<Duration, LeaderError>> {
        async move {
            match desk.pulse().await?.timer_in {
                None => Ok(REST),
                Some(seconds) if seconds > 0.0 => {
                    Ok(Duration::try_from_secs_f64(seconds).unwrap_or(REST).min(REST))
                }
                Some(_) => {
                    desk.stale();
                    self.fire_slice(desk).await
                }
            }
        }
        .boxed()
    }
}

impl Timers {
    async fn fire_slice(&mut self, desk: &mut Desk<'_>) -> Result<Duration, LeaderError> {
        let started = Instant::now();
        let limit = if self.careful > 0 { 1 } else { self.slice.limit() };
        let mut due = timers::due(desk.session.reader(), limit).await?;
        let found = due.len();
        cut(&mut due);
        match fire(desk, &due).await {
            Ok(fired) => {
                self.careful = self.careful.saturating_sub(1);
                self.slice.took(found as i64, started.elapsed());
                metrics::counter!("gathering_timers_fired_total").increment(fired.timers as u64);
                // What was due and could not be taken is another's for the moment.
                let rest =
                    if fired.timers == 0 { Duration::from_millis(20) } else { Duration::ZERO };
                desk.post.send(fired.rows);
                desk.post.hint(fired.changed, fired.stopping, fired.ended);
                Ok(rest)
            }
            Err(error) if error.is_refusal() && !error.is_conflict() => {
                self.careful = self.careful.saturating_sub(1);
                match due.as_slice() {
                    [timer] => postpone(desk, timer, &error).await?,
                    _ => self.careful = found,
                }
                Ok(Duration::ZERO)
            }
            Err(error) => Err(error),
        }
    }
}

/// Keeps only so many deadlines; the others are as due the next time.
fn cut(due: &mut Vec<Timer>) {
    let mut deadlines = 0;
    due.retain(|timer| {
        deadlines += usize::from(timer.kind == TimerKind::Deadline);
        timer.kind != TimerKind::Deadline || deadlines <= DEADLINES
    });
}

async fn fire(desk: &mut Desk<'_>, due: &[Timer]) -> Result<Fired, LeaderError> {
    let mut tx = desk.session.begin().await?;
    let fired = timers::fire(&mut tx, due).await?;
    tx.commit().await?;
    if fired.timers > 0 {
        breakpoint::committed("timers").await;
    }
    Ok(fired)
}

async fn postpone(
    desk: &mut Desk<'_>,
    timer: &Timer,
    error: &LeaderError,
) -> Result<(), LeaderError> {
    tracing::error!(run_id = %timer.run, node = timer.node, kind = ?timer.kind, %error, "a timer cannot be fired; it is put off");
    metrics::counter!("gathering_timers_put_off_total").increment(1);
    let mut tx = desk.session.begin().await?;
    timers::postpone(&mut tx, timer).await?;
    Ok(tx.commit().await?)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn only_some_deadlines_are_met_at_a_time() {
        let timer = |kind| Timer { run: Uuid::nil(), node: String::new(), kind };
        let mut due: Vec<Timer> =
            (0..40).flat_map(|_| [timer(TimerKind::Deadline), timer(TimerKind::Start)]).collect();
        cut(&mut due);
        let deadlines = due.iter().filter(|timer| timer.kind == TimerKind::Deadline).count();
        assert_eq!((deadlines, due.len()), (DEADLINES, DEADLINES + 40));
    }
}
