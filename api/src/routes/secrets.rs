//! Secrets: values go in, and never come out here.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use common::secret::{Keys, LENGTHS, is_name};
use common::store::secrets::{self, Shown};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::app::App;
use crate::audit::{Kind as Event, Trail};
use crate::auth::Caller;
use crate::error::{ApiError, Kind, Problem};
use crate::extract::{JsonBody, Name, Nothing};
use crate::fields::Fields;
use crate::page::{Page, Parameters};
use crate::view::Stamp;

/// What is shown of a secret: never its value.
#[derive(Serialize, ToSchema)]
pub(super) struct SecretView {
    name: String,
    created_by: String,
    created_at: Stamp,
    /// When it was last given a value.
    updated_at: Stamp,
}

impl From<Shown> for SecretView {
    fn from(shown: Shown) -> Self {
        Self {
            name: shown.name,
            created_by: shown.created_by,
            created_at: Stamp(shown.created_at),
            updated_at: Stamp(shown.updated_at),
        }
    }
}

fn keys(app: &App) -> Result<&Keys, ApiError> {
    app.secrets.as_ref().ok_or_else(|| {
        let detail =
            "There are no secrets here: the api has no GATHERING_SECRETS_KEY to seal them with.";
        ApiError::new(Kind::Unavailable, detail)
    })
}

/// Keep a secret
///
/// Nodes use it as `{{ secrets.NAME }}` in their configs. Under a name that is taken, the new value takes the place of
/// the old one, for all attempts that begin from then on.
#[utoipa::path(post, path = "/v1/secrets", tag = "secrets",
    request_body(content = super::openapi::SecretRequest),
    responses((status = 201, body = SecretView), (status = 200, body = SecretView), (status = 422, body = Problem),
        (status = 503, body = Problem)))]
pub(super) async fn put(
    State(app): State<App>,
    caller: Caller,
    trail: Trail,
    body: JsonBody,
) -> Result<(StatusCode, Json<SecretView>), ApiError> {
    let mut fields = Fields::of(body.value, "");
    let (name, value) = (fields.string("name"), fields.string("value"));
    if !name.as_deref().is_some_and(is_name) {
        fields.fault("name", "must be 1 to 64 letters, digits and `_`, and not begin with a digit");
    }
    if !value.as_deref().is_some_and(|value| LENGTHS.contains(&value.len())) {
        let (least, most) = (LENGTHS.start(), LENGTHS.end());
        fields.fault("value", format!("must be a text of {least} to {most} bytes"));
    }
    let (name, value) = fields.finish((name, value)).map_err(ApiError::pointed)?;
    let sealed = keys(&app)?
        .seal(&name.unwrap_or_default(), &value.unwrap_or_default())
        .map_err(ApiError::internal)?;
    let mut conn = app.pool.acquire().await?;
    let (is_new, shown) = secrets::put(&mut conn, &sealed, &caller.sub).await?;
    trail.record(Event::SecretSet, &shown.name, json!({"new": is_new}));
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(SecretView::from(shown))))
}

/// List the names of secrets
#[utoipa::path(get, path = "/v1/secrets", tag = "secrets",
    params(
        ("limit" = Option<i64>, Query, description = "1 to 200, usually 50"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, body = Page<SecretView>), (status = 422, body = Problem)))]
pub(super) async fn list(
    State(app): State<App>,
    mut query: Parameters,
) -> Result<Json<Page<SecretView>>, ApiError> {
    let after = query.cursor(|key| Some(key.to_owned())).unwrap_or_default();
    let limit = query.limit();
    query.finish(())?;
    let mut conn = app.pool.acquire().await?;
    let rows = secrets::list(&mut conn, &after, limit + 1).await?;
    Ok(Json(Page::new(rows, limit, |secret| secret.name.clone(), SecretView::from)))
}

/// Forget a secret
#[utoipa::path(delete, path = "/v1/secrets/{name}", tag = "secrets", params(("name" = String, Path)),
    responses((status = 204), (status = 404, body = Problem)))]
pub(super) async fn delete(
    State(app): State<App>,
    trail: Trail,
    Name(name): Name,
    _: Nothing,
) -> Result<StatusCode, ApiError> {
    let mut conn = app.pool.acquire().await?;
    if !is_name(&name) || !secrets::delete(&mut conn, &name).await? {
        return Err(ApiError::new(Kind::Unknown, "There is no secret of this name."));
    }
    trail.record(Event::SecretDeleted, &name, json!({}));
    Ok(StatusCode::NO_CONTENT)
}
