//! Accounts, as admins see them.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use common::access::Role;
use common::store::tokens;
use common::store::users::{self, Change, Changed, User};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::auth::made;
use crate::app::App;
use crate::audit::{Kind as Event, Trail};
use crate::auth::Caller;
use crate::error::{ApiError, Kind, Problem};
use crate::extract::{Id, JsonBody};
use crate::fields::Fields;
use crate::page::{Page, Parameters};
use crate::view::Stamp;

/// An account.
#[derive(Serialize, ToSchema)]
pub(super) struct UserView {
    id: Uuid,
    email: String,
    name: String,
    /// `viewer`, `operator` or `admin`.
    #[schema(value_type = String)]
    role: Role,
    /// Since when it cannot be used.
    disabled_at: Option<Stamp>,
    created_by: String,
    created_at: Stamp,
    updated_at: Stamp,
}

impl From<User> for UserView {
    fn from(user: User) -> Self {
        Self {
            id: user.id,
            email: user.email,
            name: user.name,
            role: user.role,
            disabled_at: user.disabled_at.map(Stamp),
            created_by: user.created_by,
            created_at: Stamp(user.created_at),
            updated_at: Stamp(user.updated_at),
        }
    }
}

fn no_user() -> ApiError {
    ApiError::new(Kind::Unknown, "There is no user with this id.")
}

/// Make an account for somebody
#[utoipa::path(post, path = "/v1/users", tag = "access",
    request_body(content = super::openapi::UserRequest),
    responses((status = 201, body = UserView), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn create(
    State(app): State<App>,
    caller: Caller,
    trail: Trail,
    body: JsonBody,
) -> Result<(StatusCode, Json<UserView>), ApiError> {
    let mut fields = Fields::of(body.value, "");
    let email = fields.email("email");
    let password = fields.new_password("password");
    let name = fields.label("name");
    let role = fields.role("role").unwrap_or(Role::Viewer);
    let read = fields.finish((email, password, name)).map_err(ApiError::pointed)?;
    let (Some(email), Some(password), name) = read else {
        return Err(ApiError::internal("a body without faults has no email or no password"));
    };
    let name = name.unwrap_or_else(|| email.local().to_owned());
    let user = made(&app, &email, &password, &name, role, &caller.sub).await?;
    let detail = json!({"email": user.email, "role": role.name()});
    trail.record(Event::UserCreated, &user.id.to_string(), detail);
    Ok((StatusCode::CREATED, Json(UserView::from(user))))
}

/// List accounts, newest first
#[utoipa::path(get, path = "/v1/users", tag = "access",
    params(
        ("limit" = Option<i64>, Query, description = "1 to 200, usually 50"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, body = Page<UserView>), (status = 422, body = Problem)))]
pub(super) async fn list(
    State(app): State<App>,
    mut query: Parameters,
) -> Result<Json<Page<UserView>>, ApiError> {
    let before = query.cursor(|key| key.parse().ok());
    let limit = query.limit();
    query.finish(())?;
    let mut conn = app.pool.acquire().await?;
    let rows = users::list(&mut conn, before, limit + 1).await?;
    Ok(Json(Page::new(rows, limit, |user| user.id.to_string(), UserView::from)))
}

/// Read an account
#[utoipa::path(get, path = "/v1/users/{id}", tag = "access", params(("id" = Uuid, Path)),
    responses((status = 200, body = UserView), (status = 404, body = Problem)))]
pub(super) async fn read(State(app): State<App>, Id(id): Id) -> Result<Json<UserView>, ApiError> {
    let mut conn = app.pool.acquire().await?;
    let user = users::find(&mut conn, id).await?.ok_or_else(no_user)?;
    Ok(Json(UserView::from(user)))
}

/// Change an account
///
/// Its role, its name, its password, or whether it can be used. Another role, and being disabled, count on every
/// replica within a second. The last admin who can sign in stays one.
#[utoipa::path(patch, path = "/v1/users/{id}", tag = "access", params(("id" = Uuid, Path)),
    request_body(content = super::openapi::UserChange),
    responses((status = 200, body = UserView), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem)))]
pub(super) async fn change(
    State(app): State<App>,
    trail: Trail,
    Id(id): Id,
    body: JsonBody,
) -> Result<Json<UserView>, ApiError> {
    let mut fields = Fields::of(body.value, "");
    let (name, role, disabled) =
        (fields.label("name"), fields.role("role"), fields.flag("disabled"));
    let password = fields.string("password");
    if let Some(fault) = password.as_deref().and_then(crate::auth::password::fault) {
        fields.fault("password", fault);
    }
    let password = fields.finish(password).map_err(ApiError::pointed)?;
    let password_hash = match password {
        Some(password) => Some(app.passwords.hash(password).await?),
        None => None,
    };
    let change =
        Change { name: name.as_deref(), role, disabled, password_hash: password_hash.as_deref() };
    let mut tx = app.pool.begin().await?;
    let changed = users::change(&mut tx, id, &change).await?;
    if password_hash.is_some() || disabled == Some(true) {
        tokens::revoke_all(&mut tx, id).await?;
    }
    let (role_before, was_disabled, user) = match changed {
        Changed::Unknown => return Err(no_user()),
        Changed::LastAdmin => {
            let detail = "This is the last admin who can sign in; make another one first.";
            return Err(ApiError::new(Kind::LastAdmin, detail));
        }
        Changed::Done { role_before, was_disabled, user } => (role_before, was_disabled, user),
    };
    tx.commit().await?;
    app.principals.forget();
    let subject = id.to_string();
    if user.role != role_before {
        let detail = json!({"from": role_before.name(), "to": user.role.name()});
        trail.record(Event::RoleChanged, &subject, detail);
    }
    if password_hash.is_some() {
        trail.record(Event::PasswordChanged, &subject, json!({}));
    }
    let is_disabled = user.disabled_at.is_some();
    if is_disabled != was_disabled || name.is_some() {
        let detail = json!({"disabled": is_disabled, "was_disabled": was_disabled});
        trail.record(Event::UserChanged, &subject, detail);
    }
    Ok(Json(UserView::from(user)))
}
