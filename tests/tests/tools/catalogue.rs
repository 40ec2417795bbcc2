//! Which tools there are, and where.

use std::time::Duration;

use serde_json::{Value, json};
use tests::fleet::{FleetOptions, Role, TestFleet};
use tests::wait::{eventually, seen};

const PATIENCE: Duration = Duration::from_secs(20);

async fn tool(fleet: &TestFleet, name: &str) -> Value {
    let tools = fleet.client().get("/v1/tools").await.expect(200);
    let found = tools["items"].as_array().expect("a list").iter().find(|tool| tool["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {tools}")).clone()
}

fn places(tool: &Value) -> (bool, u64, Value) {
    let workers = tool["workers"].as_u64().expect("a number");
    (tool["enabled"] == true, workers, tool["lanes"].clone())
}

#[tokio::test]
async fn the_list_is_true_for_the_fleet() {
    let options = FleetOptions { workers: 0, ..FleetOptions::default() };
    let mut fleet = TestFleet::start(options).await;
    assert_eq!(places(&tool(&fleet, "echo").await), (false, 0, json!([])));

    fleet.add(Role::Worker, &[("GATHERING_COMMANDS", ""), ("GATHERING_LANES", "default,bare")]);
    let able =
        fleet.add(Role::Worker, &[("GATHERING_COMMANDS", "true"), ("GATHERING_LANES", "gpu")]);
    fleet.ready().await;
    assert_eq!(places(&tool(&fleet, "echo").await), (true, 2, json!(["bare", "default", "gpu"])));
    let command = tool(&fleet, "run_command").await;
    assert_eq!(places(&command), (true, 1, json!(["gpu"])));
    assert_eq!(command["needs"]["setting"], "GATHERING_COMMANDS");
    assert_eq!(command["schema"]["required"], json!(["argv"]));

    fleet.kill(Role::Worker, able);
    eventually(PATIENCE, "the dead worker's tools to go", async || {
        let places = places(&tool(&fleet, "run_command").await);
        seen(!places.0 && places.1 == 0, places)
    })
    .await;
    fleet.finish().await;
}

#[tokio::test]
async fn what_templates_came_to_is_checked_again_where_it_is_executed() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    let definition = json!({"name": "late", "nodes": [
        {"id": "call", "type": "action", "config": {"action": "call_api", "url": "{{ input.url }}", "headers": "{{ input.headers }}"}},
    ]});
    client.create_pipeline(&definition).await;
    let run = client.submit("late", json!({"url": "ftp://x", "headers": {"a": {}}})).await;
    let run = client.wait(&run).await.expect("failed");
    let error = &run.node("call").error;
    assert_eq!(error["kind"], "permanent");
    let message = error["message"].as_str().expect("a message");
    for part in [
        "/url: must be a URL that begins with http:// or https://, and is `ftp://x`",
        "/headers/a: must be",
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(run.node("call").attempt, 1, "it would end the same way");
    fleet.finish().await;
}
