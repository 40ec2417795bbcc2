//! Who is in the fleet.

use sqlx::PgConnection;
use uuid::Uuid;

/// The key of a worker's advisory lock: the random half of its id.
pub fn lock_key(worker: Uuid) -> i64 {
    worker.as_u64_pair().1 as i64
}

/// A worker, as it presents itself.
#[derive(Debug, Clone)]
pub struct Presence {
    /// Its id, new at each start.
    pub id: Uuid,
    /// Its name for people.
    pub name: String,
    /// The lanes that it serves, each with the node runs that it executes at a time of it.
    pub lanes: Vec<(String, i32)>,
    /// The tools that are enabled on it.
    pub tools: Vec<String>,
}

/// Takes the worker's lock for this session, and writes since when it is held. False when another session holds it.
pub async fn appear(conn: &mut PgConnection, who: &Presence) -> Result<bool, sqlx::Error> {
    let taken =
        sqlx::query_scalar!(r#"select pg_try_advisory_lock($1) as "taken!""#, lock_key(who.id))
            .fetch_one(&mut *conn)
            .await?;
    if taken {
        let (lanes, slots): (Vec<String>, Vec<i32>) = who.lanes.iter().cloned().unzip();
        sqlx::query!(
            "insert into workers (id, lock_key, name, lanes, lane_slots, slots, tools) values ($1, $2, $3, $4, $5, $6, $7)
             on conflict (id) do update set locked_at = clock_timestamp(), stopped_at = null",
            who.id,
            lock_key(who.id),
            who.name,
            &lanes,
            &slots,
            slots.iter().sum::<i32>(),
            &who.tools
        )
        .execute(conn)
        .await?;
    }
    Ok(taken)
}

/// Says good-bye: the worker holds nothing any more.
pub async fn leave(conn: &mut PgConnection, worker: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query!("update workers set stopped_at = clock_timestamp() where id = $1", worker)
        .execute(conn)
        .await?;
    Ok(())
}

/// Those of `runs` that are not simply going on: their node runs are to be stopped.
pub async fn stopping(conn: &mut PgConnection, runs: &[Uuid]) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar!("select id from runs where id = any($1) and state <> 'running'", runs)
        .fetch_all(conn)
        .await
}

/// Reports that a probe has come through its lane.
pub async fn arrived(conn: &mut PgConnection, probe: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update probes set arrived_at = clock_timestamp() where id = $1 and arrived_at is null",
        probe
    )
    .execute(conn)
    .await?;
    Ok(())
}
