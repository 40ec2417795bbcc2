//! Events that have come.

use std::time::Duration;

use common::breakpoint;
use common::store::leader::LeaderError;
use common::store::schedules::catalogue::Catalogue;
use common::store::schedules::due::Fired;
use common::store::schedules::events::{self, Event};
use common::store::schedules::hear;
use common::store::waits::hear::{self as waits, Conditions, Key};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::tell;
use crate::duty::{Desk, Duty};

/// How long an event may wait to be seen, beside the age of the look that all duties share.
const REST: Duration = Duration::from_millis(200);
/// Events of one transaction: each may start many schedules.
const AT_ONCE: i64 = 50;
/// Node runs that hear the events of one slice, in one transaction.
const LISTENERS: i64 = 500;
/// How long events are left alone after one could not be dealt with.
const PENANCE: Duration = Duration::from_millis(500);

/// Starts what listens; when some of it cannot be started, event by event.
#[derive(Default)]
pub struct Hear {
    careful: usize,
    catalogue: Catalogue,
    conditions: Conditions,
    walk: Option<Walk>,
}

/// The way of some events through the node runs that wait for events: it ends before they go to the schedules, which
/// delete them.
struct Walk {
    events: Vec<Event>,
    after: Option<Key>,
}

impl Duty for Hear {
    fn name(&self) -> &'static str {
        "events"
    }

    fn step<'a>(
        &'a mut self,
        desk: &'a mut Desk<'_>,
    ) -> BoxFuture<'a, Result<Duration, LeaderError>> {
        self.hear_slice(desk).boxed()
    }
}

impl Hear {
    async fn hear_slice(&mut self, desk: &mut Desk<'_>) -> Result<Duration, LeaderError> {
        if !desk.pulse().await?.events {
            return Ok(REST);
        }
        desk.stale();
        let limit = if self.careful > 0 { 1 } else { AT_ONCE };
        let mut walk = match self.walk.take() {
            Some(walk) => walk,
            None => {
                let events = events::waiting(desk.session.reader(), limit).await?;
                Walk { events, after: None }
            }
        };
        if walk.events.is_empty() {
            return Ok(REST);
        }
        let heard = match self.tell_waiting(desk, &mut walk).await {
            Ok(true) => {
                self.walk = Some(walk);
                return Ok(Duration::ZERO);
            }
            Ok(false) => self.hear(desk, &walk.events).await,
            Err(error) => Err(error),
        };
        let events = walk.events;
        match heard {
            Ok(fired) => {
                self.careful = self.careful.saturating_sub(1);
                metrics::counter!("gathering_events_total").increment(events.len() as u64);
                tell(desk, fired);
                Ok(Duration::ZERO)
            }
            Err(error) if error.is_refusal() && !error.is_conflict() => {
                self.careful = self.careful.saturating_sub(1);
                if let [event] = events.as_slice() {
                    tracing::error!(event = %event.id, %error, "an event cannot be dealt with; it is put off");
                    let mut tx = desk.session.begin().await?;
                    events::postpone(&mut tx, event.seq).await?;
                    tx.commit().await?;
                    return Ok(PENANCE);
                }
                self.careful = events.len();
                Ok(Duration::ZERO)
            }
            Err(error) => Err(error),
        }
    }

    /// Has a slice of the node runs that wait hear the events; says whether there are more.
    async fn tell_waiting(
        &mut self,
        desk: &mut Desk<'_>,
        walk: &mut Walk,
    ) -> Result<bool, LeaderError> {
        let after = walk.after.take();
        let mut tx = desk.session.begin().await?;
        let heard =
            waits::hear(&mut tx, &mut self.conditions, &walk.events, after.as_ref(), LISTENERS)
                .await?;
        tx.commit().await?;
        if !heard.rows.is_empty() {
            breakpoint::committed("event").await;
        }
        desk.post.send(heard.rows);
        desk.post.hint(heard.runs, vec![], vec![]);
        walk.after = heard.next;
        Ok(walk.after.is_some())
    }

    async fn hear(&mut self, desk: &mut Desk<'_>, heard: &[Event]) -> Result<Fired, LeaderError> {
        let mut tx = desk.session.begin().await?;
        let fired = hear(&mut tx, &mut self.catalogue, heard).await?;
        tx.commit().await?;
        Ok(fired)
    }
}
