//! The OpenAPI document.

use std::sync::LazyLock;

use axum::body::Bytes;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi, ToSchema};

use super::{
    api_keys, audit_events, auth, batch, dead_letters, docs, events, lanes, nodes, pipelines, runs,
    schedules, secrets, submit, tools, users, validate, workers,
};
use crate::error::Problem;
use crate::view::AcceptedRun;

/// The api, described.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "GatheRing",
        description = "Runs pipelines and single actions on a fleet of workers, and loses none of them.\n\n\
            Errors are problem documents (RFC 9457). Lists are paged: send `next_cursor` as `cursor`. Every answer \
            carries `X-Request-Id`, taken from the request when given.\n\n\
            `x-needs` of an operation says who may call it: `nobody` (anybody may), `viewer`, `operator` or `admin`; \
            each may do what those before it may. Requests are limited by user or key, else by address: `RateLimit-*` \
            of every answer says what is left, `Retry-After` of a 429 when to come back.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    paths(
        pipelines::create, pipelines::list, validate::validate, pipelines::read, pipelines::replace,
        pipelines::delete, pipelines::pause, pipelines::resume,
        submit::pipeline, submit::action, batch::submit, runs::list, runs::read, nodes::read, events::stream,
        runs::cancel, submit::rerun,
        schedules::create, schedules::list, schedules::preview, schedules::read, schedules::patch, schedules::delete,
        schedules::pause, schedules::resume, schedules::trigger, schedules::fires, schedules::backfill,
        schedules::backfills, schedules::post_event,
        tools::list, workers::list, document, docs::page,
        lanes::list, dead_letters::list, dead_letters::read, dead_letters::redrive, dead_letters::dismiss,
        auth::register, auth::token, auth::refresh, auth::logout, auth::password, auth::me,
        api_keys::create, api_keys::list, api_keys::revoke,
        users::create, users::list, users::read, users::change, audit_events::list,
        secrets::put, secrets::list, secrets::delete,
    ),
    tags(
        (name = "pipelines", description = "Named, versioned definitions"),
        (name = "runs", description = "Executions of pipelines and of single actions"),
        (name = "schedules", description = "Rules of time and of events that start runs"),
        (name = "access", description = "Accounts, tokens, keys, and what was done with them"),
        (name = "secrets", description = "Values that nodes use as `{{ secrets.NAME }}`, and nobody reads"),
        (name = "operations", description = "The system itself"),
    ),
    modifiers(&Bearer, &Whom),
    security(("bearer" = [])),
)]
struct Api;

/// Signing in.
struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("JWT, or an API key")
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}

/// Who may call what, out of the table of routes.
struct Whom;

impl Modify for Whom {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        for route in super::table() {
            let Some(item) = document.paths.paths.get_mut(route.path) else { continue };
            let operation = match route.method.as_str() {
                "GET" => item.get.as_mut(),
                "POST" => item.post.as_mut(),
                "PUT" => item.put.as_mut(),
                "PATCH" => item.patch.as_mut(),
                _ => item.delete.as_mut(),
            };
            if let Some(operation) = operation {
                let needs = utoipa::openapi::extensions::ExtensionsBuilder::new()
                    .add("x-needs", route.needs.name())
                    .build();
                operation.extensions.get_or_insert_default().merge(needs);
            }
        }
    }
}

/// The document.
pub(super) fn built() -> utoipa::openapi::OpenApi {
    Api::openapi()
}

/// This document
#[utoipa::path(get, path = "/openapi.json", tag = "operations", security(()),
    responses((status = 200, body = Value)))]
pub(super) async fn document() -> Response {
    static TEXT: LazyLock<Bytes> =
        LazyLock::new(|| built().to_json().map(Bytes::from).expect("the document is JSON"));
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], TEXT.clone()).into_response()
}

/// What is right or wrong, and where.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it only describes what other types write")]
pub(super) struct Warning {
    /// A JSON pointer into the body.
    pointer: String,
    detail: String,
}

