//! Signing in, and out.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use common::access::Role;
use common::store::tokens::{self, Pair, Refreshed};
use common::store::users::{self, Change, Changed, NewUser};
use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::time::Duration;
use utoipa::ToSchema;
use uuid::Uuid;

use super::users::UserView;
use crate::account::Email;
use crate::app::App;
use crate::audit::{Kind as Event, Trail};
use crate::auth::{ACCESS_TTL, By, Caller, not_signed_in};
use crate::error::{ApiError, Kind, Problem};
use crate::extract::{JsonBody, Nothing, SignIn};
use crate::fields::Fields;

/// How long a refresh token can be used.
const REFRESH_TTL: Duration = Duration::from_secs(30 * 24 * 3600);
/// What is answered to whoever does not get in, whatever the reason.
const WRONG: &str = "The email or the password is wrong, or the account cannot be used.";
const CHALLENGE: &str = r#"Bearer realm="gathering""#;

/// What one gets for signing in.
#[derive(Serialize, ToSchema)]
pub(super) struct TokenPair {
    /// For `Authorization: Bearer …`.
    access_token: String,
    /// For `POST /v1/auth/refresh`, once, within 30 days.
    refresh_token: String,
    /// `Bearer`.
    token_type: &'static str,
    /// How long the access token is valid, in seconds.
    expires_in: u64,
}

/// A pair that is not recorded yet: what the client gets, and what is stored of it.
fn pair(app: &App, user: Uuid, role: Role) -> Result<(TokenPair, Pair), ApiError> {
    let signed = app.tokens.sign(&user.to_string(), role, ACCESS_TTL);
    let (access_token, jti) = signed.map_err(|error| ApiError::internal(error.to_string()))?;
    let refresh_token = crate::auth::api_key::random();
    let stored = Pair {
        hash: Sha256::digest(&refresh_token).to_vec(),
        refresh_ttl_s: REFRESH_TTL.as_secs_f64(),
        jti,
        access_ttl_s: ACCESS_TTL.as_secs_f64(),
    };
    let expires_in = ACCESS_TTL.as_secs();
    Ok((TokenPair { access_token, refresh_token, token_type: "Bearer", expires_in }, stored))
}

/// Make an account
///
/// Where registration is open; its role is `viewer`. Passwords have 8 to 256 characters, and are none of the most
/// common ones. The name is what stands before the `@` when it is left out.
#[utoipa::path(post, path = "/v1/auth/register", tag = "access", security(()),
    request_body(content = super::openapi::RegisterRequest),
    responses((status = 201, body = UserView), (status = 403, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem), (status = 429, body = Problem)))]
pub(super) async fn register(
    State(app): State<App>,
    trail: Trail,
    body: JsonBody,
) -> Result<(StatusCode, Json<UserView>), ApiError> {
    if !app.is_registration_open {
        let detail = "Registration is closed here; an admin can make an account for you.";
        return Err(ApiError::new(Kind::NotAllowed, detail));
    }
    let mut fields = Fields::of(body.value, "");
    let email = fields.email("email");
    let password = fields.new_password("password");
    let name = fields.label("name");
    let (email, password, name) =
        fields.finish((email, password, name)).map_err(ApiError::pointed)?;
    let (Some(email), Some(password)) = (email, password) else {
        return Err(ApiError::internal("a body without faults has no email or no password"));
    };
    let name = name.unwrap_or_else(|| email.local().to_owned());
    let user = made(&app, &email, &password, &name, Role::Viewer, "registration").await?;
    trail.record_by(Event::Registered, Some(&user.id.to_string()), json!({"email": user.email}));
    Ok((StatusCode::CREATED, Json(UserView::from(user))))
}

/// Makes an account.
pub(super) async fn made(
    app: &App,
    email: &Email,
    password: &str,
    name: &str,
    role: Role,
    by: &str,
) -> Result<users::User, ApiError> {
    let hash = app.passwords.hash(password.to_owned()).await?;
    let (text, key) = (email.text.as_str(), email.key.as_str());
    let new = NewUser { email: text, email_key: key, name, role, password_hash: &hash, by };
    let mut conn = app.pool.acquire().await?;
    Ok(users::create(&mut conn, Uuid::now_v7(), &new).await?)
}

