//! Probes: messages that prove what has come through a lane.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::clock::Instant;
use crate::job::{Job, Reason, Task};
use crate::outbox::{self, Row};

/// What the probes that arrived have proved of a lane.
#[derive(Debug, Clone)]
pub struct Proof {
    /// The lane.
    pub lane: String,
    /// What was queued until then has come through, or is lost.
    pub until: Instant,
}

/// Sends a probe into each of the lanes, but for those where one has not left the outbox yet. The rows are to be
/// published after the commit.
///
/// A probe proves what was queued 15 s before it was sent. While the lane has rows in the outbox it proves only what
/// was queued before the oldest of them: theirs are not in the broker yet, and so come after the probe.
pub async fn send(conn: &mut PgConnection, lanes: &[String]) -> Result<Vec<Row>, sqlx::Error> {
    let mut rows = Vec::with_capacity(lanes.len());
    for lane in lanes {
        let id = Uuid::now_v7();
        let sent = sqlx::query!(
            "insert into probes (id, lane, proves_until)
             select $1, $2, least(clock_timestamp() - interval '15 s', min(created_at) - interval '5 s')
             from outbox where lane = $2
             having count(*) filter (where job->>'type' = 'probe') = 0",
            id,
            lane
        )
        .execute(&mut *conn)
        .await?;
        if sent.rows_affected() > 0 {
            let job = Job {
                id: Uuid::now_v7(),
                task: Task::Probe { probe: id },
                reason: Reason::Probe,
                pipeline: None,
                version: None,
                traceparent: None,
            };
            rows.push(Row::new(lane.clone(), job));
        }
    }
    outbox::insert(conn, &rows).await?;
    Ok(rows)
}

/// What has been proved so far, by lane.
pub async fn proofs(conn: &mut PgConnection) -> Result<Vec<Proof>, sqlx::Error> {
    sqlx::query_as!(
        Proof,
        r#"select lane, max(proves_until) as "until!"
           from probes where arrived_at is not null group by lane"#
    )
    .fetch_all(conn)
    .await
}

/// Forgets probes that have served: the newest of a lane proves all that the older ones did. One that has not arrived
/// after a day is no longer waited for.
pub async fn prune(conn: &mut PgConnection) -> Result<u64, sqlx::Error> {
    let pruned = sqlx::query!(
        "delete from probes
         where (arrived_at is not null and sent_at < clock_timestamp() - interval '1 hour')
            or sent_at < clock_timestamp() - interval '1 day'"
    )
    .execute(conn)
    .await?;
    Ok(pruned.rows_affected())
}
