//! Remote tools: what is registered, and the replies of the programs that execute them.

use std::collections::HashSet;

use serde_json::Value;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::requeue;
use super::waits;
use crate::clock::Instant;
use crate::outbox::Row;
use crate::remote::Reply;
use crate::wait::Answer;

/// A tool as it is registered.
#[derive(Debug, Clone)]
pub struct Registered {
    /// What actions say to ask for it.
    pub name: String,
    /// For people and for models.
    pub description: String,
    /// JSON Schema of its input.
    pub schema: Value,
    /// The longest that a call may take, in milliseconds.
    pub timeout_ms: Option<i64>,
    /// Who registered it last.
    pub registered_by: String,
    /// When it was first registered.
    pub created_at: Instant,
    /// When it was last registered.
    pub updated_at: Instant,
}

/// Registers a tool, or puts it in the place of the one of its name; true when there was none.
pub async fn register(
    conn: &mut PgConnection,
    tool: (&str, &str, &Value, Option<i64>),
    by: &str,
) -> Result<bool, sqlx::Error> {
    let (name, description, schema, timeout_ms) = tool;
    sqlx::query_scalar!(
        r#"insert into remote_tools as t (name, description, schema, timeout_ms, registered_by)
           values ($1, $2, $3, $4, $5)
           on conflict (name) do update set description = excluded.description, schema = excluded.schema,
               timeout_ms = excluded.timeout_ms, registered_by = excluded.registered_by,
               updated_at = clock_timestamp()
           returning t.xmax = 0 as "is_new!""#,
        name,
        description,
        schema,
        timeout_ms,
        by
    )
    .fetch_one(conn)
    .await
}

/// Forgets a tool; false when there is none.
pub async fn delete(conn: &mut PgConnection, name: &str) -> Result<bool, sqlx::Error> {
    let gone = sqlx::query!("delete from remote_tools where name = $1", name).execute(conn).await?;
    Ok(gone.rows_affected() == 1)
}

/// All tools, by name.
pub async fn list(pool: &PgPool) -> Result<Vec<Registered>, sqlx::Error> {
    sqlx::query_as!(
        Registered,
        "select name, description, schema, timeout_ms, registered_by, created_at, updated_at
         from remote_tools order by name"
    )
    .fetch_all(pool)
    .await
}

/// The names of all tools, and when each was last registered: enough to see what has changed.
pub async fn versions(pool: &PgPool) -> Result<Vec<(String, Instant)>, sqlx::Error> {
    let rows = sqlx::query!("select name, updated_at from remote_tools").fetch_all(pool).await?;
    Ok(rows.into_iter().map(|row| (row.name, row.updated_at)).collect())
}

/// The tool of this name.
pub async fn find(conn: &mut PgConnection, name: &str) -> Result<Option<Registered>, sqlx::Error> {
    sqlx::query_as!(
        Registered,
        "select name, description, schema, timeout_ms, registered_by, created_at, updated_at
         from remote_tools where name = $1",
        name
    )
    .fetch_optional(conn)
    .await
}

/// What came of a batch of replies.
#[derive(Debug, Default)]
pub struct Answered {
    /// One a reply: whether it counts. One to a call that is answered, late or unknown does not.
    pub counts: Vec<bool>,
    /// Rows to publish after the commit.
    pub rows: Vec<Row>,
}

/// Ends the calls that still wait for these replies, under their fences. The caller's transaction must have locked
/// nothing yet.
pub async fn answer(conn: &mut PgConnection, replies: &[Reply]) -> Result<Answered, sqlx::Error> {
    let ids: Vec<Uuid> = replies.iter().map(|reply| reply.call.run).collect();
    let mut runs = requeue::lock_runs(conn, ids.clone()).await?;
    let open = sqlx::query!(
        "select w.run_id, w.node, w.attempt
         from unnest($1::uuid[], $2::text[], $3::int[]) as r (run_id, node, attempt)
         join waits as w on w.run_id = r.run_id and w.node = r.node and w.attempt = r.attempt
         join node_runs as n on n.run_id = w.run_id and n.node = w.node and n.state = 'waiting'
         where w.kind = 'remote' and w.answer is null",
        &ids,
        &replies.iter().map(|reply| reply.call.node.as_str()).collect::<Vec<_>>() as &[&str],
        &replies.iter().map(|reply| reply.call.attempt).collect::<Vec<_>>(),
    )
    .fetch_all(&mut *conn)
    .await?;
    let mut open: HashSet<(Uuid, String, i32)> =
        open.into_iter().map(|row| (row.run_id, row.node, row.attempt)).collect();
    let mut answered = Answered::default();
    let mut answers = Vec::new();
    for reply in replies {
        let call = &reply.call;
        // Of several to one call, the first counts.
        let counts = open.remove(&(call.run, call.node.clone(), call.attempt))
            && runs.get(&call.run).is_some_and(|run| !run.state.is_terminal());
        answered.counts.push(counts);
        if counts {
            let value = serde_json::to_value(&reply.said)
                .map_err(|error| sqlx::Error::Encode(error.into()))?;
            answers.push((call.run, call.node.clone(), Answer::Answered { value }));
        }
    }
    answered.rows = waits::answer_all(conn, &mut runs, &answers).await?;
    Ok(answered)
}
