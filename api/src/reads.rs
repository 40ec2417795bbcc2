//! Reading a run: what clients ask most.

use common::own::Own;
use common::run::RunState;
use common::store::Error;
use common::store::runs::{self, Run};
use tokio::sync::Semaphore;
use uuid::Uuid;

/// Reads runs.
pub(crate) struct Reads {
    own: Own,
    /// Accepting, over the same connections, never waits for reads.
    turns: Semaphore,
}

impl Reads {
    /// How many runs are read at a time.
    pub(crate) const MOST: u32 = 4;

    pub(crate) fn over(own: Own) -> Self {
        Self { own, turns: Semaphore::new(Self::MOST as usize) }
    }

    /// Where a run stands; none when there is no such run.
    pub(crate) async fn state(&self, run: Uuid) -> Result<Option<RunState>, Error> {
        let _turn = self.turns.acquire().await;
        self.own.read(|conn| Box::pin(runs::state(conn, run))).await
    }

    /// The run with its node runs; none when there is no such run.
    pub(crate) async fn run(&self, run: Uuid) -> Result<Option<Run>, Error> {
        let _turn = self.turns.acquire().await;
        self.own.read(|conn| Box::pin(runs::read(conn, run))).await
    }
}
