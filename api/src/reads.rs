//! Reading a run: what clients ask most.

use std::sync::Arc;
use std::time::Duration;

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
    turns: Arc<Semaphore>,
}

impl Reads {
    /// How many runs are read at a time.
    pub(crate) const MOST: u32 = 8;
    /// How long a read waits for its turn, as for a connection of the pool.
    const WAIT: Duration = Duration::from_secs(5);

    pub(crate) fn over(own: Own) -> Self {
        Self { own, turns: Arc::new(Semaphore::new(Self::MOST as usize)) }
    }

    /// Where a run stands; none when there is no such run.
    pub(crate) async fn state(&self, run: Uuid) -> Result<Option<RunState>, Error> {
        self.turn(|own| async move { own.read(|conn| Box::pin(runs::state(conn, run))).await })
            .await
    }

    /// The run with its node runs; none when there is no such run.
    pub(crate) async fn run(&self, run: Uuid) -> Result<Option<Run>, Error> {
        self.turn(|own| async move { own.read(|conn| Box::pin(runs::read(conn, run))).await }).await
    }

    /// In a task of its own, which ends what it has begun: the server would go on with a statement whose client has
    /// gone away, and the next read would open another connection beside it.
    async fn turn<T, F>(&self, read: impl FnOnce(Own) -> F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let turn = tokio::time::timeout(Self::WAIT, self.turns.clone().acquire_owned()).await;
        let turn = turn.map_err(|_| Error::PoolTimedOut)?;
        let read = read(self.own.clone());
        let task = tokio::spawn(async move {
            let _turn = turn;
            read.await
        });
        task.await.unwrap_or_else(|error| Err(Error::Io(std::io::Error::other(error))))
    }
}
