//! Moments for which nobody was there.

use super::*;

#[tokio::test]
async fn misfires_are_skipped_fired_once_or_all() {
    let fleet = fleet().await;
    let client = fleet.client();
    let with = |misfire: &str| json!({"misfire": misfire, "misfire_grace": "30m", "max_catch_up": 3, "overlap": "allow"});
    let skip = create(&client, &hourly("skip", with("skip"))).await;
    let once = create(&client, &hourly("once", with("fire_once"))).await;
    let all = create(&client, &hourly("all", with("fire_all"))).await;
    // Due are the moments of 4, 3, 2, 1 hours ago, and of just now: of which all but the last were missed.
    for id in [&skip, &once, &all] {
        travel(&fleet, id, "5 hours").await;
    }
    let skipped = outcomes_until(&client, &skip, &["skipped", "completed"]).await;
    assert_eq!(
        (&skipped[0]["missed"], &skipped[0]["reason"]),
        (&json!(3), &json!("misfire: 4 moments were missed"))
    );
    let fired = outcomes_until(&client, &once, &["completed", "completed"]).await;
    assert_eq!((&fired[0]["missed"], &fired[1]["missed"]), (&json!(3), &json!(0)));
    assert!(fired[0]["lag_ms"].as_i64().is_some_and(|lag| lag >= 3_600_000), "{fired:?}");
    let all = outcomes_until(
        &client,
        &all,
        &["completed", "completed", "completed", "skipped", "completed"],
    )
    .await;
    assert_eq!(all[3]["reason"], "4 moments were missed, of which max_catch_up lets 3 fire");
    let next = |schedule: Value| schedule["next_fire_at"].clone();
    assert_ne!(next(schedule(&client, &skip).await), Value::Null);
    fleet.finish().await;
}

/// A fire that is late within the grace is none that was missed, whatever the rule.
#[tokio::test]
async fn what_is_late_within_the_grace_fires() {
    let fleet = fleet().await;
    let client = fleet.client();
    let body =
        hourly("late", json!({"misfire": "skip", "misfire_grace": "5h", "overlap": "allow"}));
    let id = create(&client, &body).await;
    travel(&fleet, &id, "3 hours").await;
    outcomes_until(&client, &id, &["completed", "completed", "completed"]).await;
    fleet.finish().await;
}

#[tokio::test]
async fn a_fire_with_jitter_waits_for_it() {
    let fleet = fleet().await;
    let client = fleet.client();
    let id = create(&client, &hourly("jitter", json!({"jitter": "30m"}))).await;
    let due = "select extract(epoch from due_at - next_fire_at)::int8 from schedule_clocks";
    let put_off = fleet.database().count(due).await;
    assert!((0..=1800).contains(&put_off), "{put_off}");
    // Its moment has passed, but not its jitter.
    travel(&fleet, &id, "1 hour").await;
    fleet
        .database()
        .execute("update schedule_clocks set due_at = clock_timestamp() + interval '1 hour'")
        .await;
    let other = create(&client, &hourly("other", json!({}))).await;
    travel(&fleet, &other, "1 hour").await;
    outcomes_until(&client, &other, &["completed"]).await;
    assert!(fires(&client, &id).await.is_empty(), "the one without jitter came first");
    travel(&fleet, &id, "1 hour").await;
    let fired = fires_until(&client, &id, "a fire", |fires| !fires.is_empty()).await;
    assert_eq!(fired[0]["cause"], "schedule");
    fleet.finish().await;
}
