//! Requests that are answered once, whatever their `Idempotency-Key` is sent with again: what they do, and their answer,
//! are one transaction.

use axum::http::{HeaderValue, header};
use common::outbox::Row;
use common::store::Transaction;
use common::store::idempotency::{self, NewKey};
use futures::future::BoxFuture;
use serde_json::json;

use crate::accept::Reply;
use crate::app::App;
use crate::error::{ApiError, Kind};

/// What a request has done, and is to be told once it is committed.
pub(crate) struct Work {
    pub(crate) reply: Reply,
    /// Outbox rows to publish.
    pub(crate) rows: Vec<Row>,
}

/// Does what is asked, unless it was done under the same key before.
pub(crate) async fn once(
    app: &App,
    key: Option<NewKey>,
    work: impl for<'t> FnOnce(&'t mut Transaction) -> BoxFuture<'t, Result<Work, ApiError>> + Send,
) -> Result<Reply, ApiError> {
    let Some(mut key) = key else {
        let mut tx = app.pool.begin().await?;
        let Work { reply, rows } = work(&mut tx).await?;
        tx.commit().await?;
        app.outbox.publish(rows);
        return Ok(reply);
    };
    let mut tx = app.pool.begin_with(idempotency::BEGIN).await?;
    if let Some(reply) = given(&mut tx, &key).await? {
        return Ok(reply);
    }
    let Work { reply, rows } = work(&mut tx).await?;
    key.answer = json!(reply);
    let claimed = idempotency::claim(&mut tx, &[&key]).await.map_err(|error| {
        let error = ApiError::from(error);
        match error.kind {
            Kind::Conflict => in_flight(),
            _ => error,
        }
    })?;
    if claimed.is_empty() {
        // Another was quicker; what this one has done is undone.
        tx.rollback().await?;
        let mut tx = app.pool.begin().await?;
        return given(&mut tx, &key).await?.ok_or_else(in_flight);
    }
    tx.commit().await?;
    app.outbox.publish(rows);
    Ok(reply)
}

/// What was answered under the key before.
async fn given(tx: &mut Transaction, key: &NewKey) -> Result<Option<Reply>, ApiError> {
    let Some(given) = idempotency::given(tx, std::iter::once(key)).await?.pop() else {
        return Ok(None);
    };
    if given.body_hash != key.body_hash {
        let detail = "This Idempotency-Key was sent before with another body; take a new one for another request.";
        return Err(ApiError::new(Kind::KeyReused, detail));
    }
    let stored = |error| ApiError::internal(format!("a stored answer: {error}"));
    serde_json::from_value(given.answer).map(Some).map_err(stored)
}

fn in_flight() -> ApiError {
    let detail = "A request with this Idempotency-Key is still under way; try again.";
    ApiError::new(Kind::InFlight, detail)
        .with_header(header::RETRY_AFTER, HeaderValue::from_static("1"))
}
