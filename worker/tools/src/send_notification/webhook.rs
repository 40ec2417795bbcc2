//! `webhook`: JSON, posted and signed.
//!
//! Config: `url`, `body` (any JSON), `headers`, `secret`. With a secret the request has
//!
//! - `X-Gathering-Timestamp`: seconds since 1970, when it was sent;
//! - `X-Gathering-Signature`: `v1=` and the HMAC-SHA256 of `<timestamp>.<body>`, in hexadecimal.
//!
//! `docs/notifications.md` tells receivers how to verify it. `Idempotency-Key` is the node's, as with call_api, whose ways
//! of failing these are, too.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use ring::hmac;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::http::Http;
use crate::input::Scalar;
use crate::{Context, Outcome, call_api};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    url: String,
    body: Value,
    #[serde(default)]
    headers: BTreeMap<String, Scalar>,
    secret: Option<String>,
}

/// The signature of a body that is sent at `timestamp`.
pub(super) fn signature(secret: &str, timestamp: u64, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signed = hmac::sign(&key, format!("{timestamp}.{body}").as_bytes());
    signed.as_ref().iter().fold("v1=".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

pub(super) async fn send(http: &Http, config: Config, context: &Context) -> Outcome {
    let Config { url, body, headers, secret } = config;
    let body = body.to_string();
    let mut headers: BTreeMap<String, String> = headers
        .into_iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.into_text()))
        .collect();
    headers.entry("content-type".to_owned()).or_insert_with(|| "application/json".to_owned());
    if let Some(secret) = secret {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        headers.insert("x-gathering-timestamp".to_owned(), now.to_string());
        headers.insert("x-gathering-signature".to_owned(), signature(&secret, now, &body));
    }
    let call = json!({"method": "POST", "url": url, "headers": headers, "text": body});
    let answer = call_api::run(http, call, context).await?;
    Ok(json!({"channel": "webhook", "status": answer["status"]}))
}
