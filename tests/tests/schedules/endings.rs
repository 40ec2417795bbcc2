//! When a schedule has no more to fire, or fires in vain.

use super::*;
use crate::definitions::{echo, pipeline};

#[tokio::test]
async fn max_fires_and_end_at_expire_it() {
    let fleet = fleet().await;
    let client = fleet.client();
    let two = create(
        &client,
        &hourly("two", json!({"max_fires": 2, "overlap": "allow", "misfire_grace": "24h"})),
    )
    .await;
    travel(&fleet, &two, "5 hours").await;
    outcomes_until(&client, &two, &["completed", "completed"]).await;
    let over = state_until(&client, &two, "expired").await;
    assert_eq!((&over["reason"], &over["fires"]), (&json!("max_fires is reached"), &json!(2)));

    let end = client
        .post("/v1/schedules/preview", &json!({"kind": "interval", "interval": "90m", "count": 1}))
        .await;
    let end = end.expect(200)["fires"][0].clone();
    let until = create(&client, &hourly("until", json!({"end_at": end}))).await;
    travel(&fleet, &until, "1 hour").await;
    outcomes_until(&client, &until, &["completed"]).await;
    // The next would be half an hour past its end; the end was not moved, the schedule was.
    let spec = "update schedules set spec = jsonb_set(spec, '{end_at}', to_jsonb((spec ->> 'end_at')::timestamptz - interval '1 hour')),
        revision = revision + 1 where name = 'until'";
    fleet.database().execute(spec).await;
    travel(&fleet, &until, "1 hour").await;
    state_until(&client, &until, "expired").await;
    let problem = client
        .post("/v1/schedules", &hourly("never", json!({"end_at": "2020-01-01T00:00:00Z"})))
        .await
        .problem(422);
    assert_eq!(problem["errors"][0]["pointer"], "/end_at");
    let resumed =
        client.post(&format!("/v1/schedules/{two}/resume"), &json!({})).await.problem(409);
    assert_eq!(resumed["type"], "urn:gathering:problem:nothing-left");
    // More to fire makes it active again.
    let patched = client
        .request(reqwest::Method::PATCH, &format!("/v1/schedules/{two}"))
        .json(&json!({"max_fires": 3}));
    let patched = client.send(patched).await.expect(200);
    assert_eq!((&patched["state"], &patched["reason"]), (&json!("active"), &Value::Null));
    travel(&fleet, &two, "1 hour").await;
    state_until(&client, &two, "expired").await;
    assert_eq!(fires(&client, &two).await.len(), 3);
    fleet.finish().await;
}

#[tokio::test]
async fn start_at_is_waited_for() {
    let fleet = fleet().await;
    let client = fleet.client();
    let body = json!({"kind": "cron", "cron": "* * * * * *", "start_at": "2100-01-01T00:00:30.5Z"});
    let id = create(&client, &echoes("later", body)).await;
    assert_eq!(schedule(&client, &id).await["next_fire_at"], "2100-01-01T00:00:31.000000Z");
    let body = hourly("from", json!({"start_at": "2090-01-01T00:00:00Z"}));
    let id = create(&client, &body).await;
    assert_eq!(schedule(&client, &id).await["next_fire_at"], "2090-01-01T00:00:00.000000Z");
    fleet.finish().await;
}