/// Sign in
///
/// With JSON, or with the password form of OAuth 2 (`grant_type=password&username=…&password=…`). An email that is not
/// known, a wrong password and a disabled account get the same answer.
#[utoipa::path(post, path = "/v1/auth/token", tag = "access", security(()),
    request_body(content(
        (super::openapi::SignInRequest = "application/json"),
        (super::openapi::SignInForm = "application/x-www-form-urlencoded"),
    )),
    responses((status = 200, body = TokenPair), (status = 401, body = Problem), (status = 422, body = Problem),
        (status = 429, body = Problem)))]
pub(super) async fn token(
    State(app): State<App>,
    trail: Trail,
    sign_in: SignIn,
) -> Result<Json<TokenPair>, ApiError> {
    let email = Email::read(&sign_in.email).ok();
    let found = match &email {
        Some(email) => {
            let mut conn = app.pool.acquire().await?;
            users::credentials(&mut conn, &email.key).await?
        }
        None => None,
    };
    let hash = found.as_ref().map(|found| found.password_hash.clone());
    let fits = app.passwords.is(sign_in.password, hash).await?;
    let known = found.as_ref().map(|found| found.id.to_string());
    let failed = |trail: &Trail| {
        let email = email.as_ref().map(|email| &email.text);
        trail.record_by(Event::LoginFailed, known.as_deref(), json!({"email": email}));
        Err(not_signed_in(WRONG, CHALLENGE))
    };
    let Some(user) = found.as_ref().filter(|found| fits && !found.is_disabled) else {
        return failed(&trail);
    };
    let mut conn = app.pool.acquire().await?;
    let Some(now) = users::find(&mut conn, user.id).await? else { return failed(&trail) };
    let (given, stored) = pair(&app, user.id, now.role)?;
    if !tokens::begin(&mut conn, Uuid::now_v7(), user.id, &stored).await? {
        return failed(&trail);
    }
    trail.record_by(Event::Login, known.as_deref(), json!({}));
    Ok(Json(given))
}

/// Go on
///
/// A new pair of tokens for a refresh token, which is spent by that. Using a spent one revokes all tokens that came of
/// the same sign-in, since somebody has it who should not.
#[utoipa::path(post, path = "/v1/auth/refresh", tag = "access", security(()),
    request_body(content = super::openapi::RefreshRequest),
    responses((status = 200, body = TokenPair), (status = 401, body = Problem), (status = 422, body = Problem),
        (status = 429, body = Problem)))]
pub(super) async fn refresh(
    State(app): State<App>,
    trail: Trail,
    body: JsonBody,
) -> Result<Json<TokenPair>, ApiError> {
    let mut fields = Fields::of(body.value, "");
    let token = fields.string("refresh_token");
    if token.is_none() {
        fields.missing("refresh_token");
    }
    let token = fields.finish(token).map_err(ApiError::pointed)?.unwrap_or_default();
    let hash = Sha256::digest(&token).to_vec();
    let refused = || Err(not_signed_in("The refresh token is not valid, or no longer.", CHALLENGE));
    let mut tx = app.pool.begin().await?;
    let Some(owner) = tokens::owner(&mut tx, &hash).await? else { return refused() };
    let (given, stored) = pair(&app, owner.id, owner.role)?;
    let refreshed = tokens::refresh(&mut tx, &hash, &stored).await?;
    tx.commit().await?;
    match refreshed {
        Refreshed::Done { user } => {
            trail.record_by(Event::Refresh, Some(&user.to_string()), json!({}));
            Ok(Json(given))
        }
        Refreshed::Reused { user } => {
            app.principals.forget();
            trail.record_by(Event::RefreshReused, Some(&user.to_string()), json!({}));
            refused()
        }
        Refreshed::Refused => refused(),
    }
}

