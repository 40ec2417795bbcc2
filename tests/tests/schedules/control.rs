//! What clients do to schedules.

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::Method;
use tests::client::token;
use tests::fleet::SECRET;
use tests::http_target::HttpTarget;

use super::*;

async fn patch(client: &Client, id: &str, body: Value) -> tests::client::Answer {
    client.send(client.request(Method::PATCH, &format!("/v1/schedules/{id}")).json(&body)).await
}

async fn post(client: &Client, id: &str, what: &str) -> tests::client::Answer {
    client.post(&format!("/v1/schedules/{id}/{what}"), &json!({})).await
}

#[tokio::test]
async fn schedules_are_made_read_listed_changed_and_deleted() {
    let fleet = fleet().await;
    let client = fleet.client();
    let body = echoes(
        "daily",
        json!({"kind": "cron", "cron": "0 9 * * *", "timezone": "Europe/Berlin", "tags": ["a", "b"]}),
    );
    let answer = client.post("/v1/schedules", &body).await;
    let location = answer.header("location").unwrap_or_default().to_owned();
    let made = answer.expect(201);
    let id = made["id"].as_str().expect("an id").to_owned();
    assert_eq!(location, format!("/v1/schedules/{id}"));
    assert_eq!(schedule(&client, &id).await, made);
    for (field, value) in [
        ("misfire", json!("fire_once")),
        ("overlap", json!("skip")),
        ("misfire_grace", json!("1m")),
        ("max_fires", Value::Null),
    ] {
        assert_eq!(made[field], value, "{field}");
    }
    let taken = client.post("/v1/schedules", &body).await.problem(409);
    assert_eq!(taken["type"], "urn:gathering:problem:name-taken");
    let other = create(&client, &hourly("other", json!({"tags": ["b"]}))).await;
    let names = async |query: &str| -> Vec<String> {
        let items = client.list(&format!("/v1/schedules?{query}")).await;
        items.iter().filter_map(|item| Some(item["name"].as_str()?.to_owned())).collect()
    };
    assert_eq!(names("limit=1").await, ["other", "daily"]);
    assert_eq!(names("tag=a&tag=b").await, ["daily"]);
    assert_eq!(names("kind=interval").await, ["other"]);
    assert_eq!(names("name=daily").await, ["daily"]);
    assert!(names("state=paused").await.is_empty());

    let next = made["next_fire_at"].clone();
    let same = patch(&client, &id, json!({"tags": ["c"], "max_fires": 9})).await.expect(200);
    assert_eq!((&same["next_fire_at"], &same["tags"]), (&next, &json!(["c"])), "its times stay");
    let later =
        patch(&client, &id, json!({"cron": "30 9 * * *", "max_fires": null})).await.expect(200);
    assert_ne!(later["next_fire_at"], next);
    assert_eq!(later["max_fires"], Value::Null);
    let problem =
        patch(&client, &id, json!({"cron": "0 0 30 2 *", "overlap": "x"})).await.problem(422);
    assert_eq!(problem["errors"][0]["pointer"], "/overlap");
    patch(&client, &id, json!({"name": "other"})).await.problem(409);
    let turned =
        patch(&client, &id, json!({"kind": "interval", "interval": "5m"})).await.expect(200);
    assert_eq!((&turned["cron"], &turned["interval"]), (&Value::Null, &json!("5m")));

    delete(&client, &other).await;
    for path in ["", "/fires", "/backfills"] {
        client.get(&format!("/v1/schedules/{other}{path}")).await.problem(404);
    }
    for what in ["pause", "resume", "trigger"] {
        post(&client, &other, what).await.problem(404);
    }
    client.delete(&format!("/v1/schedules/{other}")).await.problem(404);
    client.get("/v1/schedules/x").await.problem(400);
    fleet.finish().await;
}

