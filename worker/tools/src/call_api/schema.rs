//! What is said of `call_api`.

use common::tool::Spec;
use serde_json::{Value, json};

use crate::tool;

const DESCRIPTION: &str = "Sends one HTTP request, and returns `{status, headers, body}`; a JSON body is parsed. Connect \
     errors, broken connections, 408, 429 and 5xx are retried, any other status that is not expected is a failure.";

pub(super) fn spec() -> Spec {
    let scalars = scalars(json!("object"));
    let duration = json!({
        "type": ["string", "null"], "pattern": "^([0-9]+(d|h|ms|m|s))+$", "description": common::duration::FORM,
    });
    let schema = json!({
        "type": "object",
        "required": ["url"],
        "additionalProperties": false,
        "properties": {
            "method": {
                "type": "string", "pattern": "^(?i)(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS|TRACE)$",
                "description": "one of GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS and TRACE",
            },
            "url": {
                "type": "string", "pattern": "^(?i)(https?://.|.*\\{[{%])",
                "description": "a URL that begins with http:// or https://",
            },
            "headers": scalars,
            "query": scalars,
            "json": {},
            "text": {"type": ["string", "number", "boolean", "null"], "description": "a string"},
            "form": self::scalars(json!(["object", "null"])),
            "auth": auth(),
            "expected_status": status(),
            "redirects": {
                "type": "integer", "minimum": 0, "maximum": 20,
                "description": "how many redirects are followed: a number from 0 to 20",
            },
            "timeout": duration,
            "connect_timeout": duration,
            "root_certificates": {
                "type": ["string", "null"], "pattern": "-----BEGIN CERTIFICATE-----|\\{[{%]",
                "description": "certificates in PEM, from -----BEGIN CERTIFICATE----- on",
            },
            "response_limit": {
                "type": "integer", "minimum": 0, "maximum": 16 << 20,
                "description": "a number of bytes up to 16777216 (16 MiB)",
            },
        },
        "allOf": [one_body("json", "text"), one_body("json", "form"), one_body("text", "form")],
    });
    tool::spec("call_api", DESCRIPTION, schema, None)
}

fn auth() -> Value {
    let text = json!({"type": ["string", "number", "boolean"], "description": "a string"});
    json!({
        "description": "`{bearer}`, or `{username, password}`",
        "properties": {"bearer": text, "username": text, "password": text},
        "additionalProperties": false,
        "oneOf": [
            {"type": "null"},
            {"type": "object", "required": ["bearer"], "not": {"anyOf": [{"required": ["username"]}, {"required": ["password"]}]}},
            {"type": "object", "required": ["username"], "not": {"required": ["bearer"]}},
        ],
    })
}

fn one_body(one: &str, other: &str) -> Value {
    json!({
        "not": {"required": [one, other]},
        "description": format!("a request with one body: keep one of `{one}`, `{other}`"),
    })
}

fn scalars(kind: Value) -> Value {
    json!({
        "type": kind,
        "description": "an object of strings, numbers, booleans or lists of these",
        "additionalProperties": {
            "type": ["string", "number", "boolean", "array"],
            "description": "a string, a number, a boolean or a list of these",
            "items": {"type": ["string", "number", "boolean"], "description": "a string, a number or a boolean"},
        },
    })
}

fn status() -> Value {
    let pattern = "^[1-9](xx|[0-9][0-9])$";
    json!({
        "type": ["integer", "string", "array"],
        "description": "a status such as 200, \"2xx\", or a list of these",
        "minimum": 100, "maximum": 999, "pattern": pattern, "minItems": 1,
        "items": {
            "type": ["integer", "string"],
            "description": "a status such as 200 or \"2xx\"",
            "minimum": 100, "maximum": 999, "pattern": pattern,
        },
    })
}
