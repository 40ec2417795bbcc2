//! `send_notification`, to real servers.

use serde_json::{Value, json};
use tests::client::{Client, Run};
use tests::fleet::{FleetOptions, TestFleet};
use tests::http_target::{HttpTarget, Reply};
use tests::smtp::{Security, SmtpServer};

use crate::definitions::*;

async fn secret(client: &Client, name: &str, value: &str) {
    client.post("/v1/secrets", &json!({"name": name, "value": value})).await.expect(201);
}

/// Runs one node that notifies.
async fn notify(client: &Client, name: &str, config: Value) -> Run {
    let node = with(action("n", "send_notification", config), "retry", quick_retry(3));
    client.run_pipeline(pipeline(name, [node], []), json!({})).await
}

/// A mail by this server, which the client signs in at.
fn mail(server: &SmtpServer, security: &str) -> Value {
    json!({
        "channel": "email",
        "smtp": {
            "host": "localhost", "port": server.port(), "security": security, "username": "gathering",
            "password": "{{ secrets.SMTP }}", "root_certificates": server.certificate(),
        },
        "from": "GatheRing <gathering@example.com>", "to": ["ann@example.com", "Bob <bob@example.com>"],
        "cc": "carl@example.com", "bcc": ["dora@example.com"], "reply_to": "nobody@example.com",
        "subject": "Größe: {{ 6 * 7 }}", "text": "It is so.\n.\nReally.", "html": "<p>It is so.</p>",
    })
}

const PASSWORD: &str = "correct-horse-battery";

async fn with_password() -> (TestFleet, Client) {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    secret(&client, "SMTP", PASSWORD).await;
    (fleet, client)
}

#[tokio::test]
async fn a_webhook_is_signed_and_tried_again() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let (client, target) = (fleet.client(), HttpTarget::start().await);
    secret(&client, "HOOK", "whsec-0123456789").await;
    target.answers("/hook", [Reply::status(503), Reply::status(200)]);
    let config = json!({
        "channel": "webhook", "url": target.url("/hook"), "body": {"run": "{{ run.id }}", "ok": true},
        "headers": {"X-Mine": "1"}, "secret": "{{ secrets.HOOK }}",
    });
    let run = notify(&client, "p", config).await.expect("completed");
    assert_eq!(run.output, json!({"channel": "webhook", "status": 200}));
    let received = target.received("/hook");
    assert_eq!(received.len(), 2);
    let keys: Vec<_> = received.iter().map(|it| it.headers["idempotency-key"].clone()).collect();
    assert_eq!(keys, vec![format!("{}/n", run.id); 2]);
    let last = &received[1];
    assert_eq!(last.headers["content-type"], "application/json");
    assert_eq!(last.headers["x-mine"], "1");
    let body: Value = serde_json::from_str(&last.body).expect("JSON");
    assert_eq!(body, json!({"run": run.id, "ok": true}));
    // As docs/notifications.md tells receivers to.
    let timestamp = last.headers["x-gathering-timestamp"].to_str().expect("digits");
    let signed = format!("{timestamp}.{}", last.body);
    let expected = format!("v1={}", hmac_sha256(b"whsec-0123456789", signed.as_bytes()));
    assert_eq!(last.headers["x-gathering-signature"], expected.as_str());

    target.answers("/gone", [Reply::status(410)]);
    let gone = json!({"channel": "webhook", "url": target.url("/gone"), "body": 1});
    let run = notify(&client, "q", gone).await;
    assert_eq!((run.state.as_str(), run.node("n").attempt), ("failed", 1));
    let unsigned = &target.received("/gone")[0];
    assert!(!unsigned.headers.contains_key("x-gathering-signature"));
    fleet.finish().await;
}

/// HMAC as RFC 2104 defines it: not the code that signs.
fn hmac_sha256(key: &[u8], text: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    let mut block = [0u8; 64];
    block[..key.len()].copy_from_slice(key);
    let pad = |with: u8| block.map(|byte| byte ^ with);
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(text).finalize();
    let outer = Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize();
    outer.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn slack_gets_its_own_form() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let (client, target) = (fleet.client(), HttpTarget::start().await);
    target.answers(
        "/services/T/B/x",
        [Reply::status(429).header("retry-after", "1"), Reply::status(200).body("ok")],
    );
    let blocks = json!([{"type": "divider"}]);
    let config = json!({
        "channel": "slack", "url": target.url("/services/T/B/x"), "text": "done: {{ run.pipeline }}", "blocks": blocks,
    });
    let run = notify(&client, "nightly", config).await.expect("completed");
    assert_eq!(run.output, json!({"channel": "slack", "status": 200}));
    let received = target.received("/services/T/B/x");
    let body: Value = serde_json::from_str(&received[1].body).expect("JSON");
    assert_eq!(body, json!({"text": "done: nightly", "blocks": blocks}));
    target.answers("/services/gone", [Reply::status(404).body("no_service")]);
    let gone = json!({"channel": "slack", "url": target.url("/services/gone"), "text": "x"});
    let run = notify(&client, "gone", gone).await;
    assert_eq!((run.state.as_str(), run.node("n").attempt), ("failed", 1));
    fleet.finish().await;
}

