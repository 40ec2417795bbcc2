//! Who asks, and whether they may.

pub(crate) mod api_key;
pub(crate) mod password;
mod principals;
mod token;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use common::access::Role;
use uuid::Uuid;

use self::api_key::ApiKeyText;
pub(crate) use self::principals::Principals;
use self::principals::{Standing, Whom};
pub(crate) use self::token::{ACCESS_TTL, Tokens, Verified};
use crate::app::App;
use crate::audit::Kind as Event;
use crate::error::{ApiError, Kind};
use crate::limit::{Tier, counted};
use crate::request::Source;

/// What a route asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Anybody may.
    Nobody,
    /// A caller of this role, or one above it.
    Role(Role),
}

impl Needs {
    /// Its word in the document.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Role(role) => role.name(),
        }
    }
}

/// The authenticated caller. Holding one means that it was allowed to call the route: [`admit`] has seen to it.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// Who it is, in records: a user's id, `key:<prefix>`, or the name in an operator's token.
    pub(crate) sub: String,
    pub(crate) role: Role,
    pub(crate) by: By,
}

/// By what it is known.
#[derive(Debug, Clone)]
pub(crate) enum By {
    /// The access token of a user.
    User { id: Uuid, token: Verified },
    /// The key of a program.
    Key { owner: Uuid },
    /// A token that `gathering-api token` printed.
    Operator(Verified),
}

/// Authenticates the caller, counts the request and authorises it for the route, before anything of it is read.
///
/// Each route of the table is wrapped in it, so that a handler cannot forget it.
pub(crate) async fn admit(
    State((app, needs, tier)): State<(App, Needs, Tier)>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(source) = request.extensions().get::<Source>().cloned() else {
        return ApiError::internal("a request without an origin").into_response();
    };
    let admitted = match needs {
        Needs::Nobody => Ok(None),
        Needs::Role(least) => {
            authenticate(&app, &source, request.headers()).await.map(|caller| Some((caller, least)))
        }
    };
    let who = match &admitted {
        Ok(Some((caller, _))) => caller.sub.clone(),
        _ => source.address_key(),
    };
    let count = app.limits.charge(tier, &who).await;
    let refused = count.as_ref().and_then(|count| count.refusal());
    let response = match (refused, admitted) {
        (Some(refusal), _) => refusal.into_response(),
        (None, Err(error)) => error.into_response(),
        (None, Ok(Some((caller, least)))) if caller.role < least => {
            denied(&app, &source, &request, &caller, least).into_response()
        }
        (None, Ok(caller)) => {
            if let Some((caller, _)) = caller {
                request.extensions_mut().insert(caller);
            }
            next.run(request).await
        }
    };
    counted(match count {
        Some(count) => count.mark(response),
        None => response,
    })
}

fn denied(app: &App, source: &Source, request: &Request, caller: &Caller, least: Role) -> ApiError {
    let route = format!("{} {}", request.method(), request.uri().path());
    let detail = serde_json::json!({"needs": least.name(), "has": caller.role.name()});
    app.audit.record(Event::AccessDenied, source, Some(&caller.sub), Some(&route), detail);
    let detail = format!("This needs the role {}; yours is {}.", least.name(), caller.role.name());
    let challenge =
        HeaderValue::from_static(r#"Bearer realm="gathering", error="insufficient_scope""#);
    ApiError::new(Kind::NotAllowed, detail).with_header(header::WWW_AUTHENTICATE, challenge)
}

async fn authenticate(app: &App, source: &Source, headers: &HeaderMap) -> Result<Caller, ApiError> {
    let Some(token) = bearer(headers) else {
        let detail = "This needs a token or an API key: `Authorization: Bearer <it>`.";
        return Err(not_signed_in(detail, r#"Bearer realm="gathering""#));
    };
    let caller = if ApiKeyText::looks_like(token) {
        by_key(app, source, token).await?
    } else {
        by_token(app, token).await?
    };
    // One text for all reasons: who guesses learns nothing.
    caller.ok_or_else(|| {
        let challenge = r#"Bearer realm="gathering", error="invalid_token""#;
        not_signed_in("The token is not valid, or no longer.", challenge)
    })
}

pub(crate) fn not_signed_in(detail: &str, challenge: &'static str) -> ApiError {
    ApiError::new(Kind::NotSignedIn, detail)
        .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
}

async fn by_token(app: &App, token: &str) -> Result<Option<Caller>, ApiError> {
    let Some(token) = app.tokens.verify(token) else { return Ok(None) };
    let user = Uuid::try_parse(&token.sub).ok();
    let standing = app.principals.standing(Whom::Token { jti: token.jti, user }).await?;
    let sub = token.sub.clone();
    Ok(match (standing, user) {
        (Standing::User(role), Some(id)) => Some(Caller { sub, role, by: By::User { id, token } }),
        (Standing::Operator, None) if !sub.starts_with("key:") => {
            Some(Caller { sub, role: token.role, by: By::Operator(token) })
        }
        _ => None,
    })
}

async fn by_key(app: &App, source: &Source, token: &str) -> Result<Option<Caller>, ApiError> {
    let refused = |prefix: Option<&str>| {
        let sub = prefix.map(|prefix| format!("key:{prefix}"));
        app.audit.record(Event::KeyRefused, source, None, sub.as_deref(), serde_json::json!({}));
        Ok(None)
    };
    let Some(text) = ApiKeyText::read(token) else { return refused(None) };
    let standing = app.principals.standing(Whom::Key(text.prefix.to_owned())).await?;
    match standing {
        Standing::Key(key) if text.is(&key.hash) => {
            app.principals.note_use(&key.prefix);
            let sub = format!("key:{}", key.prefix);
            let by = By::Key { owner: key.owner };
            Ok(Some(Caller { sub, role: key.role, by }))
        }
        _ => refused(Some(text.prefix)),
    }
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
