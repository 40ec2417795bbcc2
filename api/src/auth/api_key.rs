//! The text of API keys: `gtr_<prefix>_<secret>`.

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Letters and digits that nobody mixes up, five bits each.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// Fifty bits: enough that two keys do not meet.
const PREFIX: usize = 10;
/// 260 bits: nothing to guess, so that a plain hash is enough.
const SECRET: usize = 52;

/// A key as its holder sends it.
#[derive(Clone, Copy)]
pub(crate) struct ApiKeyText<'a> {
    pub(crate) prefix: &'a str,
    secret: &'a str,
}

impl<'a> ApiKeyText<'a> {
    /// Whether a bearer token is meant to be one.
    pub(crate) fn looks_like(token: &str) -> bool {
        token.starts_with("gtr_")
    }

    /// Its parts, if it can be one.
    pub(crate) fn read(token: &'a str) -> Option<Self> {
        let (prefix, secret) = token.strip_prefix("gtr_")?.split_once('_')?;
        let fits = |text: &str, length: usize| {
            text.len() == length && text.bytes().all(|byte| ALPHABET.contains(&byte))
        };
        (fits(prefix, PREFIX) && fits(secret, SECRET)).then_some(Self { prefix, secret })
    }

    /// Whether its secret is the one that was hashed; takes the same time wherever it differs.
    pub(crate) fn is(&self, hash: &[u8]) -> bool {
        self.hash().ct_eq(hash).into()
    }

    pub(crate) fn hash(&self) -> Vec<u8> {
        Sha256::digest(self.secret).to_vec()
    }
}

/// A new one.
pub(crate) fn generate() -> String {
    let mut text = String::from("gtr_");
    let bytes: [u8; PREFIX + SECRET] = rand::random();
    for (index, byte) in bytes.into_iter().enumerate() {
        if index == PREFIX {
            text.push('_');
        }
        text.push(char::from(ALPHABET[usize::from(byte & 31)]));
    }
    text
}

/// A secret of the same strength without a prefix: what refresh tokens are.
pub(crate) fn random() -> String {
    let bytes: [u8; SECRET] = rand::random();
    bytes.into_iter().map(|byte| char::from(ALPHABET[usize::from(byte & 31)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_generated_is_read_and_known_again() {
        let (text, other) = (generate(), generate());
        let key = ApiKeyText::read(&text).expect("it is one");
        assert!(text.starts_with(&format!("gtr_{}_", key.prefix)));
        assert!(key.is(&key.hash()));
        assert!(!key.is(&ApiKeyText::read(&other).expect("it is one").hash()));
    }

    #[test]
    fn what_cannot_be_one_is_not_looked_up() {
        let text = generate();
        for wrong in [
            "",
            "gtr_",
            "gtr__",
            "gtr_a_b",
            &text[..text.len() - 1],
            &format!("{text}a"),
            &text.to_uppercase(),
        ] {
            assert!(ApiKeyText::read(wrong).is_none(), "{wrong}");
        }
    }
}
