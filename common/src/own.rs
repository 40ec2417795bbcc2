//! Connections to Postgres beside the pool.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use sqlx::PgConnection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::store::{Error, Pool, connect, is_outage};

/// A connection that is older is given up: what a server's process gathers in the course of time goes with it.
const LIFE: Duration = Duration::from_secs(30 * 60);
/// Nor is one used again after so long: what lies between may have forgotten it.
const IDLE: Duration = Duration::from_secs(2 * 60);

/// Connections beside those of a pool, for what makes one statement after another. Between two statements nobody asks
/// whether a connection lives, as a pool does each time that one comes back; and where one is enough, it is always the
/// same one, whose process has all in its memory.
#[derive(Debug, Clone)]
pub struct Own {
    /// Connects, and tries again for a while where the server is not there yet.
    pool: Pool,
    places: Arc<Semaphore>,
    /// The one used last at the end.
    kept: Arc<Mutex<Vec<Kept>>>,
}

#[derive(Debug)]
struct Kept {
    conn: PgConnection,
    age: Age,
}

/// When a connection was opened, and when it was last used.
#[derive(Debug, Clone, Copy)]
struct Age {
    since: Instant,
    used: Instant,
}

/// A connection, for one turn. Dropped without [`Taken::keep`], it is given up, and so are all that nobody uses: who
/// knows what is under way on it, and what one has met the others have most likely met, too.
#[derive(Debug)]
pub struct Taken {
    /// Until it is kept.
    kept: Option<Kept>,
    home: Arc<Mutex<Vec<Kept>>>,
    _place: OwnedSemaphorePermit,
}

impl Own {
    /// At most so many connections, opened with the pool's settings as they are needed.
    pub fn beside(pool: &Pool, most: u32) -> Self {
        let pool = connect((*pool.connect_options()).clone(), most);
        let places = Arc::new(Semaphore::new(most as usize));
        Self { pool, places, kept: Arc::default() }
    }

    /// A connection, once there is one that nobody else uses.
    pub async fn take(&self) -> Result<Taken, Error> {
        let place = self.place().await?;
        let kept = lock(&self.kept).pop().filter(Kept::is_fresh);
        match kept {
            Some(kept) => Ok(self.taken(kept, place)),
            None => Ok(self.taken(self.connect().await?, place)),
        }
    }

    /// Reads; where the connection turns out to be gone, once more over a new one.
    pub async fn read<T>(
        &self,
        reads: impl for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, Result<T, Error>>,
    ) -> Result<T, Error> {
        let mut taken = self.take().await?;
        let is_new = taken.kept.as_ref().is_some_and(|kept| kept.age.is_new());
        let mut read = reads(&mut taken).await;
        if !is_new && read.as_ref().is_err_and(is_gone) {
            drop(taken);
            let place = self.place().await?;
            taken = self.taken(self.connect().await?, place);
            read = reads(&mut taken).await;
        }
        if !read.as_ref().is_err_and(is_gone) {
            taken.keep();
        }
        read
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit, Error> {
        self.places.clone().acquire_owned().await.map_err(|_| Error::PoolClosed)
    }

    async fn connect(&self) -> Result<Kept, Error> {
        let conn = self.pool.acquire().await?.detach();
        let now = Instant::now();
        Ok(Kept { conn, age: Age { since: now, used: now } })
    }

    fn taken(&self, kept: Kept, place: OwnedSemaphorePermit) -> Taken {
        Taken { kept: Some(kept), home: self.kept.clone(), _place: place }
    }
}

/// Whether the connection is of no use any more; a statement that took too long says nothing of it.
fn is_gone(error: &Error) -> bool {
    let cancelled = |error: &Error| {
        error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("57014"))
    };
    is_outage(error) && !cancelled(error)
}

fn lock(kept: &Mutex<Vec<Kept>>) -> MutexGuard<'_, Vec<Kept>> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Kept {
    fn is_fresh(&self) -> bool {
        self.age.is_fresh(Instant::now())
    }
}

impl Age {
    fn is_new(self) -> bool {
        self.used == self.since
    }

    fn is_fresh(self, now: Instant) -> bool {
        now - self.since < LIFE && now - self.used < IDLE
    }
}

impl Taken {
    /// All went well: another turn is made over the same connection.
    pub fn keep(mut self) {
        if let Some(mut one) = self.kept.take() {
            one.age.used = Instant::now();
            let mut kept = lock(&self.home);
            kept.retain(Kept::is_fresh);
            kept.push(one);
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if self.kept.is_some() {
            lock(&self.home).clear();
        }
    }
}

impl Deref for Taken {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.kept.as_ref().expect(HERE).conn
    }
}

impl DerefMut for Taken {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.kept.as_mut().expect(HERE).conn
    }
}

const HERE: &str = "it is here until it is kept, which ends the turn";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_old_or_was_long_unused_is_not_used_again() {
        let since = Instant::now();
        let at = |minutes: u64| since + Duration::from_secs(minutes * 60);
        let (new, used) = (Age { since, used: since }, Age { since, used: at(29) });
        assert!(new.is_new() && !used.is_new());
        assert!(new.is_fresh(at(1)) && !new.is_fresh(at(2)));
        assert!(used.is_fresh(at(29)) && !used.is_fresh(at(30)));
    }
}
