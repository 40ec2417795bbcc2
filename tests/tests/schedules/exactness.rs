//! Each due moment has one fire and one run, whatever happens, and costs as much as is due.

use tests::database::Database;
use tests::fleet::Role;

use super::*;

#[tokio::test]
async fn r8_a_moment_that_has_fired_fires_no_second_time() {
    let fleet = fleet().await;
    let client = fleet.client();
    let id =
        create(&client, &hourly("s", json!({"overlap": "allow", "misfire_grace": "24h"}))).await;
    travel(&fleet, &id, "1 hour").await;
    let first = outcomes_until(&client, &id, &["completed"]).await;
    // As if the leader had forgotten: the moment is due again.
    fleet
        .database()
        .execute(&format!(
            "update schedule_clocks set (next_fire_at, due_at) = (last_fire_at, last_fire_at) where schedule_id = '{id}'"
        ))
        .await;
    eventually(PATIENCE, "the leader to go on", async || {
        let next = schedule(&client, &id).await;
        seen(next["next_fire_at"].as_str() > next["last_fire_at"].as_str(), next)
    })
    .await;
    assert_eq!(fires(&client, &id).await, first);
    assert_eq!(fleet.database().count("select count(*) from runs").await, 1);
    let again = fleet.database().pool();
    let copied = sqlx::query("insert into fires select * from fires").execute(again).await;
    assert!(copied.is_err_and(|error| error.to_string().contains("fires_pkey")));
    fleet.finish().await;
}

async fn looked_at(database: &Database) -> (i64, i64) {
    // What a backend has counted is told with a delay of a second at the most.
    let count = |column: &str| {
        format!(
            "select coalesce(sum({column}), 0)::int8 from pg_stat_user_tables where relname in ('schedules', 'schedule_clocks')"
        )
    };
    let read = async |query: String| -> i64 {
        sqlx::query_scalar(sqlx::AssertSqlSafe(query))
            .fetch_one(database.pool())
            .await
            .expect("a count")
    };
    (read(count("seq_tup_read")).await, read(count("idx_tup_fetch")).await)
}

/// A tick's cost is that of what is due, not of what is stored.
#[tokio::test]
async fn what_is_not_due_costs_nothing() {
    let fleet = fleet().await;
    let client = fleet.client();
    let id = create(&client, &hourly("due", json!({"overlap": "allow"}))).await;
    let many = format!(
        "insert into schedules (id, name, kind, spec, created_by)
         select gen_random_uuid(), 'n' || n, kind, spec, created_by from schedules, generate_series(1, 30000) n where id = '{id}'"
    );
    assert_eq!(fleet.database().execute(&many).await, 30_000);
    let clocks = "insert into schedule_clocks (schedule_id, next_fire_at, due_at, anchor_at)
         select id, t, t, t from schedules, (select clock_timestamp() + interval '1 hour' as t) t where name like 'n%'";
    assert_eq!(fleet.database().execute(clocks).await, 30_000);
    fleet.database().execute("analyze schedules, schedule_clocks").await;
    // What was read to set this up is told first: the schedules, once.
    let before = eventually(PATIENCE, "the counters to settle", async || {
        let first = looked_at(fleet.database()).await;
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let second = looked_at(fleet.database()).await;
        seen(second.0 >= 30_000 && second.0 == first.0 && second.1 - first.1 < 100, second)
    })
    .await;
    for n in 1..=5 {
        travel(&fleet, &id, "1 hour").await;
        fires_until(&client, &id, "a fire", |fires| fires.len() == n).await;
    }
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let after = looked_at(fleet.database()).await;
    assert_eq!(after.0, before.0, "no table is read through");
    assert!(after.1 - before.1 < 2_000, "{} rows were fetched for 5 fires", after.1 - before.1);
    fleet.finish().await;
}

#[tokio::test]
async fn a_standby_fires_within_five_seconds_of_the_leaders_death() {
    let mut fleet =
        TestFleet::start(FleetOptions { schedulers: 2, ..FleetOptions::default() }).await;
    let client = fleet.client();
    let id = create(
        &client,
        &echoes("s", json!({"kind": "cron", "cron": "* * * * * *", "overlap": "allow"})),
    )
    .await;
    fires_until(&client, &id, "a fire", |fires| !fires.is_empty()).await;
    let leader = fleet.leader().await;
    fleet.kill(Role::Scheduler, leader);
    let killed_at = std::time::Instant::now();
    let before = fires(&client, &id).await.len();
    fires_until(&client, &id, "a fire of the standby", |fires| fires.len() > before).await;
    assert!(killed_at.elapsed() < Duration::from_secs(5), "{:?}", killed_at.elapsed());
    delete(&client, &id).await;
    fleet.finish().await;
}
