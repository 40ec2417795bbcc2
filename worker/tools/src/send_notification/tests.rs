#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::{Value, json};

use super::webhook::signature;
use crate::tests::{context, opened, permanent};

async fn refused(input: Value) -> String {
    permanent(opened(&[]).execute("send_notification", input, &context()).await)
}

/// Computed with another program, and shown in docs/notifications.md.
#[test]
fn a_signature_is_what_others_compute() {
    let known = "v1=8ad37ba156048ae0e0a5533c75cdf26fee88b07f93cb57ee4c80adb053012032";
    assert_eq!(signature("whsec", 1_700_000_000, r#"{"a":1}"#), known);
}

#[tokio::test]
async fn each_channel_says_what_it_wants() {
    let mail = |field: &str, value: Value| {
        let mut mail = json!({
            "channel": "email", "smtp": {"host": "localhost", "port": 1}, "from": "a@example.com", "to": "b@example.com",
            "subject": "s", "text": "t",
        });
        mail[field] = value;
        mail
    };
    for (input, words) in [
        (json!({}), "`channel` is missing"),
        (json!({"channel": "pigeon"}), "one of `webhook`, `slack`, `email`"),
        (json!({"channel": "webhook", "url": "http://x"}), "`body` is missing"),
        (json!({"channel": "webhook", "url": "ftp://x", "body": 1}), "a URL"),
        (
            json!({"channel": "webhook", "url": "http://x", "body": 1, "smtp": {"host": "x"}}),
            "does not take it",
        ),
        (json!({"channel": "slack", "url": "http://x"}), "`text` is missing"),
        (json!({"channel": "email", "from": "a@b"}), "`smtp` is missing"),
        (mail("to", json!([])), "/to"),
        (mail("to", json!("nobody")), "no address"),
        (mail("cc", json!(["a@example.com", "b c"])), "no address"),
        (mail("from", json!("Ann <ann@>")), "no address"),
        (mail("to", json!(vec!["a@example.com"; 101])), "100 recipients"),
        (
            mail("smtp", json!({"host": "h", "security": "ssl"})),
            "one of `tls`, `starttls`, `plain`",
        ),
        (mail("smtp", json!({"host": "h", "username": "u"})), "`username` and `password`"),
        (mail("smtp", json!({"host": "h", "root_certificates": "x"})), "no certificate in PEM"),
        (mail("text", json!(null)), "/text"),
        // Nothing that is not public, unless the operator opens it.
        (
            mail("smtp", json!({"host": "127.0.0.1", "security": "plain"})),
            "GATHERING_ALLOWED_HOSTS",
        ),
        (
            json!({"channel": "webhook", "url": "http://127.0.0.1:9/", "body": 1}),
            "GATHERING_ALLOWED_HOSTS",
        ),
        (
            json!({"channel": "slack", "url": "http://[::1]:9/", "text": 1}),
            "GATHERING_ALLOWED_HOSTS",
        ),
    ] {
        let message = refused(input.clone()).await;
        assert!(message.contains(words), "{input}: {message}");
    }
}
