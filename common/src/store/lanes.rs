//! The lanes as operators see them: what waits and runs in each, and who serves it.

use sqlx::PgPool;

/// How many open runs are looked at, so that a large backlog does not make this a burden.
const MOST_RUNS: i64 = 10_000;

/// What the database knows of a lane.
#[derive(Debug)]
pub struct Lane {
    /// Its name.
    pub lane: String,
    /// Runs that wait for their start.
    pub queued_runs: i64,
    /// Node runs that wait for a worker.
    pub queued: i64,
    /// Node runs that workers execute.
    pub running: i64,
    /// Living workers that serve it.
    pub workers: i64,
    /// The slots that they have for it.
    pub slots: i64,
}

/// All lanes that a worker serves or something waits in, `default` always, by name; and whether there were more open
/// runs than were counted.
pub async fn list(pool: &PgPool) -> Result<(Vec<Lane>, bool), sqlx::Error> {
    let mut tx = pool.begin().await?;
    let open = sqlx::query_scalar!(
        r#"select count(*) as "count!" from (
               select from open_runs as o
               cross join lateral (select finished_at from runs where id = o.run_id offset 0) as r
               where r.finished_at is null order by o.run_id limit $1
           ) as open"#,
        MOST_RUNS + 1
    )
    .fetch_one(&mut *tx)
    .await?;
    let lanes = sqlx::query_as!(
        Lane,
        r#"with open as materialized (
               select r.* from open_runs as o
               cross join lateral (
                   select id, state, lane, queued_at, finished_at from runs where id = o.run_id offset 0
               ) as r
               where r.finished_at is null order by o.run_id limit $1
           ), work as (
               select o.lane, 1 as queued_runs, 0 as queued, 0 as running from open as o
               where o.state = 'queued' and o.queued_at is not null
               union all
               select n.lane, 0, case n.state when 'queued' then 1 else 0 end, case n.state when 'running' then 1 else 0 end
               from open as o join node_runs as n on n.run_id = o.id
               where o.state <> 'queued' and n.state in ('queued', 'running')
           ), alive as (
               select w.lanes, w.lane_slots, w.slots from workers as w
               where w.stopped_at is null and exists (
                   select from pg_locks as l
                   where l.locktype = 'advisory' and l.granted and l.objsubid = 1
                     and l.database = (select oid from pg_database where datname = current_database())
                     and (l.classid::bigint << 32) | l.objid::bigint = w.lock_key)
           ), served as (
               select u.lane, count(*) as workers, sum(coalesce(u.slots, a.slots)) as slots
               from alive as a, unnest(a.lanes, a.lane_slots) as u (lane, slots) where u.lane is not null group by u.lane
           ), names as (
               select 'default' as lane union select lane from work union select lane from served
           )
           select n.lane as "lane!",
               coalesce((select sum(queued_runs) from work as w where w.lane = n.lane), 0) as "queued_runs!",
               coalesce((select sum(queued) from work as w where w.lane = n.lane), 0) as "queued!",
               coalesce((select sum(running) from work as w where w.lane = n.lane), 0) as "running!",
               coalesce(s.workers, 0) as "workers!", coalesce(s.slots, 0) as "slots!"
           from names as n left join served as s on s.lane = n.lane order by n.lane"#,
        MOST_RUNS
    )
    .fetch_all(&mut *tx)
    .await?;
    Ok((lanes, open > MOST_RUNS))
}
