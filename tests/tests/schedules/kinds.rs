//! Crons, intervals, and moments.

use chrono::{DateTime, TimeDelta, Timelike, Utc};
use serde_json::json;

use super::*;
use crate::definitions::{echo, pipeline, with};

fn instant(value: &Value) -> DateTime<Utc> {
    value
        .as_str()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| panic!("no instant: {value}"))
}

#[tokio::test]
async fn a_cron_fires_each_second_once() {
    let fleet = fleet().await;
    let client = fleet.client();
    let id = create(
        &client,
        &echoes("seconds", json!({"kind": "cron", "cron": "* * * * * *", "overlap": "allow"})),
    )
    .await;
    let fires = fires_until(&client, &id, "four fires", |fires| fires.len() >= 4).await;
    delete(&client, &id).await;
    for pair in fires.windows(2) {
        assert_eq!(
            instant(&pair[1]["fire_at"]) - instant(&pair[0]["fire_at"]),
            TimeDelta::seconds(1)
        );
    }
    for fire in &fires {
        assert_eq!(instant(&fire["fire_at"]).nanosecond(), 0);
        assert!((0..5_000).contains(&fire["lag_ms"].as_i64().unwrap_or(-1)), "{fire}");
        let run = client.wait(&run_of(fire)).await.expect("completed");
        assert_eq!(run.output["at"], fire["fire_at"], "the template saw the moment");
    }
    fleet.finish().await;
}

#[tokio::test]
async fn an_interval_fires_and_says_so_in_its_run() {
    let fleet = fleet().await;
    let client = fleet.client();
    client
        .create_pipeline(&pipeline("p", [echo("a", json!({"got": "{{ input.day }}"}))], []))
        .await;
    let body = hourly(
        "hourly",
        json!({
            "start": {"pipeline": "p", "input": {"day": "{{ fire_at[:10] }}", "by": "{{ schedule.name }}"}},
            "tags": ["nightly"],
        }),
    );
    let created = client.post("/v1/schedules", &body).await.expect(201);
    assert_eq!((&created["state"], &created["created_by"]), (&json!("active"), &json!("test")));
    let id = created["id"].as_str().expect("an id").to_owned();
    let due = instant(&created["next_fire_at"]);
    assert_eq!(due, instant(&created["created_at"]).max(due), "an hour from now");

    travel(&fleet, &id, "1 hour").await;
    let fires = outcomes_until(&client, &id, &["completed"]).await;
    let run = client.wait(&run_of(&fires[0])).await.expect("completed");
    assert_eq!(run.trigger["kind"], "schedule");
    assert_eq!(
        (&run.trigger["schedule_id"], &run.trigger["schedule"]),
        (&json!(id), &json!("hourly"))
    );
    assert_eq!(run.trigger["fire_at"], fires[0]["fire_at"]);
    assert_eq!((run.tags, run.pipeline.as_deref()), (vec!["nightly".to_owned()], Some("p")));
    assert_eq!(run.input["by"], "hourly");
    assert_eq!(run.input["day"], fires[0]["fire_at"].as_str().expect("an instant")[..10]);
    let after = schedule(&client, &id).await;
    assert_eq!(
        instant(&after["next_fire_at"]),
        instant(&fires[0]["fire_at"]) + TimeDelta::hours(1)
    );
    assert_eq!((&after["fires"], &after["last_fire_at"]), (&json!(1), &fires[0]["fire_at"]));
    fleet.finish().await;
}

#[tokio::test]
async fn a_moment_fires_once_and_is_over() {
    let fleet = fleet().await;
    let client = fleet.client();
    let now = client
        .post("/v1/schedules/preview", &json!({"kind": "cron", "cron": "* * * * * *", "count": 3}))
        .await
        .expect(200);
    let at = now["fires"][2].clone();
    let id = create(&client, &echoes("once", json!({"kind": "once", "at": at}))).await;
    let fires = outcomes_until(&client, &id, &["completed"]).await;
    assert_eq!(fires[0]["fire_at"], at);
    let over = state_until(&client, &id, "expired").await;
    assert_eq!(over["next_fire_at"], Value::Null);
    assert!(over["reason"].as_str().is_some_and(|why| why.contains("no moment is left")), "{over}");
    let late = echoes("late", json!({"kind": "once", "at": "2020-01-01T00:00:00Z"}));
    let problem = client.post("/v1/schedules", &late).await.problem(422);
    assert_eq!(problem["errors"][0]["pointer"], "/at");
    fleet.finish().await;
}

/// A node of a pipeline that says nothing of retries takes the schedule's rule; one that does keeps its own.
#[tokio::test]
async fn the_retry_rule_is_handed_to_the_run() {
    use crate::definitions::{call, quick_retry};
    use tests::http_target::{HttpTarget, Reply};
    let fleet = fleet().await;
    let (client, target) = (fleet.client(), HttpTarget::start().await);
    for path in ["/action", "/plain", "/own"] {
        target.answers(path, [Reply::status(503)]);
    }
    client
        .create_pipeline(&pipeline(
            "p",
            [
                call("plain", &target.url("/plain")),
                with(call("own", &target.url("/own")), "retry", quick_retry(2)),
            ],
            [],
        ))
        .await;
    let action = json!({"start": {"action": "call_api", "input": {"url": target.url("/action")}}, "retry": quick_retry(4)});
    let a = create(&client, &hourly("a", action)).await;
    let p =
        create(&client, &hourly("p", json!({"start": {"pipeline": "p"}, "retry": quick_retry(4)})))
            .await;
    for id in [&a, &p] {
        travel(&fleet, id, "1 hour").await;
        outcomes_until(&client, id, &["failed"]).await;
    }
    let calls = |path| target.received(path).len();
    assert_eq!((calls("/action"), calls("/plain"), calls("/own")), (4, 4, 2));
    fleet.finish().await;
}
