//! Deletes the outbox rows that the broker has confirmed.

use std::time::Duration;

use common::store::leader::LeaderError;
use common::store::leftover;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::{Desk, Duty};

/// Rows that one transaction deletes.
const AT_ONCE: usize = 2_000;
const REST: Duration = Duration::from_millis(100);
/// While nothing is on its way.
const IDLE: Duration = Duration::from_millis(500);

/// What was published is published again by the next leader, until its row is gone.
pub struct Settle;

impl Duty for Settle {
    fn name(&self) -> &'static str {
        "settle"
    }

    fn step<'a>(
        &'a mut self,
        desk: &'a mut Desk<'_>,
    ) -> BoxFuture<'a, Result<Duration, LeaderError>> {
        async move {
            let confirmed = desk.post.confirmed(AT_ONCE);
            if confirmed.is_empty() {
                return Ok(if desk.post.is_idle() { IDLE } else { REST });
            }
            let mut tx = desk.session.begin().await?;
            leftover::delete(&mut tx, confirmed).await?;
            tx.commit().await?;
            let count = confirmed.len();
            desk.post.forget(count);
            Ok(if count == AT_ONCE { Duration::ZERO } else { REST })
        }
        .boxed()
    }
}
