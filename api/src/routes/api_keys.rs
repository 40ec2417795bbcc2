//! Keys of programs.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use common::access::Role;
use common::store::api_keys::{self, ApiKey, NewKey};
use common::store::users;
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::app::App;
use crate::audit::{Kind as Event, Trail};
use crate::auth::api_key::{ApiKeyText, generate};
use crate::auth::{By, Caller};
use crate::error::{ApiError, Kind, Problem};
use crate::extract::{Id, JsonBody, Nothing};
use crate::fields::Fields;
use crate::page::{Page, Parameters};
use crate::view::Stamp;

/// A key, without what proves it.
#[derive(Serialize, ToSchema)]
pub(super) struct KeyView {
    id: Uuid,
    /// It begins with `gtr_<prefix>_`; records call it `key:<prefix>`.
    prefix: String,
    name: String,
    owner: Uuid,
    /// What it may do, as long as its owner may.
    #[schema(value_type = String)]
    role: Role,
    expires_at: Option<Stamp>,
    /// To half a minute.
    last_used_at: Option<Stamp>,
    revoked_at: Option<Stamp>,
    created_at: Stamp,
}

impl From<ApiKey> for KeyView {
    fn from(key: ApiKey) -> Self {
        Self {
            id: key.id,
            prefix: key.prefix,
            name: key.name,
            owner: key.owner,
            role: key.role,
            expires_at: key.expires_at.map(Stamp),
            last_used_at: key.last_used_at.map(Stamp),
            revoked_at: key.revoked_at.map(Stamp),
            created_at: Stamp(key.created_at),
        }
    }
}

/// A key that was just made.
#[derive(Serialize, ToSchema)]
pub(super) struct NewKeyView {
    /// The key itself. It is not shown again.
    key: String,
    #[serde(flatten)]
    view: KeyView,
}

/// Keys are made and revoked by people: a program that loses its key cannot make itself another one.
fn not_by_key(caller: &Caller) -> Result<(), ApiError> {
    let By::Key { .. } = &caller.by else { return Ok(()) };
    let detail = "An API key can neither make nor revoke keys; sign in for that.";
    Err(ApiError::new(Kind::NotAllowed, detail))
}

/// What is read of a body.
struct Wanted {
    name: String,
    role: Option<Role>,
    expires_in: Option<Duration>,
    owner: Option<Uuid>,
}

fn wanted(body: serde_json::Value) -> Result<Wanted, ApiError> {
    let mut fields = Fields::of(body, "");
    let name = fields.label("name");
    if name.is_none() {
        fields.missing("name");
    }
    let role = fields.role("role");
    let expires_in = fields.duration("expires_in");
    if expires_in.is_some_and(|time| time.is_zero()) {
        fields.fault("expires_in", "must be longer than nothing");
    }
    let owner = fields.string("owner");
    let id = owner.as_deref().and_then(|text| Uuid::try_parse(text).ok());
    if owner.is_some() && id.is_none() {
        fields.fault("owner", "must be the id of a user");
    }
    let wanted = Wanted { name: name.unwrap_or_default(), role, expires_in, owner: id };
    fields.finish(wanted).map_err(ApiError::pointed)
}

/// Make a key
///
/// For a program. It is shown in this answer, and never again.
#[utoipa::path(post, path = "/v1/api-keys", tag = "access",
    request_body(content = super::openapi::KeyRequest),
    responses((status = 201, body = NewKeyView), (status = 403, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn create(
    State(app): State<App>,
    caller: Caller,
    trail: Trail,
    body: JsonBody,
) -> Result<(StatusCode, Json<NewKeyView>), ApiError> {
    not_by_key(&caller)?;
    let wanted = wanted(body.value)?;
    let fault = |pointer: &str, detail: String| {
        ApiError::pointed(vec![common::problem::Pointed::new(pointer, detail)])
    };
    let own = match &caller.by {
        By::User { id, .. } => Some(*id),
        _ => None,
    };
    let Some(owner) = wanted.owner.or(own) else {
        return Err(fault(
            "/owner",
            "is missing: you have no account that it could belong to".into(),
        ));
    };
    if Some(owner) != own && caller.role != Role::Admin {
        return Err(ApiError::new(Kind::NotAllowed, "Only an admin makes keys for others."));
    }
    let mut conn = app.pool.acquire().await?;
    let Some(user) = users::find(&mut conn, owner).await? else {
        return Err(fault("/owner", "is not the id of a user".into()));
    };
    let role = wanted.role.unwrap_or(user.role);
    if role > user.role {
        let detail = format!("may not be above the owner's, which is {}", user.role.name());
        return Err(fault("/role", detail));
    }
    let key = generate();
    let text = ApiKeyText::read(&key).ok_or_else(|| ApiError::internal("a key is none"))?;
    let hash = text.hash();
    let new = NewKey {
        prefix: text.prefix,
        hash: &hash,
        name: &wanted.name,
        owner,
        role,
        ttl_s: wanted.expires_in.map(|time| time.as_secs_f64()),
    };
    let made = api_keys::create(&mut conn, Uuid::now_v7(), &new).await?;
    let detail = json!({"owner": owner, "role": role.name(), "name": made.name});
    trail.record(Event::KeyCreated, &format!("key:{}", made.prefix), detail);
    Ok((StatusCode::CREATED, Json(NewKeyView { key, view: KeyView::from(made) })))
}

/// List keys, newest first
///
/// One's own; an admin sees all of them, or those of one `owner`.
#[utoipa::path(get, path = "/v1/api-keys", tag = "access",
    params(
        ("owner" = Option<Uuid>, Query, description = "For admins: of this user"),
        ("limit" = Option<i64>, Query, description = "1 to 200, usually 50"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, body = Page<KeyView>), (status = 422, body = Problem)))]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    mut query: Parameters,
) -> Result<Json<Page<KeyView>>, ApiError> {
    let of = query.parsed("owner", |text| {
        Uuid::try_parse(text).map_err(|_| format!("{text:?} is not the id of a user"))
    });
    let before = query.cursor(|key| key.parse().ok());
    let limit = query.limit();
    query.finish(())?;
    let of = if caller.role == Role::Admin { of } else { Some(own(&caller)) };
    let mut conn = app.pool.acquire().await?;
    let rows = api_keys::list(&mut conn, of, before, limit + 1).await?;
    Ok(Json(Page::new(rows, limit, |key| key.id.to_string(), KeyView::from)))
}

/// Whose keys are the caller's own; nobody's, for an operator.
fn own(caller: &Caller) -> Uuid {
    match &caller.by {
        By::User { id, .. } => *id,
        By::Key { owner, .. } => *owner,
        By::Operator(_) => Uuid::nil(),
    }
}

/// Revoke a key
///
/// One's own; an admin revokes any. It counts on every replica within a second.
#[utoipa::path(delete, path = "/v1/api-keys/{id}", tag = "access", params(("id" = Uuid, Path)),
    responses((status = 204), (status = 403, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn revoke(
    State(app): State<App>,
    caller: Caller,
    trail: Trail,
    Id(id): Id,
    _: Nothing,
) -> Result<StatusCode, ApiError> {
    not_by_key(&caller)?;
    let owner = (caller.role != Role::Admin).then(|| own(&caller));
    let mut conn = app.pool.acquire().await?;
    let Some(prefix) = api_keys::revoke(&mut conn, id, owner).await? else {
        return Err(ApiError::new(Kind::Unknown, "There is no key with this id that is yours."));
    };
    app.principals.forget();
    trail.record(Event::KeyRevoked, &format!("key:{prefix}"), json!({}));
    Ok(StatusCode::NO_CONTENT)
}
