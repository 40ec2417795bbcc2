//! The runs that have not ended, where the audit walks them. Acceptance writes a row; the end of a run leaves it to the
//! audit, which comes by within seconds.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::clock::Instant;
use crate::run::RunState;

/// A run that has not ended, as the audit sees it.
#[derive(Debug, Clone)]
pub struct OpenRun {
    /// Its id.
    pub id: Uuid,
    /// Where it stands.
    pub state: RunState,
    /// Its count of changes.
    pub seq: i64,
    /// The lane of its start job.
    pub lane: String,
    /// When its start job was last queued; none while its start is delayed.
    pub queued_at: Option<Instant>,
    /// Whether that was over 15 s ago.
    pub is_old: bool,
    /// Whether its delayed start has a timer.
    pub has_timer: bool,
    /// Whether a node run of it can go on: one that is queued, running, retrying or waiting (while it is cancelling:
    /// one that is running).
    pub is_live: bool,
}

/// A slice of the walk.
#[derive(Debug)]
pub struct Look {
    /// These have not ended.
    pub runs: Vec<OpenRun>,
    /// These have, or are gone: see [`forget`].
    pub ended: Vec<Uuid>,
    /// The next slice begins after this one; none at the end of the walk.
    pub next: Option<Uuid>,
}

/// Looks at the next `limit` runs after `after`.
///
/// `offset 0` makes the planner look each run up by its key: it might walk all of `runs` beside them. And
/// `(select true … limit 1)` stands for `exists (…)`, which it may turn into one look at the whole table.
pub async fn look(conn: &mut PgConnection, after: Uuid, limit: i64) -> Result<Look, sqlx::Error> {
    let seen = sqlx::query!(
        r#"select o.run_id as id, case when r.finished_at is null then r.state end as "state: RunState",
                  r.seq as "seq?", r.lane as "lane?", r.queued_at as "queued_at?",
                  coalesce(r.queued_at < clock_timestamp() - interval '15 s', false) as "is_old!",
                  coalesce(case when r.queued_at is null then (
                      select true from timers t
                      where t.run_id = r.id and t.node = '' and t.kind = 'start' limit 1) end, false) as "has_timer!",
                  coalesce(case r.state
                      when 'running' then (
                          select true from node_runs n
                          where n.run_id = r.id and n.state in ('queued', 'running', 'retrying', 'waiting') limit 1)
                      when 'cancelling' then (
                          select true from node_runs n where n.run_id = r.id and n.state = 'running' limit 1)
                  end, false) as "is_live!"
           from open_runs as o left join lateral (select * from runs where id = o.run_id offset 0) as r on true
           where o.run_id > $1
           order by o.run_id limit $2"#,
        after,
        limit
    )
    .fetch_all(conn)
    .await?;
    let next = if seen.len() < limit as usize { None } else { seen.last().map(|row| row.id) };
    let mut look = Look { runs: Vec::new(), ended: Vec::new(), next };
    for row in seen {
        let (Some(state), Some(seq), Some(lane)) = (row.state, row.seq, row.lane) else {
            look.ended.push(row.id);
            continue;
        };
        look.runs.push(OpenRun {
            id: row.id,
            state,
            seq,
            lane,
            queued_at: row.queued_at,
            is_old: row.is_old,
            has_timer: row.has_timer,
            is_live: row.is_live,
        });
    }
    Ok(look)
}

/// Takes out runs that were seen to have ended: what has ended does not go on. Should the server forget it in a crash,
/// they are seen again.
pub async fn forget(conn: &mut PgConnection, ended: &[Uuid]) -> Result<(), sqlx::Error> {
    sqlx::query!(r#"select set_config('synchronous_commit', 'off', true) as "off!""#)
        .fetch_one(&mut *conn)
        .await?;
    sqlx::query!("delete from open_runs where run_id = any($1)", ended).execute(conn).await?;
    Ok(())
}

/// A slice of all runs.
#[derive(Debug)]
pub struct Count {
    /// These have not ended, and the audit would not find them.
    pub missing: Vec<Uuid>,
    /// The next slice begins after this one; none after the last.
    pub next: Option<Uuid>,
}

/// Looks for what is missing among the next `limit` runs after `after`.
pub async fn count(conn: &mut PgConnection, after: Uuid, limit: i64) -> Result<Count, sqlx::Error> {
    let seen = sqlx::query!(
        r#"select r.id, coalesce(case when r.finished_at is null then (
                  select true from open_runs as o where o.run_id = r.id limit 1) else true end, false) as "is_known!"
           from runs as r where r.id > $1 order by r.id limit $2"#,
        after,
        limit
    )
    .fetch_all(conn)
    .await?;
    let next = if seen.len() < limit as usize { None } else { seen.last().map(|run| run.id) };
    let missing = seen.iter().filter(|run| !run.is_known).map(|run| run.id).collect();
    Ok(Count { missing, next })
}

/// Puts in what was missing.
pub async fn add(conn: &mut PgConnection, missing: &[Uuid]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into open_runs (run_id) select unnest($1::uuid[]) on conflict do nothing",
        missing
    )
    .execute(conn)
    .await?;
    Ok(())
}
