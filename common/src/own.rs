//! A connection to Postgres that one kind of work has for itself.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::PgConnection;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::store::{Error, Pool, connect};

/// A connection that is older is given up: what a server's process gathers in the course of time goes with it.
const LIFE: Duration = Duration::from_secs(30 * 60);
/// Nor is one used again after so long: what lies between may have forgotten it.
const IDLE: Duration = Duration::from_secs(2 * 60);

/// One connection beside those of a pool, for what makes one statement after another. The server's process behind it
/// has little else in its memory, and between two statements nobody asks whether it lives, as a pool does each time
/// that a connection comes back.
#[derive(Debug, Clone)]
pub struct Own {
    /// Connects, and tries again for a while where the server is not there yet.
    pool: Pool,
    kept: Arc<Mutex<Option<Kept>>>,
}

#[derive(Debug)]
struct Kept {
    conn: PgConnection,
    since: Instant,
    used: Instant,
}

/// The connection, for one turn. Dropped without [`Taken::keep`], it is given up: who knows what is under way on it.
#[derive(Debug)]
pub struct Taken {
    place: OwnedMutexGuard<Option<Kept>>,
    kept: Kept,
}

impl Own {
    /// Connects, with the pool's settings, when it is first asked.
    pub fn beside(pool: &Pool) -> Self {
        let pool = connect((*pool.connect_options()).clone(), 1);
        Self { pool, kept: Arc::default() }
    }

    /// The connection, once nobody else uses it.
    pub async fn take(&self) -> Result<Taken, Error> {
        let mut place = self.kept.clone().lock_owned().await;
        let kept = match place.take().filter(Kept::is_fresh) {
            Some(kept) => kept,
            None => {
                let conn = self.pool.acquire().await?.detach();
                Kept { conn, since: Instant::now(), used: Instant::now() }
            }
        };
        Ok(Taken { place, kept })
    }
}

impl Kept {
    fn is_fresh(&self) -> bool {
        self.since.elapsed() < LIFE && self.used.elapsed() < IDLE
    }
}

impl Taken {
    /// All went well: the next turn is made over the same connection.
    pub fn keep(mut self) {
        self.kept.used = Instant::now();
        *self.place = Some(self.kept);
    }
}

impl Deref for Taken {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.kept.conn
    }
}

impl DerefMut for Taken {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.kept.conn
    }
}
