//! What is said of the tool.

use common::tool::Spec;
use serde_json::{Value, json};

const DESCRIPTION: &str = "Sends a notification: `channel: webhook` posts JSON to a URL, signed when a `secret` is given; \
     `slack` posts to an incoming webhook; `email` sends a mail by SMTP. It carries the node's idempotency key.";

/// A channel, with what it needs and what it takes.
fn when(channel: &str, required: &[&str], takes: &[&str]) -> Value {
    let others = FIELDS.iter().filter(|field| !takes.contains(field));
    let refused: serde_json::Map<String, Value> = others
        .map(|field| {
            let what = format!("left out: the channel `{channel}` does not take it");
            ((*field).to_owned(), json!({"not": {}, "description": what}))
        })
        .collect();
    json!({
        "if": {"properties": {"channel": {"const": channel}}, "required": ["channel"]},
        "then": {"required": required, "properties": refused},
    })
}

/// All fields but `channel`.
const FIELDS: [&str; 14] = [
    "url", "headers", "body", "secret", "text", "blocks", "smtp", "from", "to", "cc", "bcc",
    "reply_to", "subject", "html",
];

pub(super) fn form() -> Value {
    let scalar = json!({"type": ["string", "number", "boolean"], "description": "a string, a number or a boolean"});
    let text = json!({"type": ["string", "number", "boolean"], "description": "a string"});
    let addresses = json!({
        "type": ["string", "array"], "minItems": 1, "items": {"type": "string", "description": "an address"},
        "description": "an address, or a list of addresses",
    });
    let url = json!({
        "type": "string", "pattern": "^(?i)(https?://.|.*\\{[{%])",
        "description": "a URL that begins with http:// or https://",
    });
    let secret = json!({"type": "string", "minLength": 1, "description": "a text, from `{{ secrets.NAME }}`"});
    json!({
        "type": "object",
        "required": ["channel"],
        "additionalProperties": false,
        "properties": {
            "channel": {
                "enum": ["webhook", "slack", "email"], "description": "one of `webhook`, `slack`, `email`",
            },
            "url": url,
            "headers": {"type": "object", "additionalProperties": scalar, "description": "an object of strings"},
            "body": {},
            "secret": secret,
            "text": text,
            "blocks": {"type": "array", "description": "a list of Slack's blocks"},
            "smtp": {
                "type": "object", "required": ["host"], "additionalProperties": false,
                "description": "an object of `host`, `port`, `security`, `username`, `password`, `root_certificates`",
                "properties": {
                    "host": {"type": "string", "minLength": 1, "description": "the name or address of a mail server"},
                    "port": {"type": "integer", "minimum": 1, "maximum": 65535, "description": "a port"},
                    "security": {
                        "enum": ["tls", "starttls", "plain"], "description": "one of `tls`, `starttls`, `plain`",
                    },
                    "username": {"type": "string", "description": "a string"},
                    "password": secret,
                    "root_certificates": {"type": "string", "description": "certificates in PEM"},
                },
            },
            "from": {"type": "string", "description": "an address"},
            "to": addresses, "cc": addresses, "bcc": addresses,
            "reply_to": {"type": "string", "description": "an address"},
            "subject": text,
            "html": {"type": "string", "description": "a string"},
        },
        "allOf": [
            when("webhook", &["url", "body"], &["url", "headers", "body", "secret"]),
            when("slack", &["url", "text"], &["url", "text", "blocks"]),
            when(
                "email",
                &["smtp", "from", "to", "subject"],
                &["smtp", "from", "to", "cc", "bcc", "reply_to", "subject", "text", "html"],
            ),
        ],
    })
}

pub(super) fn spec() -> Spec {
    crate::tool::spec("send_notification", DESCRIPTION, form(), None)
}
