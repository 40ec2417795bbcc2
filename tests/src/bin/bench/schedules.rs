//! S1, S2 and S3: schedules that are due.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::Row;
use tests::fleet::Role;
use tests::wait::{eventually, seen};

use crate::Arguments;
use crate::load::Load;
use crate::report::{Machine, Usage, rounded};

const PATIENCE: Duration = Duration::from_secs(120);

/// A schedule that is due in an hour, made by the api; the others are its copies.
async fn template(load: &Load, every: &str) -> String {
    let body = json!({"name": "s", "kind": "interval", "interval": every, "overlap": "allow",
        "start": {"action": "echo", "input": {"at": "{{ fire_at }}"}}});
    let made = load.client().post("/v1/schedules", &body).await.expect(201);
    made["id"].as_str().expect("an id").to_owned()
}

/// `count` schedules that are due in `due`, by copying.
async fn copies(load: &Load, count: usize, due: &str) {
    let database = load.fleet.database();
    let schedules = format!(
        "insert into schedules (id, name, kind, spec, created_by)
         select gen_random_uuid(), 'c' || n || '-' || substr(gen_random_uuid()::text, 1, 8), kind, spec, created_by
         from (select * from schedules where name = 's') s, generate_series(1, {count}) n"
    );
    database.execute(&schedules).await;
    let clocks = format!(
        "insert into schedule_clocks (schedule_id, next_fire_at, due_at, anchor_at)
         select id, t, t, t from schedules s, (select date_trunc('second', clock_timestamp()) + interval '{due}' as t) t
         where not exists (select from schedule_clocks c where c.schedule_id = s.id)"
    );
    database.execute(&clocks).await;
    database.execute("analyze schedules, schedule_clocks").await;
}

/// 10,000 schedules due in the same second: how long until the last of their runs is accepted.
pub(crate) async fn burst(arguments: &Arguments) -> Value {
    let load = Load::start(arguments, 1).await;
    template(&load, "1h").await;
    let count = arguments.scaled(10_000);
    copies(&load, count, "5 seconds").await;
    let usage = Usage::start(&load.fleet);
    let database = load.fleet.database();
    eventually(PATIENCE, "all to fire", async || {
        let fired = database.count("select count(*) from fires").await;
        // Seldom: counting takes from what is measured.
        tokio::time::sleep(Duration::from_millis(200)).await;
        seen(usize::try_from(fired) == Ok(count), fired)
    })
    .await;
    let row = sqlx::query(
        "select extract(epoch from max(r.created_at) - min(f.due_at))::float8 as seconds, count(*) as runs
         from fires f join runs r on r.id = f.run_id",
    );
    let row = row.fetch_one(database.pool()).await.expect("fires can be counted");
    let (seconds, runs): (f64, i64) = (row.get("seconds"), row.get("runs"));
    let used = usage.end(&load.fleet);
    let ended = load.ended(Duration::from_secs(600)).await;
    load.check(&ended, count).await;
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let rate = runs as f64 / seconds;
    json!({
        "workload": "S1", "unit": "runs/s", "rate": rounded(rate, 1), "accepted_s": rounded(seconds, 3),
        "limit_s": 5, "runs": runs, "usage": used,
    })
}

/// 100 schedules at every second, for a minute: how late their fires are.
pub(crate) async fn lag(arguments: &Arguments) -> Value {
    let load = Load::start(arguments, 1).await;
    template(&load, "1s").await;
    let database = load.fleet.database();
    copies(&load, 99, "3 seconds").await;
    let usage = Usage::start(&load.fleet);
    // The minute over which they fire is what is measured.
    tokio::time::sleep(Duration::from_secs(arguments.scaled(60).max(6) as u64)).await;
    let used = usage.end(&load.fleet);
    database.execute("delete from schedule_clocks").await;
    let ended = load.ended(PATIENCE).await;
    let row = sqlx::query(
        "select percentile_cont(array[0.5, 0.95, 0.99, 1]) within group (order by extract(epoch from f.fired_at - f.due_at)) as lags,
             percentile_cont(0.5) within group (order by extract(epoch from r.started_at - f.due_at)) as started,
             count(*) as fires
         from fires f join runs r on r.id = f.run_id",
    );
    let row = row.fetch_one(database.pool()).await.expect("lags are on record");
    let (lags, started, fires): (Vec<f64>, f64, i64) =
        (row.get("lags"), row.get("started"), row.get("fires"));
    load.check(&ended, usize::try_from(fires).unwrap_or_default()).await;
    let ms = |seconds: f64| rounded(seconds * 1e3, 2);
    json!({
        "workload": "S2", "unit": "ms", "p50": ms(lags[0]), "p95": ms(lags[1]), "p99": ms(lags[2]), "max": ms(lags[3]),
        "started_p50": ms(started), "limit_p50": 150, "limit_p99": 500, "fires": fires, "schedules": 100, "usage": used,
    })
}

/// 100,000 schedules stored, 10 due: how long a tick takes.
pub(crate) async fn tick(arguments: &Arguments) -> Value {
    let load = Load::start(arguments, 1).await;
    template(&load, "1h").await;
    let stored = arguments.scaled(100_000).max(100);
    copies(&load, stored, "2 hours").await;
    let database = load.fleet.database();
    let rounds = arguments.scaled(100).max(5);
    let machine = Machine::start();
    let mut before = Ticks::read(&load).await;
    for round in 1..=rounds {
        let due = "update schedule_clocks set next_fire_at = next_fire_at - interval '2 hours', due_at = clock_timestamp(),
                 anchor_at = anchor_at - interval '2 hours'
             where schedule_id in (select schedule_id from schedule_clocks
                 where last_fire_at is null and next_fire_at > clock_timestamp() + interval '90 minutes' limit 10)";
        database.execute(due).await;
        eventually(PATIENCE, "ten to fire", async || {
            let fired = database.count("select count(*) from fires").await;
            seen(usize::try_from(fired).is_ok_and(|fired| fired >= round * 10), fired)
        })
        .await;
        if round == 2 {
            // The first ticks compile, and prepare their statements.
            before = Ticks::read(&load).await;
        }
    }
    let after = Ticks::read(&load).await;
    let ended = load.ended(PATIENCE).await;
    load.check(&ended, rounds * 10).await;
    let ticks = after.count - before.count;
    json!({
        "workload": "S3", "unit": "ms", "p50": rounded((after.sum - before.sum) / ticks * 1e3, 2), "figure": "mean",
        "below_10_ms": rounded((after.below - before.below) / ticks, 3), "limit_ms": 10, "ticks": ticks,
        "stored": stored, "due": 10, "machine": machine.end(),
    })
}

/// What the leader says of its ticks.
struct Ticks {
    count: f64,
    sum: f64,
    /// Those of up to 10 ms.
    below: f64,
}

impl Ticks {
    async fn read(load: &Load) -> Self {
        let page = load.fleet.metrics(Role::Scheduler, 0).await;
        let value = |name: &str| {
            let line = page.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
        };
        Self {
            count: value("gathering_schedule_tick_seconds_count"),
            sum: value("gathering_schedule_tick_seconds_sum"),
            below: value("gathering_schedule_tick_seconds_bucket{le=\"0.01\"}"),
        }
    }
}
