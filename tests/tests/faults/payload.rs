//! What is too large.

use reqwest::Method;
use serde_json::json;
use tests::fleet::{FleetOptions, TestFleet};

#[tokio::test]
async fn fault_24_a_payload_over_the_limit_is_refused() {
    let entry = tests::entry!();
    let fleet = TestFleet::start(FleetOptions { schedulers: 0, ..FleetOptions::default() }).await;
    let client = fleet.client();
    let body = json!({"action": "echo", "input": {"long": "x".repeat(20 << 20)}}).to_string();
    let request =
        client.request(Method::POST, "/v1/actions").header("content-type", "application/json");
    let seen = match client.try_send(request.body(body)).await {
        Ok(answer) => {
            answer.problem(413);
            "413"
        }
        // The api may answer and close before the client has sent all of it; then the client may not see the answer.
        Err(error) => {
            assert!(error.is_request() || error.is_body(), "{error:?}");
            "refused while it was sent"
        }
    };
    assert_eq!(fleet.database().count("select count(*) from runs").await, 0);
    assert_eq!(fleet.database().count("select count(*) from outbox").await, 0);
    let id = client.action("echo", json!({})).await;
    client.wait(&id).await.expect("completed");
    fleet.finish().await;
    entry.seen(format!("{seen}; no run, no outbox row; the next action completed"));
}
