//! The secrets that a node's config names: opened for the one who uses them, and masked in what comes of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use common::secret::Mask;
use common::store;
use common::store::secrets;
use serde_json::{Map, Value};

use super::perform::Ended;
use crate::core::Worker;

/// The secrets of these names, as an object, and what hides them. They are read at each attempt, so that a new value
/// counts at once. An error is permanent.
pub(super) async fn opened(
    worker: &Arc<Worker>,
    names: &BTreeSet<String>,
) -> Result<(Option<Value>, Mask), String> {
    if names.is_empty() {
        return Ok((None, Mask::default()));
    }
    let keys = worker.secrets.as_ref().ok_or(
        "the node uses secrets, and this worker has no GATHERING_SECRETS_KEY to open them with",
    )?;
    let names: Vec<String> = names.iter().cloned().collect();
    let sealed = Box::pin(read(worker, &names))
        .await
        .map_err(|error| format!("secrets cannot be read: {error}"))?;
    let mut opened = Map::new();
    for secret in &sealed {
        opened.insert(secret.name.clone(), Value::String(keys.open(secret)?));
    }
    if let Some(missing) = names.iter().find(|name| !opened.contains_key(*name)) {
        return Err(format!("there is no secret `{missing}`; POST /v1/secrets makes one"));
    }
    let mask = Mask::new(opened.values().filter_map(Value::as_str));
    Ok((Some(Value::Object(opened)), mask))
}

/// Through outages, as outputs are read.
async fn read(worker: &Worker, names: &[String]) -> Result<Vec<secrets::Sealed>, store::Error> {
    let mut reconnect = common::retry::Reconnect::new();
    loop {
        let read = async {
            let mut conn = worker.core.pool.acquire().await?;
            secrets::sealed(&mut conn, names).await
        };
        match read.await {
            Err(error) if store::is_outage(&error) => {
                tracing::warn!(%error, "waiting for the database, to read secrets");
                tokio::time::sleep(reconnect.wait()).await;
            }
            read => return read,
        }
    }
}

/// What the node left, without its secrets.
pub(super) fn masked(result: Result<Value, Ended>, mask: &Mask) -> Result<Value, Ended> {
    if mask.is_empty() {
        return result;
    }
    match result {
        Ok(output) => Ok(mask.value(output)),
        Err(Ended::Failed(failure)) => Err(Ended::Failed(failure.masked(mask))),
        Err(Ended::Waits { waiting, after, at }) => {
            Err(Ended::Waits { waiting: mask.value(waiting), after, at })
        }
        Err(
            ended @ (Ended::Unprepared(_)
            | Ended::TimedOut
            | Ended::Stopped
            | Ended::Expired(_)
            | Ended::TimedOutWaiting(_)
            | Ended::Awaits(_)),
        ) => Err(ended),
    }
}
