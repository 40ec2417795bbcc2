//! Who asks, and whether they may.

mod token;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use serde::{Deserialize, Serialize};

pub(crate) use self::token::Tokens;
use crate::app::App;
use crate::error::{ApiError, Kind};

/// What somebody may do. Each may do what those before it may.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// Reads.
    Viewer,
    /// Submits, cancels, reruns, pauses, changes pipelines.
    Operator,
    /// Everything.
    Admin,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// What a route asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Anybody may.
    Nobody,
    /// A caller of this role, or one above it.
    Role(Role),
}

/// The authenticated caller. Holding one means that it was allowed to call the route: [`admit`] has seen to it.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) sub: String,
    pub(crate) role: Role,
}

/// Authenticates the caller and authorises it for the route, before anything of the request is read.
///
/// Each route of the table is wrapped in it, so that a handler cannot forget it. It is `async` in what it asks, so
/// that looking up keys and revocations can take place in [`authenticate`].
pub(crate) async fn admit(
    State((app, needs)): State<(App, Needs)>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    if let Needs::Role(least) = needs {
        let caller = authenticate(&app, request.headers()).await?;
        if caller.role < least {
            let detail =
                format!("This needs the role {}; yours is {}.", least.name(), caller.role.name());
            let challenge =
                HeaderValue::from_static(r#"Bearer realm="gathering", error="insufficient_scope""#);
            return Err(ApiError::new(Kind::NotAllowed, detail)
                .with_header(header::WWW_AUTHENTICATE, challenge));
        }
        request.extensions_mut().insert(caller);
    }
    Ok(next.run(request).await)
}

async fn authenticate(app: &App, headers: &HeaderMap) -> Result<Caller, ApiError> {
    let refused = |detail: &str, challenge: &'static str| {
        ApiError::new(Kind::NotSignedIn, detail)
            .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
    };
    let Some(token) = bearer(headers) else {
        let detail = "This needs a token: `Authorization: Bearer <token>`.";
        return Err(refused(detail, r#"Bearer realm="gathering""#));
    };
    app.tokens.verify(token).ok_or_else(|| {
        let challenge = r#"Bearer realm="gathering", error="invalid_token""#;
        refused("The token is not valid, or no longer.", challenge)
    })
}

/// The only bearer token of the request.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let (only, None) = (given.next()?, given.next()) else { return None };
    let (scheme, token) = only.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let caller = parts.extensions.get::<Self>().cloned();
        caller
            .ok_or_else(|| ApiError::internal("a route that anybody may call asked for its caller"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bearer_header_is_read() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers
                    .append(header::AUTHORIZATION, HeaderValue::from_str(value).expect("a value"));
            }
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(read(&["bearer abc"]).as_deref(), Some("abc"));
        assert_eq!(read(&["Basic abc"]), None);
        assert_eq!(read(&["Bearer "]), None);
        assert_eq!(read(&["Bearer a", "Bearer b"]), None);
    }
}
