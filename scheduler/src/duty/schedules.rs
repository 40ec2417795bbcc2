//! Schedules that are due, events that have come, and what became of the fires.

mod follow;
mod hear;

use std::time::{Duration, Instant};

use common::store::leader::LeaderError;
use common::store::schedules::catalogue::Catalogue;
use common::store::schedules::due::{self, Fired};
use futures::FutureExt;
use futures::future::BoxFuture;
use uuid::Uuid;

pub use self::follow::Follow;
pub use self::hear::Hear;
use super::slice::Slice;
use super::{Desk, Duty};

/// How long a schedule that was just made may wait to be seen, beside the age of the look that all duties share. Its
/// first fire is a second away at the least, unless it is the next moment of a cron.
const REST: Duration = Duration::from_millis(250);
/// What is held by another transaction is tried again this soon.
const HELD: Duration = Duration::from_millis(10);

/// Fires what is due; when some of it cannot be fired, schedule by schedule, so that each fails alone.
pub struct Due {
    slice: Slice,
    careful: usize,
    catalogue: Catalogue,
}

impl Default for Due {
    fn default() -> Self {
        Self { slice: Slice::up_to(500), careful: 0, catalogue: Catalogue::default() }
    }
}

impl Duty for Due {
    fn name(&self) -> &'static str {
        "schedules"
    }

    fn step<'a>(
        &'a mut self,
        desk: &'a mut Desk<'_>,
    ) -> BoxFuture<'a, Result<Duration, LeaderError>> {
        async move {
            match desk.pulse().await?.schedule_in {
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

impl Due {
    async fn fire_slice(&mut self, desk: &mut Desk<'_>) -> Result<Duration, LeaderError> {
        let started = Instant::now();
        let limit = if self.careful > 0 { 1 } else { self.slice.limit() };
        let due = due::due(desk.session.reader(), limit).await?;
        match self.fire(desk, &due).await {
            Ok(fired) => {
                self.careful = self.careful.saturating_sub(1);
                self.slice.took(fired.schedules as i64, started.elapsed());
                metrics::histogram!("gathering_schedule_tick_seconds")
                    .record(started.elapsed().as_secs_f64());
                let rest = if fired.schedules == 0 { HELD } else { Duration::ZERO };
                tell(desk, fired);
                Ok(rest)
            }
            Err(error) if error.is_refusal() && !error.is_conflict() => {
                self.careful = self.careful.saturating_sub(1);
                match due.as_slice() {
                    [schedule] => postpone(desk, *schedule, &error).await?,
                    _ => self.careful = due.len(),
                }
                Ok(Duration::ZERO)
            }
            Err(error) => Err(error),
        }
    }

    async fn fire(&mut self, desk: &mut Desk<'_>, due: &[Uuid]) -> Result<Fired, LeaderError> {
        let mut tx = desk.session.begin().await?;
        let fired = due::fire(&mut tx, &mut self.catalogue, due).await?;
        tx.commit().await?;
        Ok(fired)
    }
}

/// Sends what was committed, and counts it.
fn tell(desk: &mut Desk<'_>, fired: Fired) {
    desk.post.send(fired.rows);
    for (outcome, late) in fired.fires {
        metrics::counter!("gathering_fires_total", "outcome" => outcome.name()).increment(1);
        metrics::histogram!("gathering_fire_lag_seconds").record(late.max(0.0));
    }
}

async fn postpone(
    desk: &mut Desk<'_>,
    schedule: Uuid,
    error: &LeaderError,
) -> Result<(), LeaderError> {
    tracing::error!(%schedule, %error, "a schedule cannot be fired; it is put off");
    metrics::counter!("gathering_schedules_put_off_total").increment(1);
    let mut tx = desk.session.begin().await?;
    due::postpone(&mut tx, schedule).await?;
    Ok(tx.commit().await?)
}
