//! Outbox rows that nobody has published in time: they are the leader's.

use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::job::Job;
use crate::outbox::Row;

/// One look at the outbox.
#[derive(Debug)]
pub struct Leftover {
    /// Rows that are old enough.
    pub rows: Vec<Row>,
    /// Rows that are old enough, and that no message can be made of: what, and why.
    pub unreadable: Vec<(Uuid, String)>,
    /// Where the next look begins; none at the outbox's end.
    pub next: Option<Uuid>,
}

/// Looks at `limit` rows past `after`, and keeps those older than `age_ms`: a process publishes its own within 5 s of
/// their commit, or not at all.
pub async fn look(
    conn: &mut PgConnection,
    after: Uuid,
    limit: i64,
    age_ms: f64,
) -> Result<Leftover, sqlx::Error> {
    let seen = sqlx::query!(
        r#"select id, lane, case when is_old then job end as job
           from (
               select id, lane, job,
                      created_at < clock_timestamp() - $3 * interval '1 ms' as is_old
               from outbox where id > $1 order by id limit $2
           ) as o"#,
        after,
        limit,
        age_ms
    )
    .fetch_all(conn)
    .await?;
    let next = if seen.len() < limit as usize { None } else { seen.last().map(|row| row.id) };
    let mut leftover = Leftover { rows: Vec::new(), unreadable: Vec::new(), next };
    for row in seen {
        let Some(job) = row.job else { continue };
        match read(row.id, &job) {
            Ok(job) => leftover.rows.push(Row::new(row.lane, job)),
            Err(error) => leftover.unreadable.push((row.id, format!("{error}: {job}"))),
        }
    }
    Ok(leftover)
}

fn read(id: Uuid, job: &Value) -> Result<Job, String> {
    let job: Job = serde::Deserialize::deserialize(job).map_err(|error| format!("{error}"))?;
    if job.id == id { Ok(job) } else { Err(format!("it names another row, {}", job.id)) }
}

/// Deletes rows that the broker has confirmed. Should the server forget it in a crash, they are published twice.
pub async fn delete(conn: &mut PgConnection, ids: &[Uuid]) -> Result<(), sqlx::Error> {
    sqlx::query!(r#"select set_config('synchronous_commit', 'off', true) as "off!""#)
        .fetch_one(&mut *conn)
        .await?;
    sqlx::query!("delete from outbox where id = any($1)", ids).execute(conn).await?;
    Ok(())
}
