//! Pruning: what has served long enough is forgotten, a slice at a time.

use sqlx::PgConnection;
use uuid::Uuid;

/// What a slice has done.
#[derive(Debug, Clone, Copy)]
pub struct Pruned {
    /// Runs that are gone.
    pub runs: u64,
    /// The next slice begins after this one; none when nothing is left to prune for now.
    pub next: Option<Uuid>,
}

/// Runs that one slice looks at, at the most, and answers.
const SLICE: i64 = 500;

/// Deletes what ended more than `retention_s` seconds ago among the next runs after `after`, and all that belongs to it:
/// `limit` node runs, attempts or lines that they printed, at the most. A run goes last, so that what a slice leaves is
/// found again. Runs with dead letters that are open, or were redriven less than `retention_s` seconds ago, are passed
/// over; so is what a run has started that goes on: its answer is read from there.
///
/// It goes by id, which is in the order of time, up to what was accepted less than `retention_s` seconds ago: a run ends
/// after it was accepted. What was accepted before, and goes on, is passed over. Ids are made by clocks of hosts: where
/// one is ahead, what it accepted goes that much later.
pub async fn runs(
    conn: &mut PgConnection,
    retention_s: f64,
    limit: i64,
    after: Uuid,
) -> Result<Pruned, sqlx::Error> {
    let limit_of_runs = limit.min(SLICE);
    let seen = sqlx::query!(
        r#"with since as materialized (
               select at, rpad(lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0'), 32, '0')::uuid as id
               from (select clock_timestamp() - $1 * interval '1 s' as at) as t
           )
           select r.id, r.created_at >= (select at from since) and r.id >= (select id from since) as "is_young!",
                  coalesce(r.finished_at < (select at from since)
                  and case when r.state in ('failed', 'timed_out') then (
                      select true from dead_letters as d
                      where d.run_id = r.id and d.dismissed_at is null
                          and (d.redriven_at is null or d.redriven_at > (select at from since)) limit 1
                  ) end is null
                  and (
                      -- What a run has started stays until that one has ended: its answer is read from there.
                      select true from children as c join runs as p on p.id = c.parent_id
                      where c.run_id = r.id and p.finished_at is null limit 1
                  ) is null, false) as "goes!"
           from runs as r
           where r.id > $3 order by r.id limit $2"#,
        retention_s,
        limit_of_runs,
        after
    )
    .fetch_all(&mut *conn)
    .await?;
    let is_whole = seen.len() as i64 == limit_of_runs;
    let next = seen.last().filter(|run| is_whole && !run.is_young).map(|run| run.id);
    let old: Vec<Uuid> = seen.iter().filter(|run| run.goes).map(|run| run.id).collect();
    if old.is_empty() {
        return Ok(Pruned { runs: 0, next });
    }
    let full = limit as u64;
    if node_runs(conn, &old, limit).await? == full
        || attempts(conn, &old, limit).await? == full
        || node_logs(conn, &old, limit).await? == full
        || children(conn, &old, limit).await? == full
    {
        return Ok(Pruned { runs: 0, next: Some(after) });
    }
    sqlx::query!("delete from waits where run_id = any($1)", &old).execute(&mut *conn).await?;
    sqlx::query!("delete from timers where run_id = any($1)", &old).execute(&mut *conn).await?;
    sqlx::query!("delete from dead_letters where run_id = any($1)", &old)
        .execute(&mut *conn)
        .await?;
    let gone = sqlx::query!("delete from runs where id = any($1)", &old).execute(conn).await?;
    Ok(Pruned { runs: gone.rows_affected(), next })
}

async fn node_runs(conn: &mut PgConnection, runs: &[Uuid], limit: i64) -> Result<u64, sqlx::Error> {
    let gone = sqlx::query!(
        "delete from node_runs where ctid = any(array(
             select ctid from node_runs where run_id = any($1) limit $2))",
        runs,
        limit
    )
    .execute(conn)
    .await?;
    Ok(gone.rows_affected())
}

async fn children(conn: &mut PgConnection, runs: &[Uuid], limit: i64) -> Result<u64, sqlx::Error> {
    let gone = sqlx::query!(
        "delete from children where ctid = any(array(
             select ctid from children where parent_id = any($1) limit $2))",
        runs,
        limit
    )
    .execute(conn)
    .await?;
    Ok(gone.rows_affected())
}