#[tokio::test]
async fn a_paused_schedule_fires_nothing_and_makes_nothing_up() {
    let fleet = fleet().await;
    let client = fleet.client();
    let id =
        create(&client, &hourly("p", json!({"misfire": "fire_all", "misfire_grace": "24h"}))).await;
    let paused = post(&client, &id, "pause").await.expect(200);
    assert_eq!((&paused["state"], &paused["next_fire_at"]), (&json!("paused"), &Value::Null));
    travel(&fleet, &id, "5 hours").await;
    let witness = create(&client, &hourly("witness", json!({}))).await;
    travel(&fleet, &witness, "1 hour").await;
    outcomes_until(&client, &witness, &["completed"]).await;
    assert!(fires(&client, &id).await.is_empty());
    let resumed = post(&client, &id, "resume").await.expect(200);
    let now = client
        .post("/v1/schedules/preview", &json!({"kind": "cron", "cron": "* * * * * *", "count": 1}))
        .await
        .expect(200);
    assert!(
        resumed["next_fire_at"].as_str() > now["fires"][0].as_str(),
        "it goes on from now: {resumed}"
    );
    fleet.finish().await;
}

#[tokio::test]
async fn a_schedule_is_fired_now_and_its_runs_outlive_it() {
    let (fleet, target) = (fleet().await, HttpTarget::start().await);
    let (client, gate) = (fleet.client(), target.gate("/held"));
    let body = hourly(
        "now",
        json!({"start": {"action": "call_api", "input": {"url": target.url("/held")}}}),
    );
    let id = create(&client, &body).await;
    let next = schedule(&client, &id).await["next_fire_at"].clone();
    post(&client, &id, "pause").await.expect(200);
    let path = format!("/v1/schedules/{id}/trigger");
    let answer = client.post_once(&path, &json!({}), "k").await;
    let location = answer.header("location").unwrap_or_default().to_owned();
    let run = answer.expect(202)["run"].as_str().expect("a run").to_owned();
    assert_eq!(location, format!("/v1/runs/{run}"));
    assert_eq!(
        client.post_once(&path, &json!({}), "k").await.expect(202)["run"],
        json!(run),
        "once"
    );
    target.arrived("/held", 1).await;
    let fires = fires(&client, &id).await;
    assert_eq!(
        (fires.len(), &fires[0]["cause"], &fires[0]["run"]),
        (1, &json!("manual"), &json!(run))
    );
    let resumed = post(&client, &id, "resume").await.expect(200);
    assert_eq!(resumed["next_fire_at"], next, "its times stay as they are");
    // It is the run before: what is due now is skipped.
    travel(&fleet, &id, "1 hour").await;
    fires_until(&client, &id, "one to be skipped", |fires| {
        let has = |outcome: &str| fires.iter().any(|fire| fire["outcome"] == outcome);
        fires.len() == 2 && has("started") && has("skipped")
    })
    .await;

    delete(&client, &id).await;
    gate.open();
    let run = client.wait(&run).await.expect("completed");
    assert_eq!(
        (&run.trigger["cause"], &run.trigger["schedule_id"]),
        (&json!("manual"), &json!(id))
    );

    let nothing = create(&client, &hourly("nothing", json!({"start": {"pipeline": "gone"}}))).await;
    let problem = post(&client, &nothing, "trigger").await.problem(409);
    assert!(
        problem["detail"].as_str().is_some_and(|why| why.contains("there is no pipeline")),
        "{problem}"
    );
    assert!(super::fires(&client, &nothing).await.is_empty(), "what was answered is not recorded");
    fleet.finish().await;
}

