//! Events, and the schedules that listen.

use tests::fleet::Role;

use super::*;
use crate::definitions::failing;

fn listens(name: &str, event_type: &str, with: Value) -> Value {
    let input = json!({"type": "{{ event.type }}", "data": "{{ event.data }}"});
    let mut body = json!({"name": name, "kind": "event", "event_type": event_type, "start": {"action": "echo", "input": input}});
    for (key, value) in with.as_object().expect("an object") {
        body[key] = value.clone();
    }
    body
}

async fn tell(client: &Client, event_type: &str, data: Value) -> String {
    let told =
        client.post("/v1/events", &json!({"type": event_type, "data": data})).await.expect(202);
    told["id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn each_event_fires_each_listener_once() {
    let fleet = fleet().await;
    let client = fleet.client();
    let paid = create(&client, &listens("paid", "order.paid", json!({}))).await;
    let any = create(&client, &listens("any", "order.*", json!({}))).await;
    let large =
        create(&client, &listens("large", "order.paid", json!({"condition": "data.sum > 100"})))
            .await;
    let other = create(&client, &listens("other", "invoice.*", json!({}))).await;
    let first = tell(&client, "order.paid", json!({"sum": 7})).await;
    let second = tell(&client, "order.paid", json!({"sum": 700})).await;
    tell(&client, "order.sent", json!({"sum": 700})).await;
    let once = json!({"type": "order.lost", "data": {}});
    let lost = client.post_once("/v1/events", &once, "one").await.expect(202);
    assert_eq!(
        client.post_once("/v1/events", &once, "one").await.expect(202),
        lost,
        "the same answer"
    );

    let fires = outcomes_until(&client, &any, &["completed"; 4]).await;
    let runs = outcomes_until(&client, &paid, &["completed"; 2]).await;
    assert_eq!(
        runs.iter().map(|fire| fire["event"].clone()).collect::<Vec<_>>(),
        [json!(first), json!(second)]
    );
    let run = client.wait(&run_of(&runs[0])).await.expect("completed");
    assert_eq!(run.output, json!({"type": "order.paid", "data": {"sum": 7}}));
    assert_eq!((&run.trigger["event"]["id"], &run.trigger["depth"]), (&json!(first), &json!(1)));
    let hit = outcomes_until(&client, &large, &["completed"]).await;
    assert_eq!(hit[0]["event"], json!(second));
    assert!(super::fires(&client, &other).await.is_empty());
    assert_eq!(fires[3]["event"], lost["id"]);
    fleet.finish().await;
}

#[tokio::test]
async fn r1_an_accepted_event_survives_all_schedulers() {
    let mut fleet = fleet().await;
    let client = fleet.client();
    let id = create(&client, &listens("l", "x", json!({}))).await;
    let leader = fleet.leader().await;
    fleet.kill(Role::Scheduler, leader);
    for n in 0..30 {
        tell(&client, "x", json!({"n": n})).await;
    }
    fleet.add(Role::Scheduler, &[]);
    let fires = outcomes_until(&client, &id, &["completed"; 30]).await;
    let mut events: Vec<&str> = fires.iter().filter_map(|fire| fire["event"].as_str()).collect();
    events.sort_unstable();
    events.dedup();
    assert_eq!(events.len(), 30, "each once");
    fleet.finish().await;
}

#[tokio::test]
async fn who_is_paused_or_comes_later_hears_nothing() {
    let fleet = fleet().await;
    let client = fleet.client();
    let paused = create(&client, &listens("paused", "x", json!({}))).await;
    client.post(&format!("/v1/schedules/{paused}/pause"), &json!({})).await.expect(200);
    let full = create(&client, &listens("full", "x", json!({"max_fires": 1}))).await;
    tell(&client, "x", json!({})).await;
    tell(&client, "x", json!({})).await;
    outcomes_until(&client, &full, &["completed"]).await;
    state_until(&client, &full, "expired").await;
    eventually(PATIENCE, "all events to be dealt with", async || {
        let left = fleet.database().count("select count(*) from events").await;
        seen(left == 0, left)
    })
    .await;
    client.post(&format!("/v1/schedules/{paused}/resume"), &json!({})).await.expect(200);
    let late = create(&client, &listens("late", "x", json!({}))).await;
    let event = tell(&client, "x", json!({})).await;
    for id in [&paused, &late] {
        let fires = outcomes_until(&client, id, &["completed"]).await;
        assert_eq!(fires[0]["event"], json!(event), "what came before is not heard");
    }
    fleet.finish().await;
}

#[tokio::test]
async fn the_ends_of_runs_are_events() {
    let fleet = fleet().await;
    let client = fleet.client();
    // Nobody listens yet: nothing is written.
    let unheard = client.action("echo", json!({})).await;
    client.wait(&unheard).await.expect("completed");
    let failed = create(&client, &listens("failed", "run.failed", json!({
        "start": {"action": "echo", "input": {"run": "{{ data.run.id }}", "why": "{{ data.run.error.message }}"}},
    })))
    .await;
    let stopped = create(&client, &listens("stopped", "run.cancelled", json!({}))).await;
    let ok = client.action("echo", json!({})).await;
    client.wait(&ok).await.expect("completed");
    let definition = crate::definitions::pipeline("bad", [failing("a")], []);
    let bad = client.run_pipeline(definition, json!({})).await.expect("failed");
    let waits = client.action_with(json!({"action": "echo", "input": {}, "delay": "1h"})).await;
    client.cancel(&waits).await;

    let fires = outcomes_until(&client, &failed, &["completed"]).await;
    let run = client.wait(&run_of(&fires[0])).await.expect("completed");
    assert_eq!(run.output["run"], json!(bad.id));
    assert!(
        run.output["why"].as_str().is_some_and(|why| why.contains("there_is_no_such_thing")),
        "{run:?}"
    );
    let heard = outcomes_until(&client, &stopped, &["completed"]).await;
    let run = client.wait(&run_of(&heard[0])).await.expect("completed");
    assert_eq!(
        (&run.output["type"], &run.output["data"]["run"]["id"]),
        (&json!("run.cancelled"), &json!(waits))
    );
    delete(&client, &failed).await;
    delete(&client, &stopped).await;
    fleet.finish().await;
}

/// A run that an event started ends with an event that is one deeper; the sixth starts nothing more.
#[tokio::test]
async fn a_loop_of_events_ends_at_depth_five() {
    let fleet = fleet().await;
    let client = fleet.client();
    let id =
        create(&client, &listens("loop", "run.completed", json!({"start": {"action": "echo"}})))
            .await;
    let id_of_first = client.action("echo", json!({})).await;
    client.wait(&id_of_first).await.expect("completed");
    let fires = outcomes_until(
        &client,
        &id,
        &["completed", "completed", "completed", "completed", "completed", "skipped"],
    )
    .await;
    assert!(
        fires[5]["reason"].as_str().is_some_and(|why| why.starts_with("loop: 5 events")),
        "{fires:?}"
    );
    for (depth, fire) in (1..).zip(&fires[..5]) {
        assert_eq!(client.run(&run_of(fire)).await.trigger["depth"], depth);
    }
    fleet.finish().await;
}

#[tokio::test]
async fn what_an_event_carries_is_data() {
    let fleet = fleet().await;
    let client = fleet.client();
    let id = create(&client, &listens("l", "x", json!({}))).await;
    let tricky = "{{ run.id }} {% for x in y %} \" \\";
    tell(&client, "x", json!({"text": tricky})).await;
    let fires = outcomes_until(&client, &id, &["completed"]).await;
    let run = client.wait(&run_of(&fires[0])).await.expect("completed");
    assert_eq!(run.output["data"]["text"], tricky);
    let refused =
        client.post("/v1/events", &json!({"type": "run.failed", "data": {}})).await.problem(422);
    assert_eq!(refused["errors"][0]["pointer"], "/type");
    client.post("/v1/events", &json!({"type": "x", "data": "\u{0}"})).await.problem(422);
    fleet.finish().await;
}

/// More than one transaction deals with: in portions, and each once, through the death of the leader.
#[tokio::test]
async fn an_event_fires_very_many_listeners_once_each() {
    let mut fleet =
        TestFleet::start(FleetOptions { schedulers: 2, ..FleetOptions::default() }).await;
    let client = fleet.client();
    create(&client, &listens("l", "x", json!({}))).await;
    let copies = "with copied as (
             insert into schedules (id, name, kind, spec, listens, created_by)
             select gen_random_uuid(), 'n' || n, kind, spec, listens, created_by from schedules, generate_series(1, 2499) n
             returning id, created_at)
         insert into schedule_clocks (schedule_id, anchor_at) select id, created_at from copied";
    assert_eq!(fleet.database().execute(copies).await, 2_499);
    tell(&client, "x", json!({})).await;
    tell(&client, "x", json!({})).await;
    let count = "select count(*) from fires";
    eventually(PATIENCE, "the first of them to fire", async || {
        let fired = fleet.database().count(count).await;
        seen(fired > 0, fired)
    })
    .await;
    let leader = fleet.leader().await;
    fleet.kill(Role::Scheduler, leader);
    eventually(PATIENCE * 3, "all of them to fire", async || {
        let fired = fleet.database().count(count).await;
        seen(fired >= 5_000, fired)
    })
    .await;
    fleet.drain(Duration::from_secs(120)).await;
    assert_eq!(fleet.database().count(count).await, 5_000);
    assert_eq!(fleet.database().count("select count(*) from runs").await, 5_000);
    assert_eq!(fleet.database().count("select count(*) from events").await, 0);
    fleet.finish().await;
}
