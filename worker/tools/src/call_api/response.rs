//! From an answer to an output, or to a failure.

use std::time::{Duration, SystemTime};

use common::secret::Mask;
use encoding_rs::{Encoding, UTF_8};
use reqwest::header::{CONTENT_TYPE, DATE, HeaderMap, HeaderName, RETRY_AFTER, SET_COOKIE};
use reqwest::{Response, StatusCode};
use serde_json::{Map, Value, json};

use super::chain;
use crate::outcome::head;
use crate::{Failure, Outcome};

/// How much of a refusal's body a message quotes, in characters.
const QUOTED: usize = 500;
/// How long a refusal's body is waited for: its status says enough.
const PATIENCE: Duration = Duration::from_secs(5);
/// No server parks a node for longer.
const LONGEST_WAIT: Duration = Duration::from_hours(24);

pub(super) async fn output(mut response: Response, limit: u64, label: &str) -> Outcome {
    let too_long = || {
        Failure::permanent(format!(
            "{label}: the answer is longer than {limit} bytes (response_limit)"
        ))
    };
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(too_long());
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| {
        Failure::retryable(format!(
            "{label}: the answer broke off: {}",
            chain(&error.without_url())
        ))
    })? {
        if (bytes.len() + chunk.len()) as u64 > limit {
            return Err(too_long());
        }
        bytes.extend_from_slice(&chunk);
    }
    let body = body(response.headers(), &bytes).ok_or_else(|| {
        let kind = content_type(response.headers());
        Failure::permanent(format!("{label}: the answer is not text (content type `{kind}`)"))
    })?;
    Ok(json!({
        "status": response.status().as_u16(),
        "headers": headers(response.headers()),
        "body": body,
    }))
}

/// A status that is not expected: typed by what another attempt could change.
pub(super) async fn failure(mut response: Response, label: &str, mask: &Mask) -> Failure {
    let status = response.status();
    let mut bytes = Vec::new();
    let excerpt = async {
        while let Ok(Some(chunk)) = response.chunk().await {
            bytes.extend_from_slice(&chunk);
            // A character of UTF-8 has up to four bytes.
            if bytes.len() >= 4 * QUOTED {
                break;
            }
        }
    };
    // Late or broken, what came is quoted.
    let _ = tokio::time::timeout(PATIENCE, excerpt).await;
    let (text, _) =
        charset(response.headers()).unwrap_or(UTF_8).decode_without_bom_handling(&bytes);
    // Masked before it is cut: half a secret would not be found afterwards.
    let text = mask.text(&text.replace('\0', "\u{fffd}"));
    let mut message = format!("{label} answered {status}");
    if !text.trim().is_empty() {
        message = format!("{message}: {}", head(text.trim(), QUOTED));
    }
    if is_retryable(status) {
        let retry_after = retry_after(response.headers(), SystemTime::now());
        Failure::Retryable { message, retry_after }
    } else {
        Failure::permanent(message)
    }
}

fn is_retryable(status: StatusCode) -> bool {
    status.is_server_error()
        || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
}

/// Seconds, or a date: that one is measured by the server's own clock if it sent its time, else by ours.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let date = |text| httpdate::parse_http_date(text).ok();
    let wait = if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        text.parse().map_or(LONGEST_WAIT, Duration::from_secs)
    } else {
        let now = headers.get(DATE).and_then(|value| date(value.to_str().ok()?)).unwrap_or(now);
        date(text)?.duration_since(now).unwrap_or_default()
    };
    Some(wait.min(LONGEST_WAIT))
}

fn headers(headers: &HeaderMap) -> Value {
    let texts = |name: &HeaderName| -> Vec<_> {
        let values = headers.get_all(name).iter();
        values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
    };
    let entry = |name: &HeaderName| {
        let values = texts(name);
        // Cookies hold commas: RFC 9110 has them never joined.
        let value = if name == SET_COOKIE { json!(values) } else { json!(values.join(", ")) };
        (name.to_string(), value)
    };
    Value::Object(headers.keys().map(entry).collect::<Map<_, _>>())
}

fn content_type(headers: &HeaderMap) -> &str {
    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn charset(headers: &HeaderMap) -> Option<&'static Encoding> {
    content_type(headers).split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let label = value.trim().trim_matches('"');
        name.trim()
            .eq_ignore_ascii_case("charset")
            .then(|| Encoding::for_label(label.as_bytes()))?
    })
}

/// None: neither text nor UTF-8.
fn body(headers: &HeaderMap, bytes: &[u8]) -> Option<Value> {
    if bytes.is_empty() {
        return Some(Value::Null);
    }
    let kind = content_type(headers).split(';').next().unwrap_or_default();
    let kind = kind.trim().to_ascii_lowercase();
    let charset = charset(headers);
    let (text, _, malformed) = charset.unwrap_or(UTF_8).decode(bytes);
    let is_text = charset.is_some() || kind.starts_with("text/");
    if malformed && !is_text {
        return None;
    }
    let is_json = kind == "application/json" || kind.ends_with("+json");
    if is_json && let Ok(value) = serde_json::from_str(&text) {
        return Some(value);
    }
    Some(Value::String(text.into_owned()))
}