#[tokio::test]
async fn failures_in_a_row_disable_it() {
    let fleet = fleet().await;
    let client = fleet.client();
    let fails = json!({"action": "run_command", "input": {"argv": ["sh", "-c", "exit 3"]}});
    let with = json!({"start": fails, "max_consecutive_failures": 2, "retry": {"max_attempts": 1}});
    let id = create(&client, &hourly("fails", with)).await;
    let hears = json!({"name": "hears", "kind": "event", "event_type": "schedule.*",
        "start": {"action": "echo", "input": {"what": "{{ event.type }}", "who": "{{ data.schedule.name }}"}}});
    let listener = create(&client, &hears).await;
    travel(&fleet, &id, "1 hour").await;
    outcomes_until(&client, &id, &["failed"]).await;
    eventually(PATIENCE, "the failure to be counted", async || {
        let schedule = schedule(&client, &id).await;
        seen(schedule["consecutive_failures"] == 1 && schedule["state"] == "active", schedule)
    })
    .await;
    travel(&fleet, &id, "1 hour").await;
    let disabled = state_until(&client, &id, "disabled").await;
    let why = disabled["reason"].as_str().unwrap_or_default();
    assert!(
        why.contains("2 fires in a row have failed") && why.contains("ended failed"),
        "{disabled}"
    );
    assert_eq!(disabled["next_fire_at"], Value::Null);
    let heard = outcomes_until(&client, &listener, &["completed"]).await;
    let run = client.wait(&run_of(&heard[0])).await.expect("completed");
    assert_eq!(run.output, json!({"what": "schedule.disabled", "who": "fails"}));
    let resumed = client.post(&format!("/v1/schedules/{id}/resume"), &json!({})).await.expect(200);
    assert_eq!(
        (&resumed["state"], &resumed["consecutive_failures"]),
        (&json!("active"), &json!(0))
    );
    fleet.finish().await;
}

#[tokio::test]
async fn what_cannot_be_started_is_refused_with_its_reason() {
    let fleet = fleet().await;
    let client = fleet.client();
    let missing =
        hourly("missing", json!({"start": {"pipeline": "gone"}, "max_consecutive_failures": 1}));
    let missing = create(&client, &missing).await;
    let mut strict = pipeline("strict", [echo("a", json!({}))], []);
    strict["input_schema"] = json!({"type": "object", "required": ["n"]});
    client.create_pipeline(&strict).await;
    client.create_pipeline(&pipeline("paused", [echo("a", json!({}))], [])).await;
    client.post("/v1/pipelines/paused/pause", &json!({})).await.expect(200);
    let unfit = create(&client, &hourly("unfit", json!({"start": {"pipeline": "strict"}}))).await;
    let paused = create(&client, &hourly("paused", json!({"start": {"pipeline": "paused"}}))).await;
    for (id, says) in
        [(&missing, "there is no pipeline"), (&unfit, "input_schema"), (&paused, "is paused")]
    {
        travel(&fleet, id, "1 hour").await;
        let fires = outcomes_until(&client, id, &["refused"]).await;
        assert!(fires[0]["reason"].as_str().is_some_and(|why| why.contains(says)), "{fires:?}");
        assert_eq!(fires[0]["run"], Value::Null);
        assert_eq!(schedule(&client, id).await["consecutive_failures"], 1);
    }
    let disabled = state_until(&client, &missing, "disabled").await;
    assert!(
        disabled["reason"].as_str().is_some_and(|why| why.contains("there is no pipeline")),
        "{disabled}"
    );
    fleet.finish().await;
}

#[tokio::test]
async fn old_fires_are_forgotten() {
    let mut fleet = fleet().await;
    let client = fleet.client();
    let id = create(&client, &hourly("old", json!({}))).await;
    travel(&fleet, &id, "1 hour").await;
    outcomes_until(&client, &id, &["completed"]).await;
    eventually(PATIENCE, "the end to be noted", async || {
        let open = fleet.database().count("select count(*) from open_fires").await;
        seen(open == 0, open)
    })
    .await;
    fleet.database().execute("update fires set fired_at = fired_at - interval '31 days'").await;
    fleet.database().age_runs("31 days", "true").await;
    let kept = create(&client, &hourly("kept", json!({}))).await;
    travel(&fleet, &kept, "1 hour").await;
    outcomes_until(&client, &kept, &["completed"]).await;
    // A new leader begins with it.
    let leader = fleet.leader().await;
    fleet.kill(tests::fleet::Role::Scheduler, leader);
    fleet.add(tests::fleet::Role::Scheduler, &[]);
    fires_until(&client, &id, "no fire", <[Value]>::is_empty).await;
    assert_eq!(fires(&client, &kept).await.len(), 1);
    fleet.finish().await;
}
