//! Schedules as their users meet them. Where a rule depends on time that has passed, rows are moved in time.

mod control;
mod endings;
mod events;
mod exactness;
mod faults;
mod kinds;
mod lateness;
mod overlaps;

use std::time::Duration;

use serde_json::{Value, json};
use tests::client::Client;
use tests::fleet::{FleetOptions, TestFleet};
use tests::wait::{eventually, seen};

const PATIENCE: Duration = Duration::from_secs(20);

async fn fleet() -> TestFleet {
    TestFleet::start(FleetOptions::default()).await
}

/// A schedule that echoes, with members of one's own.
fn echoes(name: &str, with: Value) -> Value {
    let mut body =
        json!({"name": name, "start": {"action": "echo", "input": {"at": "{{ fire_at }}"}}});
    for (key, value) in with.as_object().expect("an object") {
        body[key] = value.clone();
    }
    body
}

/// One that is due in an hour, unless it is moved in time.
fn hourly(name: &str, with: Value) -> Value {
    let mut body = echoes(name, json!({"kind": "interval", "interval": "1h"}));
    for (key, value) in with.as_object().expect("an object") {
        body[key] = value.clone();
    }
    body
}

async fn create(client: &Client, body: &Value) -> String {
    let created = client.post("/v1/schedules", body).await.expect(201);
    created["id"].as_str().unwrap_or_else(|| panic!("no id in {created}")).to_owned()
}

async fn schedule(client: &Client, id: &str) -> Value {
    client.get(&format!("/v1/schedules/{id}")).await.expect(200)
}

/// The fires of a schedule, oldest first.
async fn fires(client: &Client, id: &str) -> Vec<Value> {
    let mut fires = client.list(&format!("/v1/schedules/{id}/fires")).await;
    fires.reverse();
    fires
}

/// Waits until a schedule's fires are as `are` wants them, and returns them, oldest first.
async fn fires_until(
    client: &Client,
    id: &str,
    what: &str,
    are: impl Fn(&[Value]) -> bool,
) -> Vec<Value> {
    eventually(PATIENCE, what, async || {
        let fires = fires(client, id).await;
        seen(are(&fires), fires)
    })
    .await
}

async fn outcomes_until(client: &Client, id: &str, outcomes: &[&str]) -> Vec<Value> {
    let what = format!("fires that are {outcomes:?}");
    fires_until(client, id, &what, |fires| {
        fires
            .iter()
            .map(|fire| fire["outcome"].as_str().unwrap_or_default())
            .eq(outcomes.iter().copied())
    })
    .await
}

async fn state_until(client: &Client, id: &str, state: &str) -> Value {
    eventually(PATIENCE, &format!("the schedule to be {state}"), async || {
        let schedule = schedule(client, id).await;
        seen(schedule["state"] == state, schedule)
    })
    .await
}

/// Moves a schedule into the past, as if so much time had gone by; a little less, so that no moment comes to lie on one
/// that has fired.
async fn travel(fleet: &TestFleet, id: &str, time: &str) {
    let time = format!("{time} -50 milliseconds");
    let moved = fleet
        .database()
        .execute(&format!(
            "update schedule_clocks set anchor_at = anchor_at - interval '{time}',
                 next_fire_at = next_fire_at - interval '{time}', due_at = due_at - interval '{time}',
                 last_fire_at = last_fire_at - interval '{time}'
             where schedule_id = '{id}'"
        ))
        .await;
    assert_eq!(moved, 1, "there is such a schedule");
}

async fn delete(client: &Client, id: &str) {
    client.delete(&format!("/v1/schedules/{id}")).await.expect(204);
}

fn run_of(fire: &Value) -> String {
    fire["run"].as_str().unwrap_or_else(|| panic!("no run in {fire}")).to_owned()
}
