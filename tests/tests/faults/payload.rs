//! What is too large.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tests::fleet::{FleetOptions, Role, SECRET, TestFleet};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

#[tokio::test]
async fn fault_24_a_payload_over_the_limit_is_refused() {
    let entry = tests::entry!();
    let fleet = TestFleet::start(FleetOptions { schedulers: 0, ..FleetOptions::default() }).await;
    let client = fleet.client();
    // As a client that asks before it sends: over HTTP by hand, so that no byte of the body is on its way when the
    // answer comes.
    let address = fleet.url(Role::Api, 0).replace("http://", "");
    let token = tests::client::token(SECRET, "test", "admin", Duration::from_secs(60));
    let request = format!(
        "POST /v1/actions HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        20 << 20
    );
    let mut stream = TcpStream::connect(&address).await.expect("the api takes connections");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = [0; 12];
    timeout(Duration::from_secs(10), stream.read_exact(&mut answer))
        .await
        .expect("an answer")
        .expect("read");
    assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 413");
    // And as one that does not: it may not see the answer, since the api closes before it has sent all.
    let body = json!({"action": "echo", "input": {"long": "x".repeat(20 << 20)}}).to_string();
    let request =
        client.request(Method::POST, "/v1/actions").header("content-type", "application/json");
    match client.try_send(request.body(body)).await {
        Ok(answer) => drop(answer.problem(413)),
        Err(error) => assert!(error.is_request() || error.is_body(), "{error:?}"),
    }
    assert_eq!(fleet.database().count("select count(*) from runs").await, 0);
    assert_eq!(fleet.database().count("select count(*) from outbox").await, 0);
    let id = client.action("echo", json!({})).await;
    client.wait(&id).await.expect("completed");
    fleet.finish().await;
    entry.seen("413; no run, no outbox row; the next action completed");
}
