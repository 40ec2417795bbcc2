//! Access tokens.

use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use super::{Caller, Role};

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
        ttl: Duration,
    ) -> jsonwebtoken::errors::Result<String> {
        let iat = jsonwebtoken::get_current_timestamp();
        let claims =
            Claims { sub: sub.to_owned(), role, iat, exp: iat.saturating_add(ttl.as_secs()) };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.encoding)
    }

    /// Who the token was signed for; why it is refused is nobody's business but the log's.
    pub(super) fn verify(&self, token: &str) -> Option<Caller> {
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

#[cfg(test)]
mod tests {
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
}
