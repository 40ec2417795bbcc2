//! What `call_api` may reach, and how it asks.

use serde_json::json;
use tests::fleet::{FleetOptions, Role, TestFleet};
use tests::http_target::{HttpTarget, Reply};
use tests::process::{binary, command};

#[tokio::test]
async fn what_is_not_public_is_reached_only_if_the_operator_has_opened_it() {
    let options =
        FleetOptions::default().with(Role::Worker, "GATHERING_ALLOWED_HOSTS", "localhost");
    let fleet = TestFleet::start(options).await;
    let (client, target) = (fleet.client(), HttpTarget::start().await);
    let url = target.url("/in");

    let closed = client.action("call_api", json!({"url": url})).await;
    let run = client.wait(&closed).await.expect("failed");
    let message = run.error["message"].as_str().expect("a message");
    assert_eq!(run.error["kind"], "permanent");
    assert!(
        message.contains("loopback") && message.contains("GATHERING_ALLOWED_HOSTS"),
        "{message}"
    );
    assert!(target.received("/in").is_empty());

    let opened =
        client.action("call_api", json!({"url": url.replace("127.0.0.1", "localhost")})).await;
    client.wait(&opened).await.expect("completed");

    // A redirect leads nowhere else.
    target.answers("/away", [Reply::status(302).header("location", url.clone())]);
    let away = target.url("/away").replace("127.0.0.1", "localhost");
    let run = client.action("call_api", json!({"url": away})).await;
    client.wait(&run).await.expect("failed");
    assert_eq!((target.received("/away").len(), target.received("/in").len()), (1, 1));
    fleet.finish().await;
}

#[tokio::test]
async fn who_asks_comes_from_a_secret() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let (client, target) = (fleet.client(), HttpTarget::start().await);
    client
        .post("/v1/secrets", &json!({"name": "TOKEN", "value": "t0k3n-of-a-test"}))
        .await
        .expect(201);
    for (auth, sent) in [
        (json!({"bearer": "{{ secrets.TOKEN }}"}), "Bearer t0k3n-of-a-test"),
        (
            json!({"username": "u", "password": "{{ secrets.TOKEN }}"}),
            "Basic dTp0MGszbi1vZi1hLXRlc3Q=",
        ),
    ] {
        let body = json!({"action": "call_api", "input": {"url": target.url("/in"), "auth": auth}});
        let run = client.action_with(body).await;
        client.wait(&run).await.expect("completed");
        let received = target.received("/in");
        assert_eq!(received.last().expect("a request").headers["authorization"], sent);
    }
    fleet.finish().await;
}

#[tokio::test]
async fn a_wrong_list_of_hosts_stops_the_start_and_says_what_is_wanted() {
    let mut worker = command(&binary("gathering-worker"));
    worker.env("DATABASE_URL", "postgres://u@h/d").env("AMQP_URL", "amqp://h");
    worker.env("GATHERING_ALLOWED_HOSTS", "db.internal,http://x");
    let output = tokio::process::Command::from(worker).output().await.expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(
        said.contains("GATHERING_ALLOWED_HOSTS") && said.contains("`http://x` is none of these"),
        "{said}"
    );
}
