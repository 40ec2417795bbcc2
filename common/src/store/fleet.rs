//! The workers as operators see them.

use sqlx::PgPool;
use uuid::Uuid;

use crate::clock::Instant;

/// A worker that has not said good-bye.
#[derive(Debug)]
pub struct Worker {
    /// Its id, new at each start.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// The lanes that it serves.
    pub lanes: Vec<String>,
    /// How many node runs it executes at a time.
    pub slots: i32,
    /// The tools that are enabled on it.
    pub tools: Vec<String>,
    /// Whether its session holds its lock.
    pub alive: bool,
    /// When it started.
    pub started_at: Instant,
}

/// The workers that have not said good-bye, oldest first.
pub async fn workers(pool: &PgPool) -> Result<Vec<Worker>, sqlx::Error> {
    sqlx::query_as!(
        Worker,
        r#"select w.id, w.name, w.lanes, w.slots, w.tools, w.started_at,
               exists (
                   select from pg_locks l
                   where l.locktype = 'advisory' and l.granted and l.objsubid = 1
                     and l.database = (select oid from pg_database where datname = current_database())
                     and (l.classid::bigint << 32) | l.objid::bigint = w.lock_key
               ) as "alive!"
           from workers w where w.stopped_at is null order by w.id"#,
    )
    .fetch_all(pool)
    .await
}
