//! A fire that is due while the run before has not ended.

use tests::http_target::HttpTarget;

use super::*;

fn held(name: &str, overlap: &str, url: &str) -> Value {
    hourly(
        name,
        json!({"overlap": overlap, "start": {"action": "call_api", "input": {"url": url}}}),
    )
}

/// Lets the next fire be due, without any being missed.
async fn hour(fleet: &TestFleet, id: &str) {
    travel(fleet, id, "1 hour").await;
}

#[tokio::test]
async fn skip_lets_the_run_before_end() {
    let (fleet, target) = (fleet().await, HttpTarget::start().await);
    let (client, gate) = (fleet.client(), target.gate("/held"));
    let id = create(&client, &held("skip", "skip", &target.url("/held"))).await;
    hour(&fleet, &id).await;
    target.arrived("/held", 1).await;
    hour(&fleet, &id).await;
    let fires = outcomes_until(&client, &id, &["started", "skipped"]).await;
    assert_eq!(fires[1]["reason"], "overlap: the run before has not ended");
    gate.open();
    client.wait(&run_of(&fires[0])).await.expect("completed");
    hour(&fleet, &id).await;
    outcomes_until(&client, &id, &["completed", "skipped", "completed"]).await;
    fleet.finish().await;
}

#[tokio::test]
async fn allow_starts_beside_the_run_before() {
    let (fleet, target) = (fleet().await, HttpTarget::start().await);
    let (client, gate) = (fleet.client(), target.gate("/held"));
    let id = create(&client, &held("allow", "allow", &target.url("/held"))).await;
    for n in 1..=3 {
        hour(&fleet, &id).await;
        target.arrived("/held", n).await;
    }
    gate.open();
    outcomes_until(&client, &id, &["completed", "completed", "completed"]).await;
    fleet.finish().await;
}

#[tokio::test]
async fn queue_lets_one_wait() {
    let (fleet, target) = (fleet().await, HttpTarget::start().await);
    let (client, gate) = (fleet.client(), target.gate("/held"));
    let id = create(&client, &held("queue", "queue", &target.url("/held"))).await;
    hour(&fleet, &id).await;
    target.arrived("/held", 1).await;
    hour(&fleet, &id).await;
    outcomes_until(&client, &id, &["started", "waiting"]).await;
    hour(&fleet, &id).await;
    let fires = outcomes_until(&client, &id, &["started", "waiting", "skipped"]).await;
    assert!(
        fires[2]["reason"].as_str().is_some_and(|why| why.contains("one fire waits already")),
        "{fires:?}"
    );
    // A leader that is new finds what waits.
    let leader = fleet.leader().await;
    let mut fleet = fleet;
    fleet.kill(tests::fleet::Role::Scheduler, leader);
    gate.open();
    fleet.add(tests::fleet::Role::Scheduler, &[]);
    let fires = outcomes_until(&client, &id, &["completed", "completed", "skipped"]).await;
    assert_ne!(fires[0]["run"], fires[1]["run"]);
    let (first, second) =
        (client.run(&run_of(&fires[0])).await, client.run(&run_of(&fires[1])).await);
    assert!(
        first.finished_at < second.started_at.clone().map(Some).unwrap_or_default(),
        "{first:?} {second:?}"
    );
    fleet.finish().await;
}

#[tokio::test]
async fn cancel_previous_cancels_the_run_before() {
    let (fleet, target) = (fleet().await, HttpTarget::start().await);
    let (client, gate) = (fleet.client(), target.gate("/held"));
    let id = create(&client, &held("replace", "cancel_previous", &target.url("/held"))).await;
    hour(&fleet, &id).await;
    target.arrived("/held", 1).await;
    hour(&fleet, &id).await;
    let fires = outcomes_until(&client, &id, &["cancelled", "started"]).await;
    client.wait(&run_of(&fires[0])).await.expect("cancelled");
    gate.open();
    outcomes_until(&client, &id, &["cancelled", "completed"]).await;
    fleet.finish().await;
}
