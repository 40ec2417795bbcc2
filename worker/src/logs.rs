//! Stores what nodes print, while they run and before their outcome is recorded.
//!
//! An attempt that prints nothing costs nothing. One that prints is looked at about once a second, or when a page is
//! full; what several attempts printed meanwhile goes into one commit. After it a hint tells those who follow the run.

use std::sync::Arc;
use std::time::Duration;

use common::batch::{Batcher, Work};
use common::broker::{Hint, HintKind};
use common::secret::Mask;
use common::store;
use common::store::claim::Claimed;
use common::store::node_logs::{self, Printed};
use tools::Log;

use crate::commit::bounded;
use crate::core::Core;

/// How long what was printed waits to be stored.
const PAUSE: Duration = Duration::from_secs(1);
/// How many pages go into one commit.
const BATCH: usize = 64;

/// The logs of this worker's attempts.
pub(crate) struct Logs {
    limit: usize,
    pages: Batcher<Printed, bool>,
}

impl Logs {
    /// Keeps up to `limit` bytes of each attempt.
    pub(crate) fn new(core: Arc<Core>, limit: usize) -> Self {
        Self { limit, pages: Batcher::start("node_logs", BATCH, Pages { core }) }
    }

    /// A log for an attempt.
    pub(crate) fn open(&self, mask: &Mask) -> Log {
        Log::new(self.limit, mask.clone())
    }

    /// Runs beside an attempt, and stores what it prints, until the log is closed; then all of it is stored.
    pub(crate) async fn follow(&self, claimed: &Claimed, log: &Log) {
        log.due().await;
        while !log.is_closed() {
            // Whichever comes first: a full page, the end, or a second.
            let _ = tokio::time::timeout(PAUSE, log.due()).await;
            self.store(claimed, log).await;
        }
        self.store(claimed, log).await;
    }

    async fn store(&self, claimed: &Claimed, log: &Log) {
        let Some(page) = log.take() else { return };
        let printed = Printed {
            run: claimed.context.id,
            node: claimed.id().to_owned(),
            attempt: claimed.attempt,
            page,
        };
        match self.pages.submit(printed).await {
            Ok(true) => {}
            Ok(false) => {
                tracing::debug!("the attempt was fenced off: what it prints is not kept");
                log.close();
            }
            Err(error) => tracing::warn!(%error, "lines that a node printed could not be stored"),
        }
    }
}

/// Stores pages.
struct Pages {
    core: Arc<Core>,
}

impl Work for Pages {
    type Item = Printed;
    type Answer = bool;
    const RETRY_OUTAGES: bool = true;

    async fn commit(&mut self, printed: &[Printed]) -> Result<Vec<bool>, store::Error> {
        let work = async {
            let mut conn = self.core.pool.acquire().await?;
            node_logs::write(&mut conn, printed, self.core.id).await
        };
        let stored = bounded(work).await?;
        let runs = printed.iter().map(|printed| (printed.run, HintKind::Changed)).collect();
        self.core.outbox.hint(Hint { runs });
        Ok(stored)
    }
}
