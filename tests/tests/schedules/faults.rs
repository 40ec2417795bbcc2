//! Leaders that are killed, frozen and cut off, while schedules are due every second.

use std::sync::Arc;
use std::time::Instant;

use futures::future::join_all;
use rand::RngExt;
use sqlx::Row;
use tests::fleet::Role;
use tests::proxy::{Mode, Proxy};
use tests::servers::{PrivatePostgres, PrivateRabbit, Servers};

use super::*;

/// Schedules that are due every second, and what must have come of them.
struct Storm {
    fleet: TestFleet,
    schedules: Vec<String>,
    /// One before each scheduler, by index.
    proxies: Vec<Arc<Proxy>>,
}

impl Storm {
    async fn start(options: FleetOptions, schedules: usize) -> Self {
        let mut fleet = TestFleet::start(FleetOptions { schedulers: 0, ..options }).await;
        let mut proxies = Vec::new();
        for _ in 0..3 {
            proxies.push(add(&mut fleet).await);
        }
        fleet.ready().await;
        let client = fleet.client();
        let body = |n: usize| {
            let with = json!({"kind": "cron", "cron": "* * * * * *", "overlap": "allow",
                "misfire": "fire_all", "max_catch_up": 1000, "misfire_grace": "10s"});
            echoes(&format!("s{n}"), with)
        };
        let made = (0..schedules).map(|n| {
            let client = client.clone();
            async move { create(&client, &body(n)).await }
        });
        let schedules = join_all(made).await;
        Self { fleet, schedules, proxies }
    }

    /// Waits until all that was due by now has been decided, and fails the test unless each moment has one fire and
    /// one run. The lags are printed.
    async fn check(self, name: &str) {
        let database = self.fleet.database();
        let until: chrono::DateTime<chrono::Utc> = sqlx::query_scalar("select clock_timestamp()")
            .fetch_one(database.pool())
            .await
            .expect("a clock");
        eventually(Duration::from_secs(90), "all that was due to be decided", async || {
            let behind: i64 =
                sqlx::query_scalar("select count(*) from schedule_clocks where next_fire_at <= $1")
                    .bind(until)
                    .fetch_one(database.pool())
                    .await
                    .map_err(|error| error.to_string())?;
            seen(behind == 0, behind).map_err(|left| format!("{left} are behind"))
        })
        .await;
        for id in &self.schedules {
            delete(&self.fleet.client(), id).await;
        }
        let row = sqlx::query(
            "with due as (
                 select schedule_id, generate_series(min(fire_at), $1, interval '1 s') as fire_at from fires group by 1
             ), started as (
                 select (trigger ->> 'schedule_id')::uuid as schedule_id, (trigger ->> 'fire_at')::timestamptz as fire_at,
                     count(*) as runs
                 from runs where trigger ->> 'kind' = 'schedule' group by 1, 2
             )
             select (select count(distinct schedule_id) from fires), (select count(*) from due),
                 (select count(*) from due d where not exists (
                     select from fires f join runs r on r.id = f.run_id
                     where f.schedule_id = d.schedule_id and f.fire_at = d.fire_at)),
                 (select count(*) from started where runs <> 1),
                 (select count(*) from started s where not exists (
                     select from fires f where f.schedule_id = s.schedule_id and f.fire_at = s.fire_at)),
                 (select count(*) from fires where fire_at <> date_trunc('second', fire_at))",
        )
        .bind(until)
        .fetch_one(database.pool())
        .await
        .expect("fires can be counted");
        let count = |place| row.get::<i64, _>(place);
        let lags = sqlx::query(
            "select percentile_cont(array[0.5, 0.99, 1]) within group (order by extract(epoch from fired_at - due_at)) as lags
             from fires",
        )
        .fetch_one(database.pool())
        .await
        .expect("lags are on record");
        let lags: Vec<f64> = lags.get("lags");
        let elections = database.count("select epoch from leader").await;
        println!(
            "{name}: {} moments of {} schedules, {elections} elections; lag p50 {:.3} s, p99 {:.3} s, max {:.3} s",
            count(1),
            count(0),
            lags[0],
            lags[1],
            lags[2]
        );
        assert_eq!(usize::try_from(count(0)), Ok(self.schedules.len()), "each schedule has fired");
        assert!(count(1) > 0);
        assert_eq!(
            (count(2), count(3), count(4), count(5)),
            (0, 0, 0, 0),
            "missing, twice, without a fire, between"
        );
        self.fleet.finish().await;
    }
}

/// One more scheduler, behind a proxy of its own.
async fn add(fleet: &mut TestFleet) -> Arc<Proxy> {
    let proxy = Proxy::before(fleet.database().url()).await;
    let url = proxy.url(fleet.database().url());
    fleet.add(Role::Scheduler, &[("DATABASE_URL", &url)]);
    Arc::new(proxy)
}

