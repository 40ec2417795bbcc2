//! Publishes the outbox rows that their own process did not publish in time.

use std::time::Duration;

use common::store::leader::LeaderError;
use common::store::leftover;
use futures::FutureExt;
use futures::future::BoxFuture;
use uuid::Uuid;

use super::{Desk, Duty};

/// Rows looked at in one slice.
const SLICE: i64 = 1_000;
/// Past the 5 s in which a row is its process's, with room for its confirm.
const AGE_MS: f64 = 7_000.0;
const REST: Duration = Duration::from_secs(1);
const FULL: Duration = Duration::from_millis(20);

/// Walks the outbox from end to end, again and again.
#[derive(Default)]
pub struct Leftover {
    after: Uuid,
}

impl Duty for Leftover {
    fn name(&self) -> &'static str {
        "leftover"
    }

    fn step<'a>(
        &'a mut self,
        desk: &'a mut Desk<'_>,
    ) -> BoxFuture<'a, Result<Duration, LeaderError>> {
        self.publish_slice(desk).boxed()
    }
}

impl Leftover {
    async fn publish_slice(&mut self, desk: &mut Desk<'_>) -> Result<Duration, LeaderError> {
        if !desk.post.is_open() {
            self.after = Uuid::nil();
            return Ok(REST);
        }
        let room = desk.post.room();
        // A walk begins once the rows that the last one brought home are gone.
        let is_behind = self.after.is_nil() && desk.post.has_confirmed();
        if is_behind || room < SLICE as usize / 2 {
            return Ok(FULL);
        }
        let limit = SLICE.min(room as i64);
        let look = leftover::look(desk.session.reader(), self.after, limit, AGE_MS).await?;
        for (id, why) in look.unreadable {
            tracing::error!(outbox_id = %id, %why, "an outbox row is no job, and is dropped: the audit sends what it stood for");
            desk.post.drop_row(id);
        }
        for row in look.rows {
            let id = row.id;
            if !desk.post.send_left(row) {
                return Ok(FULL);
            }
            self.after = id;
        }
        self.after = look.next.unwrap_or_default();
        Ok(if look.next.is_some() { Duration::ZERO } else { REST })
    }
}
