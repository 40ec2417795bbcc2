//! What is read of a request: bodies and path parameters, each refused with a problem that says why.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use common::pipeline;
use common::problem::unstorable;
use futures::StreamExt;
use serde_json::Value;
use uuid::Uuid;

use crate::error::{ApiError, Kind};
use crate::fields::Fields;

/// The largest body, but for pipelines.
const LIMIT: usize = 1024 * 1024;
/// The largest definition.
const PIPELINE_LIMIT: usize = 4 * 1024 * 1024;
/// How much is taken of a body that is too large, and for how long.
const MOST_DISCARDED: usize = 16 * 1024 * 1024;
const PATIENCE_FOR_NOTHING: Duration = Duration::from_secs(5);
/// How long a client may take to send a body.
const PATIENCE: Duration = Duration::from_secs(30);

/// A JSON body, with the bytes that it came in; no body is an empty object.
pub(crate) struct JsonBody {
    pub(crate) value: Value,
    pub(crate) bytes: Bytes,
}

impl<S: Sync> FromRequest<S> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let bytes = read(&parts.headers, body, LIMIT).await?;
        if bytes.is_empty() {
            return Ok(Self { value: Value::Object(serde_json::Map::new()), bytes });
        }
        match media_type(&parts.headers)? {
            Media::Json => Ok(Self { value: json(&bytes)?, bytes }),
            Media::Yaml => Err(unsupported("application/json")),
        }
    }
}

/// No body, or an empty object. Reading it keeps the connection usable, which an unread body does not.
pub(crate) struct Nothing;

impl<S: Sync> FromRequest<S> for Nothing {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let body = JsonBody::from_request(request, state).await?;
        Fields::of(body.value, "").finish(Self).map_err(ApiError::pointed)
    }
}

/// A pipeline's definition, as JSON or YAML.
pub(crate) struct DefinitionBody(pub(crate) Value);

impl<S: Sync> FromRequest<S> for DefinitionBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let bytes = read(&parts.headers, body, PIPELINE_LIMIT).await?;
        match media_type(&parts.headers)? {
            Media::Json => json(&bytes).map(Self),
            Media::Yaml => yaml(&bytes).map(Self),
        }
    }
}

enum Media {
    Json,
    Yaml,
}

/// By `Content-Type`; none means JSON.
fn media_type(headers: &HeaderMap) -> Result<Media, ApiError> {
    const TAKEN: &str = "application/json, or application/yaml where a pipeline is sent";
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(unsupported("no Content-Encoding"));
    }
    let Some(given) = headers.get(header::CONTENT_TYPE) else { return Ok(Media::Json) };
    let given = given.to_str().map_err(|_| unsupported(TAKEN))?;
    let essence = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "application/json" => Ok(Media::Json),
        "application/yaml" | "application/x-yaml" | "text/yaml" | "text/x-yaml" => Ok(Media::Yaml),
        other if other.starts_with("application/") && other.ends_with("+json") => Ok(Media::Json),
        _ => Err(unsupported(TAKEN)),
    }
}

fn unsupported(taken: &str) -> ApiError {
    ApiError::new(Kind::UnsupportedMediaType, format!("Send the body as {taken}."))
}

async fn read(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, ApiError> {
    // What is left of it is not read, so that the connection is of no more use.
    let too_large = || {
        ApiError::new(Kind::TooLarge, format!("The body may have {limit} bytes at most."))
            .with_header(header::CONNECTION, HeaderValue::from_static("close"))
    };
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    if announced
        .and_then(|length| length.parse().ok())
        .is_some_and(|length: u64| length > limit as u64)
    {
        if !headers.contains_key(header::EXPECT) {
            discard(body).await;
        }
        return Err(too_large());
    }
    let reading = axum::body::to_bytes(body, limit);
    match tokio::time::timeout(PATIENCE, reading).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_over_limit(&error) => Err(too_large()),
        Ok(Err(_)) => Err(ApiError::malformed("The body ended before it was complete.")),
        Err(_) => Err(ApiError::new(
            Kind::TooSlow,
            format!("The body did not arrive within {} s.", PATIENCE.as_secs()),
        )),
    }
}

/// Takes what a client goes on sending, up to a point: a connection that is closed under it loses the answer, too.
async fn discard(body: Body) {
    let mut stream = body.into_data_stream();
    let taking = async {
        let mut taken = 0;
        while let Some(Ok(piece)) = stream.next().await {
            taken += piece.len();
            if taken > MOST_DISCARDED {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(PATIENCE_FOR_NOTHING, taking).await;
}

fn is_over_limit(error: &axum::Error) -> bool {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = source {
        // Named by its text, since its crate is not one of ours.
        if error.to_string().contains("length limit exceeded") {
            return true;
        }
        source = error.source();
    }
    false
}

fn json(bytes: &[u8]) -> Result<Value, ApiError> {
    let value = serde_json::from_slice(bytes)
        .map_err(|error| ApiError::malformed(format!("The body is not JSON: {error}.")))?;
    storable(value)
}

fn yaml(bytes: &[u8]) -> Result<Value, ApiError> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        ApiError::malformed(format!("The body is not UTF-8: byte {} is not.", error.valid_up_to()))
    })?;
    let value = pipeline::from_yaml(text)
        .map_err(|error| ApiError::malformed(format!("The body is not YAML: {error}")))?;
    storable(value)
}

