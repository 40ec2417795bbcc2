//! Access tokens: HS256 under a named key, and nothing else.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::access::Role;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Who signs, and for whom.
const ISSUER: &str = "gathering";
/// The longest token that is looked at.
const LONGEST: usize = 4096;
/// How far the clocks of two replicas may differ.
const SKEW_S: u64 = 5;
/// How long an access token is valid that somebody gets for signing in.
pub(crate) const ACCESS_TTL: Duration = Duration::from_secs(3600);

/// The claims of an access token: all of them have to be there.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    role: Role,
    jti: Uuid,
    iat: u64,
    nbf: u64,
    exp: u64,
}

/// What a token says that was signed here and has not expired.
#[derive(Debug, Clone)]
pub(crate) struct Verified {
    /// A user's id, or a name that an operator gave.
    pub(crate) sub: String,
    /// What an operator gave; a user's is looked up.
    pub(crate) role: Role,
    pub(crate) jti: Uuid,
    /// How long it is still valid.
    pub(crate) remaining: Duration,
}

struct Key {
    kid: String,
    decoding: DecodingKey,
}

/// Signs with one key, and verifies with several, so that keys can be changed while tokens of the old one go on.
pub(crate) struct Tokens {
    signing: EncodingKey,
    kid: String,
    keys: Vec<Key>,
    validation: Validation,
}

/// A key's name: it tells which one it is, and nothing about it.
fn kid(secret: &[u8]) -> String {
    let digest = Sha256::new_with_prefix(b"kid").chain_update(secret).finalize();
    URL_SAFE_NO_PAD.encode(&digest[..9])
}

impl Tokens {
    /// Signs with `secret`; what one of `others` signed is accepted, too.
    pub(crate) fn new<'a>(secret: &'a [u8], others: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_required_spec_claims(&["iss", "aud", "sub", "nbf", "exp"]);
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[ISSUER]);
        validation.validate_nbf = true;
        validation.leeway = SKEW_S;
        let key = |secret| Key { kid: kid(secret), decoding: DecodingKey::from_secret(secret) };
        Self {
            signing: EncodingKey::from_secret(secret),
            kid: kid(secret),
            keys: std::iter::once(secret).chain(others).map(key).collect(),
            validation,
        }
    }

    /// An access token for `sub`, valid for `ttl` from now, and its id.
    pub(crate) fn sign(
        &self,
        sub: &str,
        role: Role,
        ttl: Duration,
    ) -> jsonwebtoken::errors::Result<(String, Uuid)> {
        let iat = jsonwebtoken::get_current_timestamp();
        let jti = Uuid::new_v4();
        let (iss, aud, sub) = (ISSUER.to_owned(), ISSUER.to_owned(), sub.to_owned());
        let exp = iat.saturating_add(ttl.as_secs());
        let claims = Claims { iss, aud, sub, role, jti, iat, nbf: iat, exp };
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(Algorithm::HS256) };
        Ok((jsonwebtoken::encode(&header, &claims, &self.signing)?, jti))
    }

    /// What the token says; why it is refused is nobody's business but the log's.
    pub(super) fn verify(&self, token: &str) -> Option<Verified> {
        if token.len() > LONGEST {
            return None;
        }
        let refused = |error: &jsonwebtoken::errors::Error| {
            tracing::debug!(%error, "a token was refused");
        };
        let header = jsonwebtoken::decode_header(token).inspect_err(refused).ok()?;
        let kid = header.kid?;
        let key = self.keys.iter().find(|key| key.kid == kid)?;
        let claims = jsonwebtoken::decode::<Claims>(token, &key.decoding, &self.validation)
            .inspect_err(refused)
            .ok()?
            .claims;
        let now = jsonwebtoken::get_current_timestamp();
        let is_plain =
            (1..=255).contains(&claims.sub.len()) && !claims.sub.chars().any(char::is_control);
        let is_timely = claims.iat <= now + SKEW_S && claims.exp > now;
        let remaining = Duration::from_secs(claims.exp.saturating_sub(now));
        let Claims { sub, role, jti, .. } = claims;
        (is_plain && is_timely).then_some(Verified { sub, role, jti, remaining })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &[u8] = b"0123456789abcdef0123456789abcdef";
    const NEW: &[u8] = b"another secret, as long as that one";

    #[test]
    fn a_key_is_changed_while_tokens_of_the_old_one_go_on() {
        let sign =
            |tokens: &Tokens| tokens.sign("ada", Role::Operator, ACCESS_TTL).expect("it signs").0;
        let before = Tokens::new(OLD, []);
        let after = Tokens::new(NEW, [OLD]);
        let last = Tokens::new(NEW, []);
        let (old, new) = (sign(&before), sign(&after));
        assert_eq!(after.verify(&old).map(|token| token.sub).as_deref(), Some("ada"));
        assert!(after.verify(&new).is_some() && last.verify(&new).is_some());
        assert!(last.verify(&old).is_none() && before.verify(&new).is_none());
    }

    #[test]
    fn no_token_comes_twice() {
        let tokens = Tokens::new(OLD, []);
        let sign = || tokens.sign("ada", Role::Viewer, ACCESS_TTL).expect("it signs").0;
        assert_ne!(sign(), sign());
    }
}
