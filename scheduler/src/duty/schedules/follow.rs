//! What became of the fires: ends are noted, what waited starts, what was replaced is cancelled, backfills go on.

use std::time::Duration;

use common::store::leader::LeaderError;
use common::store::schedules::backfill;
use common::store::schedules::catalogue::Catalogue;
use common::store::schedules::follow::{self, Key, Look};
use common::store::stop::Stopped;
use futures::FutureExt;
use futures::future::BoxFuture;
use uuid::Uuid;

use crate::duty::slice::Slice;
use crate::duty::{Desk, Duty};

/// Between two walks: how late an end may be noted, and a fire that waits for it may start.
const REST: Duration = Duration::from_millis(250);
/// Between two slices of a walk.
const BREATH: Duration = Duration::from_millis(20);
/// Runs cancelled in one slice: stopping one can be long.
const CANCELLED: i64 = 16;

/// Fires that waited, started in one slice; the others are as ready at the next walk.
const STARTED: usize = 20;
/// Backfills that go on in one slice.
const BACKFILLS: i64 = 5;

/// Walks the fires whose end is not noted, again and again.
pub struct Follow {
    slice: Slice,
    after: Option<Key>,
    /// The backfill that was last.
    backfill: Uuid,
    catalogue: Catalogue,
}

impl Default for Follow {
    fn default() -> Self {
        Self {
            slice: Slice::up_to(1_000),
            after: None,
            backfill: Uuid::nil(),
            catalogue: Catalogue::default(),
        }
    }
}

impl Duty for Follow {
    fn name(&self) -> &'static str {
        "fires"
    }

    fn step<'a>(
        &'a mut self,
        desk: &'a mut Desk<'_>,
    ) -> BoxFuture<'a, Result<Duration, LeaderError>> {
        async move {
            let pulse = desk.pulse().await?;
            if pulse.backfills && self.after.is_none() {
                self.backfill(desk).await?;
            }
            if !pulse.fires {
                self.after = None;
                return Ok(REST);
            }
            self.cancel(desk).await?;
            let started = std::time::Instant::now();
            let limit = self.slice.limit();
            let look = follow::look(desk.session.reader(), self.after, limit).await?;
            self.after = look.next;
            self.note(desk, &look).await?;
            let seen = if look.next.is_some() { limit } else { 0 };
            self.slice.took(seen, started.elapsed());
            Ok(if look.next.is_some() { BREATH } else { REST })
        }
        .boxed()
    }
}

impl Follow {
    async fn note(&mut self, desk: &mut Desk<'_>, look: &Look) -> Result<(), LeaderError> {
        if !look.ended.is_empty() {
            let mut tx = desk.session.begin().await?;
            let ended = follow::note(&mut tx, &mut self.catalogue, &look.ended).await?;
            tx.commit().await?;
            for outcome in ended {
                metrics::counter!("gathering_fires_ended_total", "outcome" => outcome.name())
                    .increment(1);
            }
        }
        for key in look.waiting.iter().take(STARTED) {
            let mut tx = desk.session.begin().await?;
            let started = follow::start_waiting(&mut tx, &mut self.catalogue, *key).await?;
            tx.commit().await?;
            if let Some((_, rows)) = started {
                desk.post.send(rows);
            }
        }
        Ok(())
    }

    async fn cancel(&mut self, desk: &mut Desk<'_>) -> Result<(), LeaderError> {
        let replaced = follow::replaced(desk.session.reader(), CANCELLED).await?;
        for (key, run) in replaced {
            let mut tx = desk.session.begin().await?;
            let stopped = follow::cancel(&mut tx, key, run).await?;
            tx.commit().await?;
            match stopped {
                Stopped::Stopping => desk.post.hint(vec![], vec![run], vec![]),
                Stopped::Stopped(_) => desk.post.hint(vec![], vec![], vec![run]),
                Stopped::Unknown | Stopped::Ended(_) => {}
            }
        }
        Ok(())
    }

    async fn backfill(&mut self, desk: &mut Desk<'_>) -> Result<(), LeaderError> {
        let open = backfill::open(desk.session.reader(), self.backfill, BACKFILLS).await?;
        let is_all = (open.len() as i64) < BACKFILLS;
        self.backfill = open.last().filter(|_| !is_all).map(|(id, _)| *id).unwrap_or_default();
        for (id, schedule) in open {
            let mut tx = desk.session.begin().await?;
            let (_, rows) = backfill::advance(&mut tx, &mut self.catalogue, id, schedule).await?;
            tx.commit().await?;
            desk.post.send(rows);
        }
        Ok(())
    }
}