async fn attempts(conn: &mut PgConnection, runs: &[Uuid], limit: i64) -> Result<u64, sqlx::Error> {
    let gone = sqlx::query!(
        "delete from attempts where ctid = any(array(
             select ctid from attempts where run_id = any($1) limit $2))",
        runs,
        limit
    )
    .execute(conn)
    .await?;
    Ok(gone.rows_affected())
}

async fn node_logs(conn: &mut PgConnection, runs: &[Uuid], limit: i64) -> Result<u64, sqlx::Error> {
    let gone = sqlx::query!(
        "delete from node_logs where ctid = any(array(
             select ctid from node_logs where run_id = any($1) limit $2))",
        runs,
        limit
    )
    .execute(conn)
    .await?;
    Ok(gone.rows_affected())
}

/// Deletes answers that are older than the 24 h for which they are kept; whether that was all.
pub async fn idempotency_keys(conn: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let gone = sqlx::query!(
        "delete from idempotency_keys where ctid = any(array(
             select ctid from idempotency_keys
             where created_at < (select clock_timestamp() - interval '24 hours') order by created_at limit $1))",
        SLICE
    )
    .execute(conn)
    .await?;
    Ok(gone.rows_affected() < SLICE as u64)
}

/// Deletes a slice of the sign-ins and revocations that have expired; whether that was all. An expired token is
/// refused anyway; the day's grace is for clocks that differ.
pub async fn tokens(conn: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let revoked = sqlx::query!(
        "delete from revoked_tokens where ctid = any(array(
             select ctid from revoked_tokens
             where expires_at < (select clock_timestamp() - interval '1 day') order by expires_at limit $1))",
        SLICE
    )
    .execute(&mut *conn)
    .await?;
    let refresh = sqlx::query!(
        "delete from refresh_tokens where ctid = any(array(
             select ctid from refresh_tokens
             where expires_at < (select clock_timestamp() - interval '1 day') order by expires_at limit $1))",
        SLICE
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "delete from token_families f where f.created_at < clock_timestamp() - interval '1 day'
           and not exists (select from refresh_tokens t where t.family_id = f.id)"
    )
    .execute(conn)
    .await?;
    let most = revoked.rows_affected().max(refresh.rows_affected());
    Ok(most < SLICE as u64)
}

/// Deletes a slice of the security events that are older than `retention_s` seconds; whether that was all.
pub async fn audit_events(conn: &mut PgConnection, retention_s: f64) -> Result<bool, sqlx::Error> {
    let gone = sqlx::query!(
        "delete from audit_events where ctid = any(array(
             select ctid from audit_events
             where at < (select clock_timestamp() - $1 * interval '1 s') order by at limit $2))",
        retention_s,
        SLICE
    )
    .execute(conn)
    .await?;
    Ok(gone.rows_affected() < SLICE as u64)
}

/// Notes that workers are dead that went without a good-bye. One that takes its lock again is back.
pub async fn mark_dead(conn: &mut PgConnection, workers: &[Uuid]) -> Result<u64, sqlx::Error> {
    let marked = sqlx::query!(
        "update workers set stopped_at = clock_timestamp()
         where id = any($1) and stopped_at is null and pg_try_advisory_xact_lock_shared(lock_key)",
        workers
    )
    .execute(conn)
    .await?;
    Ok(marked.rows_affected())
}

/// Forgets workers that stopped more than a day ago, and still have.
pub async fn workers(conn: &mut PgConnection) -> Result<u64, sqlx::Error> {
    let gone = sqlx::query!(
        "delete from workers
         where stopped_at < clock_timestamp() - interval '1 day' and pg_try_advisory_xact_lock_shared(lock_key)"
    )
    .execute(conn)
    .await?;
    Ok(gone.rows_affected())
}

/// Forgets a slice of the fires, and the backfills, that are older than `retention_s` seconds and have ended; whether
/// that was all.
pub async fn fires(
    conn: &mut PgConnection,
    retention_s: f64,
    limit: i64,
) -> Result<bool, sqlx::Error> {
    let gone = sqlx::query!(
        "delete from fires where ctid = any(array(
             select f.ctid from fires f
             where f.fired_at < (select clock_timestamp() - $1 * interval '1 s')
                 and not exists (select from open_fires o where o.schedule_id = f.schedule_id and o.fire_at = f.fire_at)
             order by f.fired_at limit $2))",
        retention_s,
        limit
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "delete from backfills where finished_at < clock_timestamp() - $1 * interval '1 s'",
        retention_s
    )
    .execute(conn)
    .await?;
    Ok(gone.rows_affected() < limit.unsigned_abs())
}