/// Strikes the leader in one of four ways; `short` leaves it no time to be replaced where that takes long.
async fn strike(storm: &mut Storm, kind: u32, short: bool) {
    let leader = storm.fleet.leader().await;
    let pause = Duration::from_secs(if short { 1 } else { 14 });
    match kind {
        0 => {
            storm.fleet.kill(Role::Scheduler, leader);
            let proxy = add(&mut storm.fleet).await;
            storm.proxies.push(proxy);
        }
        1 => {
            storm.fleet.process(Role::Scheduler, leader).freeze();
            tokio::time::sleep(pause).await;
            storm.fleet.process(Role::Scheduler, leader).thaw();
        }
        2 => {
            let terminate = "select pg_terminate_backend(pid) from pg_locks
                 where locktype = 'advisory' and granted and pid in (select pid from pg_stat_activity where application_name = 'gathering-scheduler'
                         and datname = current_database())";
            storm.fleet.database().execute(terminate).await;
        }
        _ => {
            storm.proxies[leader].set(Mode::Hold);
            tokio::time::sleep(pause).await;
            storm.proxies[leader].heal();
        }
    }
}

async fn rage(storm: &mut Storm, time: Duration, short: bool) {
    let began = Instant::now();
    let mut kind = rand::rng().random_range(0..4u32);
    while began.elapsed() < time {
        strike(storm, kind % 4, short).await;
        kind += 1;
        let rest = rand::rng().random_range(if short { 500..1500 } else { 1000..4000 });
        tokio::time::sleep(Duration::from_millis(rest)).await;
    }
    storm.fleet.ready().await;
}

/// The short form of the next one.
#[tokio::test]
async fn leaders_are_struck_for_fifteen_seconds() {
    let mut storm = Storm::start(FleetOptions::default(), 20).await;
    rage(&mut storm, Duration::from_secs(15), true).await;
    storm.check("15 s").await;
}

#[tokio::test]
#[ignore = "takes minutes"]
async fn fault_31_leaders_are_struck_while_200_schedules_are_due_each_second() {
    let options = FleetOptions { concurrency: 64, ..FleetOptions::default() };
    let mut storm = Storm::start(options, 200).await;
    rage(&mut storm, Duration::from_secs(120), false).await;
    storm.check("120 s of strikes").await;
}

#[tokio::test]
#[ignore = "breaks a PostgreSQL and a RabbitMQ of its own"]
async fn fault_32_postgres_restarts_and_the_broker_is_away_while_schedules_are_due() {
    let (postgres, rabbit) = (PrivatePostgres::start().await, PrivateRabbit::start().await);
    let servers = Servers::shared().await.with_postgres(&postgres).with_rabbit(&rabbit);
    let options =
        FleetOptions { concurrency: 64, servers: Some(servers), ..FleetOptions::default() };
    let storm = Storm::start(options, 100).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    rabbit.stop().await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    postgres.restart().await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    rabbit.up().await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    postgres.kill().await;
    postgres.up().await;
    storm.fleet.ready().await;
    storm.check("restarts").await;
}

/// Only the database's clock is asked what is due.
#[tokio::test]
#[ignore = "needs the package libfaketime"]
async fn fault_33_schedulers_and_apis_whose_clocks_are_an_hour_off_fire_on_time() {
    let library = ["x86_64", "aarch64"]
        .map(|machine| format!("/usr/lib/{machine}-linux-gnu/faketime/libfaketime.so.1"))
        .into_iter()
        .find(|path| std::path::Path::new(path).exists())
        .expect("the package libfaketime is installed");
    let mut options = FleetOptions::default();
    for (role, offset) in [(Role::Scheduler, "-1h"), (Role::Api, "+1h")] {
        options = options.with(role, "LD_PRELOAD", &library).with(role, "FAKETIME", offset).with(
            role,
            "FAKETIME_DONT_FAKE_MONOTONIC",
            "1",
        );
    }
    let fleet = TestFleet::start(options).await;
    // A token that an api whose clock is ahead still takes.
    let token =
        tests::client::token(tests::fleet::SECRET, "test", "admin", Duration::from_secs(7200));
    let client = fleet.client().with_token(Some(token));
    let body =
        json!({"kind": "cron", "cron": "* * * * * *", "overlap": "allow", "misfire": "skip"});
    let id = create(&client, &echoes("s", body)).await;
    let fires = fires_until(&client, &id, "three fires", |fires| fires.len() >= 3).await;
    delete(&client, &id).await;
    for fire in &fires {
        assert_eq!(fire["cause"], "schedule");
        assert!((0..5_000).contains(&fire["lag_ms"].as_i64().unwrap_or(-1)), "{fire}");
    }
    let real = "select count(*) from fires where abs(extract(epoch from clock_timestamp() - fire_at)) < 120";
    assert!(fleet.database().count(real).await >= 3, "by the database's clock");
    fleet.finish().await;
}
