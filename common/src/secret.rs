//! Secrets of nodes: sealed before they are stored, opened only where they are used, and masked in all that comes of
//! that.

mod mask;
mod masker;

use std::fmt;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use clap::Args;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use sha2::{Digest, Sha256};

pub use self::mask::Mask;
pub use self::masker::Masker;
use crate::config::{self, Secret, Unusable};
use crate::store::secrets::Sealed;

/// How long a value may be, in bytes. A shorter one could not be masked without masking words that happen to be the
/// same.
pub const LENGTHS: std::ops::RangeInclusive<usize> = 8..=65_536;

/// Whether this can be the name of a secret: `{{ secrets.NAME }}` has to parse.
pub fn is_name(text: &str) -> bool {
    let starts = |c: char| c.is_ascii_alphabetic() || c == '_';
    (1..=64).contains(&text.len())
        && text.starts_with(starts)
        && text.chars().all(|c| starts(c) || c.is_ascii_digit())
}

/// The setting.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Secrets")]
pub struct Setting {
    /// The keys that secrets are sealed with, 32 bytes in base64 each, with commas between: the first seals, all open
    #[arg(long, env = "GATHERING_SECRETS_KEY", hide_env_values = true, value_name = "KEYS")]
    secrets_key: Option<Secret>,
    /// A file that holds GATHERING_SECRETS_KEY
    #[arg(long, env = "GATHERING_SECRETS_KEY_FILE", value_name = "PATH")]
    secrets_key_file: Option<PathBuf>,
}

impl Setting {
    /// The keys; none when the setting is not given, and then there are no secrets.
    ///
    /// # Errors
    /// Names the variable that cannot be used.
    pub fn resolve(&self) -> Result<Option<Keys>, Unusable> {
        const NAME: &str = "GATHERING_SECRETS_KEY";
        let given =
            config::secret(NAME, self.secrets_key.as_ref(), self.secrets_key_file.as_ref())?;
        let Some(given) = given.filter(|given| !given.reveal().is_empty()) else { return Ok(None) };
        let keys = given.reveal().split(',').map(|text| Key::read(text.trim()));
        let form = "wants keys of 32 bytes in base64, such as `openssl rand -base64 32` prints, with commas between";
        match keys.collect::<Option<Vec<_>>>() {
            Some(keys) if !keys.is_empty() => Ok(Some(Keys(keys))),
            _ => Err(Unusable::new(NAME, form)),
        }
    }
}

struct Key {
    id: String,
    key: LessSafeKey,
}

impl Key {
    fn read(text: &str) -> Option<Self> {
        let bytes = STANDARD.decode(text).ok().filter(|bytes| bytes.len() == 32)?;
        let id = URL_SAFE_NO_PAD.encode(&Sha256::digest(&bytes)[..9]);
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &bytes).ok()?);
        Some(Self { id, key })
    }
}

/// The keys that secrets are sealed with. The first seals; all of them open.
pub struct Keys(Vec<Key>);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| &key.id)).finish()
    }
}

impl Keys {
    /// The name of the key that seals.
    ///
    /// # Panics
    /// Never: there is one key at least.
    pub fn sealing(&self) -> &str {
        &self.0[0].id
    }

    /// Seals a value under its name.
    ///
    /// # Errors
    /// When the system has no randomness, or the value is too long.
    pub fn seal(&self, name: &str, value: &str) -> Result<Sealed, String> {
        let key = &self.0[0];
        let nonce: [u8; NONCE_LEN] = rand::random();
        let mut text = value.as_bytes().to_vec();
        key.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(name.as_bytes()),
                &mut text,
            )
            .map_err(|_| "it cannot be sealed".to_owned())?;
        let sealed = [nonce.as_slice(), &text].concat();
        Ok(Sealed { name: name.to_owned(), key_id: key.id.clone(), sealed })
    }

    /// The value of a secret.
    ///
    /// # Errors
    /// Says what is missing: the key, or an untouched row.
    pub fn open(&self, secret: &Sealed) -> Result<String, String> {
        let name = &secret.name;
        let key = self.0.iter().find(|key| key.id == secret.key_id).ok_or_else(|| {
            format!("`secrets.{name}` was sealed with a key that GATHERING_SECRETS_KEY does not list here")
        })?;
        let damaged = || format!("`secrets.{name}` was not sealed under this name, or is damaged");
        let (nonce, text) = secret.sealed.split_at_checked(NONCE_LEN).ok_or_else(damaged)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| damaged())?;
        let mut text = text.to_vec();
        let opened = key
            .key
            .open_in_place(nonce, Aad::from(name.as_bytes()), &mut text)
            .map_err(|_| damaged())?;
        String::from_utf8(opened.to_vec()).map_err(|_| damaged())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn keys(bytes: &[u8]) -> Keys {
        let texts: Vec<_> = bytes.iter().map(|byte| STANDARD.encode([*byte; 32])).collect();
        let setting =
            Setting { secrets_key: Some(Secret::from(texts.join(", "))), secrets_key_file: None };
        setting.resolve().unwrap().unwrap()
    }

    #[test]
    fn what_is_sealed_opens_under_its_name_and_with_its_key_only() {
        let sealed = keys(&[1]).seal("TOKEN", "correct horse").unwrap();
        assert!(!sealed.sealed.windows(7).any(|part| part == b"correct"));
        assert_eq!(keys(&[1]).open(&sealed).unwrap(), "correct horse");
        assert_eq!(keys(&[2, 1]).open(&sealed).unwrap(), "correct horse", "a former key opens");
        assert!(keys(&[2]).open(&sealed).unwrap_err().contains("does not list"));
        let moved = Sealed { name: "OTHER".into(), ..sealed.clone() };
        assert!(keys(&[1]).open(&moved).unwrap_err().contains("not sealed under this name"));
        let mut bent = sealed.clone();
        *bent.sealed.last_mut().unwrap() ^= 1;
        assert!(keys(&[1]).open(&bent).unwrap_err().contains("damaged"));
        let again = keys(&[1]).seal("TOKEN", "correct horse").unwrap();
        assert_ne!(again.sealed, sealed.sealed, "no nonce comes twice");
    }

    #[test]
    fn a_wrong_key_is_named_by_its_variable_and_not_shown() {
        for text in [",", "c2hvcnQ=", "not base64!", &format!("{},", STANDARD.encode([1; 32]))] {
            let setting = Setting {
                secrets_key: Some(Secret::from(text.to_owned())),
                secrets_key_file: None,
            };
            let refusal = setting.resolve().unwrap_err().to_string();
            assert!(
                refusal.starts_with("GATHERING_SECRETS_KEY: wants keys of 32 bytes"),
                "{refusal}"
            );
            assert!(text.len() < 3 || !refusal.contains(text), "{refusal}");
        }
    }

    #[test]
    fn names_are_those_of_variables() {
        for name in ["A", "_x", "SMTP_PASSWORD", "a1"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "1a", "a-b", "a b", "ä", "a\0", &"a".repeat(65)] {
            assert!(!is_name(name), "{name}");
        }
    }
}
