//! Jobs about runs that other runs have started: an end is counted where it is waited for, and what nobody waits for
//! any more is stopped.

use std::sync::Arc;

use common::breakpoint;
use common::job::Task;
use common::outbox::Row;
use common::run::{RunState, StopReason};
use common::store;
use common::store::stop::{self, Stopped};
use common::store::waits::children::{self, End};
use uuid::Uuid;

use crate::core::{Core, Worker};

/// How many children are stopped between two looks.
const AT_ONCE: i64 = 200;

/// Counts ends, many in one transaction.
pub(crate) struct Ends {
    core: Arc<Core>,
}

impl Ends {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }
}

impl common::batch::Work for Ends {
    type Item = End;
    type Answer = ();
    const RETRY_OUTAGES: bool = true;

    async fn commit(&mut self, ends: &[End]) -> Result<Vec<()>, store::Error> {
        let mut tx = self.core.pool.begin().await?;
        let rows = children::count(&mut tx, ends).await?;
        tx.commit().await?;
        breakpoint::committed("child_end").await;
        let runs = rows.iter().filter_map(resumed).map(|run| (run, RunState::Running)).collect();
        self.core.announce(rows, runs);
        Ok(vec![(); ends.len()])
    }
}

/// The run whose node goes on with this row.
fn resumed(row: &Row) -> Option<Uuid> {
    match row.job.task {
        Task::NodeExecute { run, .. } => Some(run),
        _ => None,
    }
}

/// Stops what `run` has started and waits for no longer, each in a transaction of its own.
pub(crate) async fn stop(worker: &Worker, run: Uuid) -> Result<(), Arc<store::Error>> {
    loop {
        let unwanted = {
            let mut conn = worker.core.pool.acquire().await?;
            children::unwanted(&mut conn, run, AT_ONCE).await?
        };
        if unwanted.is_empty() {
            return Ok(());
        }
        for child in unwanted {
            let mut tx = worker.core.pool.begin().await?;
            let stopped = stop::stop(&mut tx, child, StopReason::Cancel).await?;
            tx.commit().await?;
            breakpoint::committed("child_stop").await;
            let state = match stopped {
                Stopped::Stopping => RunState::Cancelling,
                Stopped::Stopped(state) => state,
                Stopped::Unknown | Stopped::Ended(_) => continue,
            };
            worker.core.announce(Vec::new(), vec![(child, state)]);
        }
    }
}
