//! Who asks, and whether they may.

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

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

/// The claims of an access token.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    sub: String,
    role: Role,
    iat: u64,
    exp: u64,
}

/// Signs and verifies access tokens: HS256, and nothing else.
#[derive(Clone)]
pub(crate) struct Tokens {
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
}

/// The longest token that is looked at.
const LONGEST: usize = 4096;

impl Tokens {
    pub(crate) fn new(secret: &[u8]) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_required_spec_claims(&["sub", "exp"]);
        validation.validate_nbf = true;
        validation.leeway = 0;
        Self {
            encoding: EncodingKey::from_secret(secret),
            decoding: DecodingKey::from_secret(secret),
            validation,
        }
    }

    /// An access token for `sub`, valid for `ttl` from now.
    pub(crate) fn sign(
        &self,
        sub: &str,
        role: Role,
        ttl: std::time::Duration,
    ) -> jsonwebtoken::errors::Result<String> {
        let iat = jsonwebtoken::get_current_timestamp();
        let claims =
            Claims { sub: sub.to_owned(), role, iat, exp: iat.saturating_add(ttl.as_secs()) };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.encoding)
    }

    /// Who the token was signed for; why it is refused is nobody's business but the log's.
    fn verify(&self, token: &str) -> Option<Caller> {
        if token.len() > LONGEST {
            return None;
        }
        let claims = jsonwebtoken::decode::<Verified>(token, &self.decoding, &self.validation)
            .inspect_err(|error| tracing::debug!(%error, "a token was refused"))
            .ok()?
            .claims;
        let is_plain =
            |sub: &str| (1..=255).contains(&sub.len()) && !sub.chars().any(char::is_control);
        is_plain(&claims.sub).then_some(Caller { sub: claims.sub, role: claims.role })
    }
}

/// What is read of a token's claims; the library has checked the instants.
#[derive(Deserialize)]
struct Verified {
    sub: String,
    role: Role,
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
    use std::time::Duration;

    use super::*;

    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

    #[test]
    fn only_what_was_signed_here_and_has_not_expired_is_accepted() {
        let tokens = Tokens::new(SECRET);
        let hour = Duration::from_secs(3600);
        let token = tokens.sign("ada", Role::Operator, hour).expect("it signs");
        let caller = tokens.verify(&token).expect("it verifies");
        assert_eq!((caller.sub.as_str(), caller.role), ("ada", Role::Operator));

        let signed = |secret: &[u8], header: Header, claims: serde_json::Value| {
            jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(secret))
                .expect("it signs")
        };
        let now = jsonwebtoken::get_current_timestamp();
        let good = serde_json::json!({"sub": "ada", "role": "admin", "exp": now + 60});
        let mut cases = vec![
            (
                "another secret",
                signed(b"another secret, as long as that one", Header::default(), good.clone()),
            ),
            ("another algorithm", signed(SECRET, Header::new(Algorithm::HS512), good.clone())),
        ];
        for (name, claim, value) in [
            ("expired", "exp", serde_json::json!(now - 1)),
            ("not yet", "nbf", serde_json::json!(now + 60)),
            ("unknown role", "role", serde_json::json!("root")),
            ("no role", "role", serde_json::Value::Null),
            ("empty sub", "sub", serde_json::json!("")),
            ("a line in sub", "sub", serde_json::json!("a\nb")),
        ] {
            let mut claims = good.clone();
            claims[claim] = value;
            cases.push((name, signed(SECRET, Header::default(), claims)));
        }
        let without_exp = serde_json::json!({"sub": "ada", "role": "admin"});
        cases.push(("no exp", signed(SECRET, Header::default(), without_exp)));
        let payload = token.split('.').nth(1).expect("it has three parts");
        cases.push(("none", format!("eyJhbGciOiJub25lIn0.{payload}.")));
        cases.push(("overlong", "x".repeat(LONGEST + 1)));
        for (name, token) in cases {
            assert!(tokens.verify(&token).is_none(), "{name} was accepted");
        }
    }

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
