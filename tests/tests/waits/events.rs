use std::time::Duration;

use tests::client::Client;
use tests::wait::eventually;

use super::*;
use crate::definitions::*;

fn waits(name: &str, config: Value) -> Value {
    let nodes =
        [awaits("hear", config), echo("after", json!({"heard": "{{ nodes.hear.output }}"}))];
    pipeline(name, nodes, [edge("hear", "after")])
}

async fn tell(client: &Client, event_type: &str, data: Value) -> String {
    let told = client.post("/v1/events", &json!({"type": event_type, "data": data})).await;
    told.expect(202)["id"].as_str().expect("an id").to_owned()
}

/// Until all events so far are dealt with.
async fn heard(fleet: &TestFleet) {
    eventually(Duration::from_secs(30), "the events to be dealt with", async || {
        let left: i64 = fleet.database().count("select count(*) from events").await;
        if left == 0 { Ok(()) } else { Err(left) }
    })
    .await;
}

#[tokio::test]
async fn r13_the_first_event_that_is_meant_ends_the_wait() {
    let fleet = TestFleet::start(FleetOptions { concurrency: 1, ..FleetOptions::default() }).await;
    let client = fleet.client();
    let config = json!({
        "type": "order.*", "match": {"id": "{{ input.id }}"}, "condition": "event.data.total > 5",
    });
    client.create_pipeline(&waits("order", config)).await;
    // What comes before the node begins to wait does not count.
    tell(&client, "order.paid", json!({"id": 7, "total": 9})).await;
    heard(&fleet).await;
    let run = client.submit("order", json!({"id": 7})).await;
    let shown = client.wait_for_node(&run, "hear", "waiting").await.node("hear").waiting.clone();
    assert_eq!((&shown["for"], &shown["type"]), (&json!("event"), &json!("order.*")));
    for (event_type, data) in [
        ("order", json!({"id": 7, "total": 9})),
        ("order.paid", json!({"id": 8, "total": 9})),
        ("order.paid", json!({"id": 7, "total": 5})),
        ("order.paid", json!({"id": 7})),
    ] {
        tell(&client, event_type, data).await;
    }
    heard(&fleet).await;
    let waiting = client.run(&run).await.node("hear").clone();
    assert_eq!(waiting.state, "waiting");
    let note = waiting.waiting["note"].as_str().unwrap_or_default();
    assert!(note.contains("total"), "why one could not be judged: {waiting:?}");

    let meant = tell(&client, "order.shipped", json!({"id": 7, "total": 6})).await;
    let ended = client.wait(&run).await.expect("completed");
    let output = &ended.output["heard"];
    assert_eq!((&output["id"], &output["type"]), (&json!(meant), &json!("order.shipped")));
    assert_eq!(output["data"], json!({"id": 7, "total": 6}));
    fleet.finish().await;
}

#[tokio::test]
async fn without_an_event_it_fails_or_goes_on_with_null() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    let config = json!({"type": "never", "timeout": "100ms"});
    let run = client.run_pipeline(waits("fails", config.clone()), json!({})).await.expect("failed");
    assert_eq!(run.error["kind"], "timed_out");
    assert_eq!(run.error["message"], "no event `never` has come in time");
    let config = with(config, "on_timeout", json!("continue"));
    let run = client.run_pipeline(waits("goes-on", config), json!({})).await.expect("completed");
    assert_eq!(run.output, json!({"heard": null}));

    let id = client.submit("fails", json!({})).await;
    client.cancel(&id).await;
    client.wait(&id).await;
    fleet.finish().await;
}

#[tokio::test]
async fn the_end_of_another_run_is_an_event_too() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    client.create_pipeline(&chain("other", 1)).await;
    client.create_pipeline(&pipeline("breaks", [failing("x")], [])).await;
    let config = json!({"type": "run.*", "condition": "event.data.run.pipeline == 'breaks'"});
    client.create_pipeline(&waits("watches", config)).await;
    let run = client.submit("watches", json!({})).await;
    client.wait_for_node(&run, "hear", "waiting").await;
    let other = client.submit("other", json!({})).await;
    client.wait(&other).await.expect("completed");
    let breaks = client.submit("breaks", json!({})).await;
    let ended = client.wait(&run).await.expect("completed");
    assert_eq!(ended.output["heard"]["type"], "run.failed");
    assert_eq!(ended.output["heard"]["data"]["run"]["id"], json!(breaks));
    fleet.finish().await;
}

/// One event for very many, which takes the leader more than one transaction; it dies after the first.
#[tokio::test]
async fn an_event_reaches_all_who_wait_whoever_dies_on_the_way() {
    let options = FleetOptions { schedulers: 0, ..FleetOptions::default() };
    let mut fleet = TestFleet::start(options).await;
    let client = fleet.client();
    let armed = fleet.add(Role::Scheduler, &[("GATHERING_TEST_STOP_AFTER", "event:1")]);
    let nodes = (0..700).map(|n| awaits(&format!("n{n}"), json!({"type": "go"})));
    client.create_pipeline(&pipeline("many", nodes, [])).await;
    let run = client.submit("many", json!({})).await;
    eventually(Duration::from_secs(60), "all to wait", async || {
        let waiting: i64 =
            fleet.database().count("select count(*) from waits where listens is not null").await;
        if waiting == 700 { Ok(()) } else { Err(waiting) }
    })
    .await;
    tell(&client, "go", json!({})).await;
    eventually(Duration::from_secs(30), "the leader to stop", async || {
        fleet.process(Role::Scheduler, armed).ended().ok_or("it leads")
    })
    .await;
    fleet.kill(Role::Scheduler, armed);
    assert!(!client.run(&run).await.is_over());
    fleet.kill(Role::Worker, 0);
    fleet.add(Role::Worker, &[]);
    fleet.add(Role::Scheduler, &[]);
    client.wait_for(&run, Duration::from_secs(90)).await.expect("completed");
    fleet.finish().await;
}
