//! What must not be left over when a fleet has come to rest.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, Row};

use crate::database::Database;
use crate::wait::{eventually, seen};

/// Each query returns what is wrong, one line a thing.
const WRONG: &[(&str, &str)] = &[
    (
        "runs that have not ended",
        "select id::text || ' ' || state::text from runs where finished_at is null",
    ),
    (
        "node runs that have not ended",
        "select run_id::text || '/' || node || ' ' || state::text from node_runs where finished_at is null",
    ),
    ("rows in the outbox", "select id::text || ' ' || job::text from outbox"),
    ("timers", "select run_id::text || '/' || node || ' ' || kind::text from timers"),
    (
        "waits that are open",
        "select run_id::text || '/' || node || ' ' || kind::text from waits where answer is null",
    ),
    (
        "children that have ended, and are not counted",
        "select parent_id::text || '/' || node || ' ' || run_id from children where run_id is not null and state is null",
    ),
    (
        "runs that another has started, and does not know",
        "select trigger ->> 'parent' from runs where trigger ->> 'kind' = 'parent'
         and not exists (select from children c where c.run_id = runs.id)",
    ),
    (
        "node runs that were recorded twice: completed by an attempt that had ended otherwise",
        "select a.run_id::text || '/' || a.node || ' ' || a.attempt from attempts a
         join node_runs n using (run_id, node, attempt) where n.state = 'completed'",
    ),
    (
        "attempts beyond their node run's",
        "select a.run_id::text || '/' || a.node || ' ' || a.attempt from attempts a
         left join node_runs n using (run_id, node) where n.node is null or a.attempt > n.attempt",
    ),
    (
        "runs that completed beside a node run that was cut short",
        "select r.id::text || '/' || n.node from runs r join node_runs n on n.run_id = r.id
         where r.state = 'completed' and n.state = 'cancelled'",
    ),
    (
        "dead letters of node runs that did not fail",
        "select d.run_id::text || '/' || d.node from dead_letters d
         left join node_runs n using (run_id, node) where n.state is distinct from 'failed'",
    ),
    (
        "failures that failed their run, and have no dead letter",
        "select r.id::text || '/' || n.node from runs r join node_runs n on n.run_id = r.id and n.node = r.error ->> 'node'
         where r.state = 'failed' and n.state = 'failed'
         and not exists (select from dead_letters d where d.run_id = r.id and d.node = n.node)",
    ),
    (
        "runs that began to stop, and completed",
        "select id::text from runs where state = 'completed' and stop_reason is not null",
    ),
    (
        "fires with two runs",
        "select trigger ->> 'schedule_id' || ' ' || (trigger ->> 'fire_at') from runs where trigger ->> 'kind' = 'schedule'
         group by 1 having count(*) > 1",
    ),
    (
        "runs of schedules without a fire",
        "select r.id::text from runs r where r.trigger ->> 'kind' = 'schedule'
         and not exists (select from fires f where f.run_id = r.id)",
    ),
    (
        "fires without their run",
        "select schedule_id::text || ' ' || fire_at from fires f where run_id is not null
         and not exists (select from runs r where r.id = f.run_id)",
    ),
    (
        "runs that started, and have no node runs",
        "select id::text from runs r where started_at is not null
         and not exists (select from node_runs n where n.run_id = r.id)",
    ),
    (
        "lines that were printed in no run",
        "select distinct run_id::text from node_logs l where not exists (select from runs r where r.id = l.run_id)",
    ),
    (
        "node runs that ended before they began",
        "select run_id::text || '/' || node from node_runs where finished_at < started_at",
    ),
];

/// Waits until every run has ended and the outbox is empty.
pub async fn drained(database: &Database, timeout: Duration) {
    eventually(timeout, "every run to end, and the outbox to empty", async || {
        let row = sqlx::query(
            "select (select count(*) from runs where finished_at is null),
                    (select count(*) from outbox), (select count(*) from timers)",
        )
        .fetch_one(database.pool())
        .await
        .map_err(|error| error.to_string())?;
        let (runs, outbox, timers): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
        let left = format!("{runs} runs, {outbox} outbox rows, {timers} timers");
        seen(runs + outbox + timers == 0, left)
    })
    .await;
}

/// What goes on in a fleet, for the reader of a test that failed: each query, and its first rows as JSON.
const UNDER_WAY: &[&str] = &[
    "select id, state, stop_reason, open, queued_at, started_at from runs where finished_at is null order by id",
    "select run_id, node, state, attempt, losses, owner, job_id, queued_at, started_at from node_runs
     where finished_at is null and state <> 'pending' order by run_id, node",
    "select * from outbox order by id",
    "select * from timers order by due_at",
    "select * from waits where answer is null",
    "select * from children where run_id is not null and state is null",
    "select id, name, lock_key, started_at, locked_at, stopped_at from workers order by started_at",
    "select * from probes order by sent_at desc",
    "select * from leader",
    "select * from schedule_clocks order by due_at",
    "select * from open_fires",
    "select * from events",
];

/// Shows what goes on, as text.
pub async fn under_way(url: &str) -> sqlx::Result<String> {
    let mut connection = sqlx::PgConnection::connect(url).await?;
    let mut shown = String::new();
    for query in UNDER_WAY {
        let rows = format!("select to_jsonb(x)::text from ({query}) x limit 20");
        let rows: Vec<String> =
            sqlx::query_scalar(AssertSqlSafe(rows)).fetch_all(&mut connection).await?;
        let table = query
            .split("from ")
            .nth(1)
            .and_then(|rest| rest.split_whitespace().next())
            .unwrap_or_default();
        shown += &format!("{table}:\n  {}\n", rows.join("\n  "));
    }
    Ok(shown)
}

/// All that is wrong in a database whose fleet is at rest.
pub async fn wrongs(database: &Database) -> Vec<String> {
    let mut wrongs = Vec::new();
    for (what, query) in WRONG {
        let found: Vec<String> = sqlx::query_scalar(*query)
            .fetch_all(database.pool())
            .await
            .unwrap_or_else(|error| panic!("cannot look for {what}: {error}"));
        if !found.is_empty() {
            let shown: Vec<_> = found.iter().take(10).map(String::as_str).collect();
            wrongs.push(format!("{} {what}:\n  {}", found.len(), shown.join("\n  ")));
        }
    }
    wrongs
}