#[tokio::test]
async fn a_range_is_counted_then_filled_a_few_at_a_time() {
    let (fleet, target) = (fleet().await, HttpTarget::start().await);
    let (client, gate) = (fleet.client(), target.gate("/held"));
    let body = hourly(
        "back",
        json!({"misfire": "skip", "misfire_grace": "1m", "start": {"action": "call_api", "input": {"url": target.url("/held")}}}),
    );
    let id = create(&client, &body).await;
    // Five moments go by, of which the last is skipped and on record; one more is fired by hand, beside them.
    travel(&fleet, &id, "330 minutes").await;
    outcomes_until(&client, &id, &["skipped"]).await;
    let made: DateTime<Utc> = schedule(&client, &id).await["next_fire_at"]
        .as_str()
        .expect("a next")
        .parse()
        .expect("an instant");
    let (from, to) = (made - TimeDelta::hours(5), made - TimeDelta::minutes(59));
    let range =
        |preview: bool| json!({"from": from, "to": to, "concurrency": 2, "preview": preview});
    let path = format!("/v1/schedules/{id}/backfills");
    assert_eq!(client.post(&path, &range(true)).await.expect(200), json!({"count": 5}));
    let backfill = client.post(&path, &range(false)).await.expect(202);
    assert_eq!(backfill["count"], 5);
    target.arrived("/held", 2).await;
    // Two are under way, and no third as long as they are.
    let witness = create(&client, &hourly("witness", json!({}))).await;
    for _ in 0..3 {
        travel(&fleet, &witness, "1 hour").await;
    }
    fires_until(&client, &witness, "the leader to go on", |fires| fires.len() >= 2).await;
    assert_eq!(target.received("/held").len(), 2);
    gate.open();
    let fires = outcomes_until(&client, &id, &["completed"; 5]).await;
    assert!(
        fires.iter().all(|fire| fire["cause"] == "backfill"),
        "the skipped one, too: {fires:?}"
    );
    assert_eq!(target.received("/held").len(), 5);
    eventually(PATIENCE, "the backfill to be finished", async || {
        let list = client.list(&path).await;
        seen(list[0]["finished_at"].is_string() && list[0]["started"] == 5, list)
    })
    .await;
    assert_eq!(
        client.post(&path, &range(true)).await.expect(200),
        json!({"count": 0}),
        "each once"
    );
    for (body, pointer) in [
        (json!({}), "/from"),
        (json!({"from": to, "to": from}), "/to"),
        (json!({"from": from, "to": "2100-01-01T00:00:00Z"}), "/to"),
        (json!({"from": "1990-01-01T00:00:00Z", "to": to}), "/from"),
        (json!({"from": from, "to": to, "concurrency": 0}), "/concurrency"),
    ] {
        assert_eq!(
            client.post(&path, &body).await.problem(422)["errors"][0]["pointer"],
            pointer,
            "{body}"
        );
    }
    fleet.finish().await;
}

#[tokio::test]
async fn a_preview_tells_when_before_there_is_a_schedule() {
    let fleet = fleet().await;
    let client = fleet.client();
    let body = json!({"kind": "cron", "cron": "30 2 * * *", "timezone": "Europe/Berlin", "after": "2026-03-28T12:00:00Z", "count": 2});
    let told = client.post("/v1/schedules/preview", &body).await.expect(200);
    assert_eq!(
        told,
        json!({"fires": ["2026-03-29T01:00:00.000000Z", "2026-03-30T00:30:00.000000Z"]})
    );
    let ten = client
        .post("/v1/schedules/preview", &json!({"kind": "cron", "cron": "@hourly"}))
        .await
        .expect(200);
    assert_eq!(ten["fires"].as_array().map(Vec::len), Some(10));
    let problem = client
        .post("/v1/schedules/preview", &json!({"kind": "cron", "cron": "0 0 L * *"}))
        .await
        .problem(422);
    assert!(
        problem["errors"][0]["detail"]
            .as_str()
            .is_some_and(|why| why.contains("not of crontab(5)")),
        "{problem}"
    );
    fleet.finish().await;
}

#[tokio::test]
async fn viewers_look_and_operators_change() {
    let fleet = fleet().await;
    let client = fleet.client();
    let id = create(&client, &hourly("s", json!({}))).await;
    let viewer = client.with_token(Some(token(SECRET, "v", "viewer", Duration::from_secs(60))));
    for path in [
        "/v1/schedules".to_owned(),
        format!("/v1/schedules/{id}"),
        format!("/v1/schedules/{id}/fires"),
    ] {
        viewer.get(&path).await.expect(200);
        client.with_token(None).get(&path).await.problem(401);
    }
    viewer
        .post("/v1/schedules/preview", &json!({"kind": "cron", "cron": "@daily"}))
        .await
        .expect(200);
    viewer.post("/v1/schedules", &hourly("t", json!({}))).await.problem(403);
    viewer.post("/v1/events", &json!({"type": "x"})).await.problem(403);
    viewer.delete(&format!("/v1/schedules/{id}")).await.problem(403);
    for what in ["pause", "resume", "trigger", "backfills"] {
        post(&viewer, &id, what).await.problem(403);
    }
    let operator = client.with_token(Some(token(SECRET, "o", "operator", Duration::from_secs(60))));
    delete(&operator, &id).await;
    fleet.finish().await;
}
