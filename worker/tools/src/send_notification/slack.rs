//! `slack`: a message to an incoming webhook.
//!
//! Config: `url` (it is a secret: whoever has it can post), `text`, `blocks`. Slack answers 400, 403, 404 or 410 to what
//! will never be posted, and 429 with `Retry-After` to what comes too fast.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::http::Http;
use crate::input::Scalar;
use crate::{Context, Outcome, call_api};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    url: String,
    text: Scalar,
    blocks: Option<Vec<Value>>,
}

pub(super) async fn send(http: &Http, config: Config, context: &Context) -> Outcome {
    let mut message = json!({"text": config.text.into_text()});
    if let Some(blocks) = config.blocks {
        message["blocks"] = Value::Array(blocks);
    }
    let call = json!({"method": "POST", "url": config.url, "json": message});
    let answer = call_api::run(http, call, context).await?;
    Ok(json!({"channel": "slack", "status": answer["status"]}))
}
