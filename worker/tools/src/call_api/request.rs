//! From a node's config to a request.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, Request, Url};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::expected::Expected;
use crate::http::Manner;
use crate::input::{Scalar, Scalars};
use crate::{Context, Failure};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    #[serde(default = "get")]
    method: String,
    url: String,
    #[serde(default)]
    headers: BTreeMap<String, Scalars>,
    #[serde(default)]
    query: BTreeMap<String, Scalars>,
    #[serde(default, deserialize_with = "given")]
    json: Option<Value>,
    text: Option<Scalar>,
    form: Option<BTreeMap<String, Scalars>>,
    auth: Option<Auth>,
    #[serde(default = "ten")]
    pub(super) redirects: usize,
    #[serde(default, with = "common::duration::option")]
    pub(super) timeout: Option<Duration>,
    #[serde(default, with = "common::duration::option")]
    connect_timeout: Option<Duration>,
    root_certificates: Option<String>,
    #[serde(default)]
    pub(super) expected_status: Expected,
    #[serde(default = "default_limit", deserialize_with = "limit")]
    pub(super) response_limit: u64,
}

/// Who asks.
#[derive(Debug, Deserialize)]
#[serde(untagged, deny_unknown_fields, expecting = "expected `{bearer}` or `{username, password}`")]
enum Auth {
    Bearer { bearer: Scalar },
    Basic { username: Scalar, password: Option<Scalar> },
}

impl Config {
    pub(super) fn manner(&self) -> Manner {
        Manner { connect_timeout: self.connect_timeout, roots: self.root_certificates.clone() }
    }
}

const MIB: u64 = 1 << 20;

fn ten() -> usize {
    10
}

fn get() -> String {
    "GET".to_owned()
}

fn default_limit() -> u64 {
    MIB
}

/// `json: null` is a body, not the lack of one.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

fn limit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let limit = u64::deserialize(deserializer)?;
    let most = 16 * MIB;
    if limit > most {
        return Err(serde::de::Error::custom(format!("at most {most} bytes (16 MiB)")));
    }
    Ok(limit)
}

/// Set by the client itself. A caller's own value would break the message's frame.
const FRAMING: [&str; 8] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

pub(super) fn build(
    client: &Client,
    config: Config,
    context: &Context,
) -> Result<Request, Failure> {
    let bodies = [config.json.is_some(), config.text.is_some(), config.form.is_some()];
    if bodies.into_iter().filter(|given| *given).count() > 1 {
        return Err(Failure::permanent("call_api takes one of `json`, `text` and `form`"));
    }
    let method = method(&config.method)?;
    let url = url(&config.url, config.query)?;
    let mut headers = headers(config.headers)?;
    complete(&mut headers, context);
    if config.text.is_some() && !headers.contains_key(CONTENT_TYPE) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    }

    if config.auth.is_some() && headers.contains_key(AUTHORIZATION) {
        return Err(Failure::permanent(
            "`auth` sets the header Authorization: keep one of the two",
        ));
    }
    let mut builder = client.request(method, url).headers(headers);
    // Both mark the header as sensitive.
    builder = match config.auth {
        Some(Auth::Bearer { bearer }) => builder.bearer_auth(bearer.into_text()),
        Some(Auth::Basic { username, password }) => {
            builder.basic_auth(username.into_text(), password.map(Scalar::into_text))
        }
        None => builder,
    };
    if let Some(json) = config.json {
        builder = builder.json(&json);
    } else if let Some(text) = config.text {
        builder = builder.body(text.into_text());
    } else if let Some(form) = config.form {
        builder = builder.form(&pairs(form));
    }
    builder.build().map_err(|error| {
        Failure::permanent(format!("the request cannot be sent: {}", error.without_url()))
    })
}

fn method(name: &str) -> Result<Method, Failure> {
    let method = Method::from_bytes(name.to_ascii_uppercase().as_bytes()).ok();
    method
        .filter(|method| method != Method::CONNECT)
        .ok_or_else(|| Failure::permanent(format!("`{name}` is no method for call_api")))
}

fn url(text: &str, query: BTreeMap<String, Scalars>) -> Result<Url, Failure> {
    let mut url = Url::parse(text)
        .map_err(|error| Failure::permanent(format!("`url` of call_api is no URL: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Failure::permanent("`url` of call_api must begin with http:// or https://"));
    }
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(pairs(query));
    }
    Ok(url)
}

fn pairs(map: BTreeMap<String, Scalars>) -> Vec<(String, String)> {
    map.into_iter()
        .flat_map(|(key, values)| {
            values.into_texts().into_iter().map(move |value| (key.clone(), value))
        })
        .collect()
}

fn headers(given: BTreeMap<String, Scalars>) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    for (name, values) in given {
        let key = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| Failure::permanent(format!("`{name}` is no name of a header")))?;
        if FRAMING.contains(&key.as_str()) {
            return Err(Failure::permanent(format!(
                "the header `{name}` is set by call_api itself"
            )));
        }
        for value in values.into_texts() {
            let value = HeaderValue::from_str(&value).map_err(|_| {
                Failure::permanent(format!("the value of header `{name}` has a control character"))
            })?;
            headers.append(&key, value);
        }
    }
    Ok(headers)
}

/// What every request carries, unless the caller has set it.
fn complete(headers: &mut HeaderMap, context: &Context) {
    let key = Some(context.idempotency_key.as_str());
    for (name, value) in [("idempotency-key", key), ("traceparent", context.traceparent.as_deref())]
    {
        // What is no header (a foreign trace context, say) is left out: it must not fail the node.
        if let Some(value) = value.and_then(|text| HeaderValue::from_str(text).ok())
            && !headers.contains_key(name)
        {
            headers.insert(name, value);
        }
    }
}
