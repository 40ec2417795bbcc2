//! Sees to it that the audit finds every run that has not ended.

use std::time::{Duration, Instant};

use common::store::leader::LeaderError;
use common::store::open_runs::{self, Count};
use futures::FutureExt;
use futures::future::BoxFuture;
use uuid::Uuid;

use super::slice::Slice;
use super::{Desk, Duty};

/// Between two slices: there is no hurry.
const BREATH: Duration = Duration::from_millis(100);
/// Until it begins anew.
const REST: Duration = Duration::from_secs(24 * 60 * 60);

/// Walks all runs that are kept, once after the election and once a day, for those that are open and not noted as such:
/// a process from before a migration does not note them, and a repair by hand may not either.
pub struct Census {
    slice: Slice,
    after: Uuid,
}

impl Default for Census {
    fn default() -> Self {
        Self { slice: Slice::up_to(2_000), after: Uuid::nil() }
    }
}

impl Duty for Census {
    fn name(&self) -> &'static str {
        "census"
    }

    fn step<'a>(
        &'a mut self,
        desk: &'a mut Desk<'_>,
    ) -> BoxFuture<'a, Result<Duration, LeaderError>> {
        async move {
            let started = Instant::now();
            let limit = self.slice.limit();
            let Count { missing, next } =
                open_runs::count(desk.session.reader(), self.after, limit).await?;
            if !missing.is_empty() {
                let mut tx = desk.session.begin().await?;
                open_runs::add(&mut tx, &missing).await?;
                tx.commit().await?;
                tracing::warn!(
                    runs = missing.len(),
                    "open runs were not noted as such, and are now"
                );
            }
            self.slice.took(limit, started.elapsed());
            self.after = next.unwrap_or_default();
            Ok(if next.is_some() { BREATH } else { REST })
        }
        .boxed()
    }
}