fn storable(value: Value) -> Result<Value, ApiError> {
    match unstorable(&value) {
        None => Ok(value),
        Some(pointer) => Err(ApiError::pointed(vec![common::problem::Pointed::new(
            pointer,
            "has a character U+0000, which the database cannot hold; leave it out",
        )])),
    }
}

/// The only parameter of the path, a run's id.
pub(crate) struct RunId(pub(crate) Uuid);

impl<S: Send + Sync> FromRequestParts<S> for RunId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(text) =
            Path::<String>::from_request_parts(parts, state).await.map_err(bad_path)?;
        run_id(&text).map(Self)
    }
}

/// The only parameter of the path, a schedule's id.
pub(crate) struct ScheduleId(pub(crate) Uuid);

impl<S: Send + Sync> FromRequestParts<S> for ScheduleId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(text) =
            Path::<String>::from_request_parts(parts, state).await.map_err(bad_path)?;
        let malformed = |_| {
            ApiError::malformed(format!("{text:?} is not the id of a schedule: that is a UUID."))
        };
        Uuid::try_parse(&text).map(Self).map_err(malformed)
    }
}

/// The only parameter of the path, the id of something that is not a run.
pub(crate) struct Id(pub(crate) Uuid);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(text) =
            Path::<String>::from_request_parts(parts, state).await.map_err(bad_path)?;
        Uuid::try_parse(&text)
            .map(Self)
            .map_err(|_| ApiError::malformed(format!("{text:?} is not an id: that is a UUID.")))
    }
}

/// What somebody signs in with: JSON, or the form of OAuth 2.
pub(crate) struct SignIn {
    pub(crate) email: String,
    pub(crate) password: String,
}

impl<S: Send + Sync> FromRequest<S> for SignIn {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let is_form = kind.is_some_and(|kind| {
            kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(FORM)
        });
        let (mut fields, names) = if is_form {
            (form(request).await?, ("username", "password"))
        } else {
            let body = JsonBody::from_request(request, state).await?;
            (Fields::of(body.value, ""), ("email", "password"))
        };
        if is_form && fields.string("grant_type").as_deref() != Some("password") {
            fields.fault("grant_type", "must be \"password\"");
        }
        // Clients of OAuth 2 may send these; there is nothing here that they could choose.
        for ignored in ["scope", "client_id", "client_secret"] {
            if is_form {
                fields.take(ignored);
            }
        }
        let (email, password) = (fields.string(names.0), fields.string(names.1));
        if email.is_none() {
            fields.missing(names.0);
        }
        if password.is_none() {
            fields.missing(names.1);
        }
        let read =
            Self { email: email.unwrap_or_default(), password: password.unwrap_or_default() };
        fields.finish(read).map_err(ApiError::pointed)
    }
}

const FORM: &str = "application/x-www-form-urlencoded";

/// The fields of a form, each given once.
async fn form(request: Request) -> Result<Fields, ApiError> {
    let (parts, body) = request.into_parts();
    let bytes = read(&parts.headers, body, LIMIT).await?;
    let mut request = Request::new(Body::from(bytes));
    *request.method_mut() = axum::http::Method::POST;
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(FORM));
    let read = axum::Form::<Vec<(String, String)>>::from_request(request, &()).await;
    let axum::Form(pairs) = read.map_err(|rejection| ApiError::malformed(rejection.body_text()))?;
    let mut fields = serde_json::Map::new();
    for (name, value) in pairs {
        if fields.insert(name.clone(), Value::String(value)).is_some() {
            return Err(ApiError::malformed(format!("{name:?} is given more than once.")));
        }
    }
    storable(Value::Object(fields)).map(|fields| Fields::of(fields, ""))
}

/// A run's id and one of its nodes.
pub(crate) struct NodeOfRun(pub(crate) Uuid, pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for NodeOfRun {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<(String, String)>::from_request_parts(parts, state).await;
        let Path((id, node)) = path.map_err(bad_path)?;
        Ok(Self(run_id(&id)?, node))
    }
}

/// The only parameter of the path, a pipeline's name.
pub(crate) struct Name(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(name) =
            Path::<String>::from_request_parts(parts, state).await.map_err(bad_path)?;
        if name.contains('\0') {
            return Err(ApiError::no_pipeline(&name));
        }
        Ok(Self(name))
    }
}

fn run_id(text: &str) -> Result<Uuid, ApiError> {
    Uuid::try_parse(text).map_err(|_| {
        ApiError::malformed(format!("{text:?} is not the id of a run: that is a UUID."))
    })
}

fn bad_path(rejection: PathRejection) -> ApiError {
    ApiError::malformed(rejection.body_text())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_json_is_named_by_line_and_column() {
        let error = json(b"{\n  \"a\": 1,\n}").expect_err("it is malformed");
        let detail = error.problem().detail;
        assert!(detail.contains("line 3 column 1"), "{detail}");
    }

    #[test]
    fn json_that_is_too_deep_or_not_utf_8_is_malformed() {
        let deep = "[".repeat(200) + &"]".repeat(200);
        assert_eq!(json(deep.as_bytes()).expect_err("too deep").kind, Kind::Malformed);
        assert_eq!(json(b"\"\xff\"").expect_err("not UTF-8").kind, Kind::Malformed);
    }

    #[test]
    fn a_nul_is_invalid() {
        let problem = json(br#"{"a": ["\u0000"]}"#).expect_err("it has a NUL").problem();
        assert_eq!(problem.errors[0].pointer.as_deref(), Some("/a/0"));
    }
}