/// A run of a pipeline.
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read strictly, by hand; this describes them")]
pub(super) struct RunRequest {
    /// Checked against the pipeline's `input_schema`; `{}` when left out.
    input: Option<Value>,
    /// Up to 32, each of 1 to 128 bytes.
    tags: Option<Vec<String>>,
    /// How long to wait before it starts, such as `24h`.
    delay: Option<String>,
}

/// A single action.
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read strictly, by hand; this describes them")]
pub(super) struct ActionRequest {
    /// `echo`, `call_api` or `run_command`.
    action: String,
    /// What the action wants to know.
    input: Option<Value>,
    /// `{max_attempts, initial_interval, multiplier, max_interval, max_elapsed}`
    retry: Option<Value>,
    /// How long one attempt may take, such as `30s`.
    timeout: Option<String>,
    lane: Option<String>,
    tags: Option<Vec<String>>,
    /// How long to wait before it starts, such as `24h`.
    delay: Option<String>,
}

/// Which part of a run to run again.
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read strictly, by hand; this describes them")]
pub(super) struct RerunRequest {
    /// `start` (the default) or `failed`.
    from: Option<String>,
}

/// Many submissions.
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read strictly, by hand; this describes them")]
pub(super) struct BatchRequest {
    /// Each a pipeline's run with `pipeline`, or a single action.
    items: Vec<Value>,
}

/// What became of each submission.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it only describes what is written by hand")]
pub(super) struct BatchAnswer {
    items: Vec<BatchItem>,
}

/// What became of one.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it only describes what is written by hand")]
pub(super) struct BatchItem {
    status: u16,
    run: Option<AcceptedRun>,
    problem: Option<Problem>,
}

/// An account to be made.
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read strictly, by hand; this describes them")]
pub(super) struct RegisterRequest {
    email: String,
    /// 8 to 256 characters.
    password: String,
    name: Option<String>,
}

/// What one signs in with.
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read strictly, by hand; this describes them")]
pub(super) struct SignInRequest {
    email: String,
    password: String,
}

/// The same as a form.
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read strictly, by hand; this describes them")]
pub(super) struct SignInForm {
    /// `password`
    grant_type: String,
    /// The email.
    username: String,
    password: String,
}

/// What one goes on with.
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read strictly, by hand; this describes them")]
pub(super) struct RefreshRequest {
    refresh_token: String,
}

/// Another password.
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read strictly, by hand; this describes them")]
pub(super) struct PasswordRequest {
    current_password: String,
    /// 8 to 256 characters.
    new_password: String,
}

/// An account that an admin makes.
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read strictly, by hand; this describes them")]
pub(super) struct UserRequest {
    email: String,
    /// 8 to 256 characters.
    password: String,
    name: Option<String>,
    /// `viewer` (the default), `operator` or `admin`.
    role: Option<String>,
}

/// What to change of an account; what is left out stays.
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read strictly, by hand; this describes them")]
pub(super) struct UserChange {
    name: Option<String>,
    /// `viewer`, `operator` or `admin`.
    role: Option<String>,
    /// Whether the account cannot be used, nor its tokens and keys.
    disabled: Option<bool>,
    /// Ends all sign-ins of the account.
    password: Option<String>,
}

/// A key to be made.
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read strictly, by hand; this describes them")]
pub(super) struct KeyRequest {
    /// What it is for.
    name: String,
    /// Not above the owner's, which is the default.
    role: Option<String>,
    /// How long it can be used, such as `90d`; for ever, when left out.
    expires_in: Option<String>,
    /// For admins: whose it is, when it is not their own.
    owner: Option<uuid::Uuid>,
}

/// A secret to be kept.
#[derive(ToSchema)]
#[expect(dead_code, reason = "bodies are read strictly, by hand; this describes them")]
pub(super) struct SecretRequest {
    /// Letters, digits and `_`, 64 at most.
    name: String,
    /// 8 to 65,536 bytes.
    value: String,
}
