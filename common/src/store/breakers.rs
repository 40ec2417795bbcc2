//! Breakers: one per node of a pipeline, shared by the fleet.
//!
//! Closed: failures are counted. `failure_threshold` consecutive retryable ones open it. While it is open attempts
//! wait, unspent. After `recovery` one probe is let through: its success closes the breaker and makes those due that
//! wait; its failure opens it anew.

use std::time::Duration;

use sqlx::PgConnection;
use uuid::Uuid;

use crate::pipeline::Breaker;

/// Whether an attempt may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// The breaker is closed.
    Closed,
    /// It is open, and this attempt is its probe.
    Probe,
    /// It is open; ask again after this long.
    Open(Duration),
}

/// What `timers.breaker` holds.
pub fn key(pipeline: Uuid, node: &str) -> String {
    format!("{pipeline}/{node}")
}

/// Asks whether an attempt may be made. A probe whose attempt cannot be under way any more, `patience` after it was
/// let through, is given up for lost.
pub async fn admit(
    conn: &mut PgConnection,
    pipeline: Uuid,
    node: &str,
    breaker: &Breaker,
    patience: Duration,
) -> Result<Admission, sqlx::Error> {
    let recovery = millis(breaker.recovery);
    let probe = sqlx::query_scalar!(
        r#"update breakers set probe_at = clock_timestamp()
           where pipeline_id = $1 and node = $2 and opened_at + $3 * interval '1 millisecond' <= clock_timestamp()
               and (probe_at is null or probe_at + $4 * interval '1 millisecond' <= clock_timestamp())
           returning true as "probe!""#,
        pipeline,
        node,
        recovery,
        millis(patience)
    )
    .fetch_optional(&mut *conn)
    .await?;
    if probe.is_some() {
        return Ok(Admission::Probe);
    }
    let left = sqlx::query_scalar!(
        r#"select (extract(epoch from opened_at - clock_timestamp()) * 1000)::float8 + $3 as "left!"
           from breakers where pipeline_id = $1 and node = $2 and opened_at is not null"#,
        pipeline,
        node,
        recovery
    )
    .fetch_optional(conn)
    .await?;
    Ok(match left {
        None => Admission::Closed,
        // A probe is under way: its end makes this due, or the next look does.
        Some(left) if left <= 0.0 => Admission::Open(breaker.recovery),
        Some(left) => Admission::Open(Duration::from_secs_f64(left / 1_000.0)),
    })
}

/// An attempt succeeded: the breaker closes, and what waits for it is due.
pub async fn succeeded(
    conn: &mut PgConnection,
    pipeline: Uuid,
    node: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        r#"with closed as (
               delete from breakers where pipeline_id = $1 and node = $2 returning opened_at
           )
           update timers set due_at = clock_timestamp()
           where breaker = $3 and exists (select from closed where opened_at is not null)"#,
        pipeline,
        node,
        key(pipeline, node)
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A probe ended without having tried anything: the next attempt may be one.
pub async fn release(
    conn: &mut PgConnection,
    pipeline: Uuid,
    node: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update breakers set probe_at = null where pipeline_id = $1 and node = $2",
        pipeline,
        node
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// An attempt failed in a way that another may mend: it is counted, and may open the breaker.
pub async fn failed(
    conn: &mut PgConnection,
    pipeline: Uuid,
    node: &str,
    breaker: &Breaker,
    was_probe: bool,
) -> Result<(), sqlx::Error> {
    let threshold = i32::try_from(breaker.failure_threshold).unwrap_or(i32::MAX);
    sqlx::query!(
        r#"insert into breakers as b (pipeline_id, node, failures, opened_at)
           values ($1, $2, 1, case when $3 <= 1 then clock_timestamp() end)
           on conflict (pipeline_id, node) do update set failures = b.failures + 1,
               opened_at = case when $4 or (b.opened_at is null and b.failures + 1 >= $3)
                   then clock_timestamp() else b.opened_at end,
               probe_at = case when $4 then null else b.probe_at end"#,
        pipeline,
        node,
        threshold,
        was_probe
    )
    .execute(conn)
    .await?;
    Ok(())
}

fn millis(duration: Duration) -> f64 {
    duration.as_millis() as f64
}