/// Sign out
///
/// Revokes the access token that is sent, and all tokens that came of the same sign-in.
#[utoipa::path(post, path = "/v1/auth/logout", tag = "access",
    responses((status = 204), (status = 403, body = Problem)))]
pub(super) async fn logout(
    State(app): State<App>,
    caller: Caller,
    trail: Trail,
    _: Nothing,
) -> Result<StatusCode, ApiError> {
    let (By::User { token, .. } | By::Operator(token)) = &caller.by else {
        let detail = "An API key does not sign out; DELETE /v1/api-keys/{id} revokes it.";
        return Err(ApiError::new(Kind::NotAllowed, detail));
    };
    let mut tx = app.pool.begin().await?;
    tokens::log_out(&mut tx, token.jti, token.remaining.as_secs_f64()).await?;
    tx.commit().await?;
    app.principals.forget();
    trail.record_by(Event::Logout, Some(&caller.sub), json!({}));
    Ok(StatusCode::NO_CONTENT)
}

/// Change one's own password
///
/// All sign-ins of the account end with that.
#[utoipa::path(post, path = "/v1/auth/password", tag = "access",
    request_body(content = super::openapi::PasswordRequest),
    responses((status = 204), (status = 403, body = Problem), (status = 422, body = Problem),
        (status = 429, body = Problem)))]
pub(super) async fn password(
    State(app): State<App>,
    caller: Caller,
    trail: Trail,
    body: JsonBody,
) -> Result<StatusCode, ApiError> {
    let By::User { id, .. } = caller.by else {
        let detail = "Only who signed in has a password to change.";
        return Err(ApiError::new(Kind::NotAllowed, detail));
    };
    let mut fields = Fields::of(body.value, "");
    let current = fields.string("current_password");
    if current.is_none() {
        fields.missing("current_password");
    }
    let new = fields.new_password("new_password");
    let (current, new) = fields.finish((current, new)).map_err(ApiError::pointed)?;
    let mut conn = app.pool.acquire().await?;
    let found = users::own_credentials(&mut conn, id).await?;
    drop(conn);
    let hash = found.map(|found| found.password_hash);
    if !app.passwords.is(current.unwrap_or_default(), hash).await? {
        trail.record_by(Event::LoginFailed, Some(&caller.sub), json!({"for": "password"}));
        let fault = common::problem::Pointed::new("/current_password", "is not your password");
        return Err(ApiError::pointed(vec![fault]));
    }
    let hash = app.passwords.hash(new.unwrap_or_default()).await?;
    let change = Change { password_hash: Some(&hash), ..Change::default() };
    let mut tx = app.pool.begin().await?;
    let changed = users::change(&mut tx, id, &change).await?;
    tokens::revoke_all(&mut tx, id).await?;
    tx.commit().await?;
    app.principals.forget();
    if matches!(changed, Changed::Done { .. }) {
        trail.record(Event::PasswordChanged, &caller.sub, json!({}));
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Who one is.
#[derive(Serialize, ToSchema)]
pub(super) struct Me {
    /// What records call the caller.
    sub: String,
    /// `user`, `key` or `operator`.
    kind: &'static str,
    #[schema(value_type = String)]
    role: Role,
    /// The account: one's own, or the owner's of the key.
    user: Option<UserView>,
}

/// Read who one is
#[utoipa::path(get, path = "/v1/auth/me", tag = "access", responses((status = 200, body = Me)))]
pub(super) async fn me(State(app): State<App>, caller: Caller) -> Result<Json<Me>, ApiError> {
    let (kind, id) = match &caller.by {
        By::User { id, .. } => ("user", Some(*id)),
        By::Key { owner, .. } => ("key", Some(*owner)),
        By::Operator(_) => ("operator", None),
    };
    let user = match id {
        Some(id) => {
            let mut conn = app.pool.acquire().await?;
            users::find(&mut conn, id).await?.map(UserView::from)
        }
        None => None,
    };
    Ok(Json(Me { sub: caller.sub, kind, role: caller.role, user }))
}