#[tokio::test]
async fn a_mail_goes_out_encrypted_and_signed_in() {
    let (fleet, client) = with_password().await;
    for (name, security, asked) in [
        ("starttls", Security::Starttls, "starttls"),
        ("tls", Security::Tls, "tls"),
        ("plain", Security::Plain, "plain"),
    ] {
        let server = SmtpServer::start(security, Some(("gathering", PASSWORD))).await;
        let run = notify(&client, name, mail(&server, asked)).await.expect("completed");
        let mails = server.mails();
        let [mail] = mails.as_slice() else { panic!("one mail: {mails:?}") };
        assert_eq!((mail.encrypted, mail.user.as_deref()), (name != "plain", Some("gathering")));
        assert_eq!(mail.from, "gathering@example.com");
        assert_eq!(
            mail.to,
            ["ann@example.com", "bob@example.com", "carl@example.com", "dora@example.com"]
        );
        assert_eq!(mail.header("message-id"), run.output["message_id"].as_str().map(str::to_owned));
        assert_eq!(run.output["recipients"], 4);
        assert!(mail.header("bcc").is_none() && !mail.text.contains("dora"), "{}", mail.text);
        assert_eq!(mail.header("reply-to").as_deref(), Some("nobody@example.com"));
        assert!(mail.header("date").is_some() && mail.header("subject").is_some());
        assert!(
            mail.text.contains("<p>It is so.</p>") && mail.text.contains("Really."),
            "{}",
            mail.text
        );
    }
    fleet.finish().await;
}

#[tokio::test]
async fn what_passes_is_tried_again_and_is_the_same_mail() {
    let (fleet, client) = with_password().await;
    let server = SmtpServer::start(Security::Starttls, Some(("gathering", PASSWORD))).await;
    // Not now; then the mail is taken, and the answer is lost.
    server.answers("RCPT", ["451 4.7.1 greylisted"]);
    server.answers(".", [""]);
    let run = notify(&client, "p", mail(&server, "starttls")).await.expect("completed");
    assert_eq!(run.node("n").attempt, 3);
    let ids: Vec<_> = server.mails().iter().map(|mail| mail.header("message-id")).collect();
    assert_eq!(ids.len(), 2, "taken twice");
    assert!(ids[0].is_some() && ids[0] == ids[1], "{ids:?}");
    fleet.finish().await;
}

#[tokio::test]
async fn r14_what_does_not_pass_fails_at_once_and_shows_no_secret() {
    let (fleet, client) = with_password().await;
    let server = SmtpServer::start(Security::Starttls, Some(("gathering", "another one"))).await;
    let plain = SmtpServer::start(Security::Plain, None).await;
    let mut untrusted = mail(&server, "starttls");
    untrusted["smtp"].as_object_mut().expect("an object").remove("root_certificates");
    let open = SmtpServer::start(Security::Starttls, Some(("gathering", PASSWORD))).await;
    open.answers("RCPT", ["550 5.1.1 no such user"]);
    for (name, config, words) in [
        ("password", mail(&server, "starttls"), "535"),
        ("certificate", untrusted, "certificate"),
        ("downgrade", mail(&plain, "starttls"), "STARTTLS"),
        ("recipient", mail(&open, "starttls"), "no such user"),
    ] {
        let run = notify(&client, name, config).await;
        assert_eq!((run.state.as_str(), run.node("n").attempt), ("failed", 1), "{name}: {run:#?}");
        let error = run.node("n").error.to_string();
        assert!(error.contains(words) && error.contains("permanent"), "{name}: {error}");
        assert!(!error.contains(PASSWORD), "{error}");
    }
    assert!(server.mails().is_empty() && plain.mails().is_empty() && open.mails().is_empty());
    // Nobody listens there: that may pass.
    let port = server.port();
    drop(server);
    let mut away = mail(&plain, "plain");
    away["smtp"]["port"] = json!(port);
    let run = notify(&client, "away", away).await;
    assert_eq!((run.state.as_str(), run.node("n").attempt), ("failed", 3));
    let plain_password = base64_of(&format!("\0gathering\0{PASSWORD}"));
    let logs = fleet.logs();
    assert!(!logs.contains(PASSWORD) && !logs.contains(&plain_password));
    fleet.finish().await;
}

fn base64_of(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}
