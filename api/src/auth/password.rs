//! Passwords: which are taken, and how they are hashed and compared.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use tokio::sync::Semaphore;

use crate::error::ApiError;

/// How many characters one may have.
const LENGTHS: std::ops::RangeInclusive<usize> = 8..=256;
/// How long a turn is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

static COMMON: LazyLock<HashSet<&'static str>> =
    LazyLock::new(|| include_str!("common_passwords.txt").lines().collect());

/// What is wrong with a password that somebody chose.
pub(crate) fn fault(password: &str) -> Option<String> {
    if !LENGTHS.contains(&password.chars().count()) {
        return Some(format!("must have {} to {} characters", LENGTHS.start(), LENGTHS.end()));
    }
    COMMON
        .contains(password.to_lowercase().as_str())
        .then(|| "is one of those that everybody tries first; choose another".to_owned())
}

/// Hashes and compares a few at a time, on threads of their own: each takes a core for tens of milliseconds.
#[derive(Clone)]
pub(crate) struct Passwords {
    turns: Arc<Semaphore>,
    /// What is compared with when there is no account, so that it takes the same time.
    nobody: Arc<str>,
}

impl Passwords {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let nobody = hashed("the password of nobody").map_err(anyhow::Error::msg)?;
        Ok(Self { turns: Arc::new(Semaphore::new((cores / 2).max(1))), nobody: nobody.into() })
    }

    /// Argon2id in the PHC form.
    pub(crate) async fn hash(&self, password: String) -> Result<String, ApiError> {
        self.apart(move || hashed(&password)).await?.map_err(ApiError::internal)
    }

    /// Whether it is the password; it never is when there is no hash, and finding that out takes as long.
    pub(crate) async fn is(
        &self,
        password: String,
        hash: Option<String>,
    ) -> Result<bool, ApiError> {
        let nobody = self.nobody.clone();
        self.apart(move || {
            let is_somebody = hash.is_some();
            let hash = hash.as_deref().unwrap_or(&nobody);
            let fits = PasswordHash::new(hash).is_ok_and(|hash| {
                Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()
            });
            fits && is_somebody
        })
        .await
    }

    async fn apart<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let busy = || ApiError::unavailable("Too many are signing in at once; try again.");
        let turn = tokio::time::timeout(PATIENCE, self.turns.clone().acquire_owned()).await;
        let Ok(Ok(turn)) = turn else { return Err(busy()) };
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        });
        done.await.map_err(|error| ApiError::internal(error.to_string()))
    }
}

fn hashed(password: &str) -> Result<String, String> {
    let hash = Argon2::default().hash_password(password.as_bytes());
    hash.map(|hash| hash.to_string()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_counted_in_characters_and_common_ones_are_refused() {
        assert!(fault("kürzer7").is_some());
        assert!(fault("länger8!").is_none());
        assert!(fault(&"ü".repeat(256)).is_none());
        assert!(fault(&"x".repeat(257)).is_some());
        for common in ["password", "Password1", "12345678", "QWERTYUIOP", "iloveyou"] {
            assert!(fault(common).is_some(), "{common}");
        }
        assert!(COMMON.len() >= 300, "{}", COMMON.len());
        assert!(COMMON.iter().all(|common| *common == common.to_lowercase()));
    }

    #[tokio::test]
    async fn it_is_argon2id_with_a_salt() {
        let passwords = Passwords::new().expect("it hashes");
        let hash = passwords.hash("correct horse".to_owned()).await.expect("it hashes");
        assert!(hash.starts_with("$argon2id$"), "{hash}");
        assert_ne!(hash, passwords.hash("correct horse".to_owned()).await.expect("it hashes"));
        let is = async |password: &str, hash: Option<&String>| {
            passwords.is(password.to_owned(), hash.cloned()).await.expect("it compares")
        };
        assert!(is("correct horse", Some(&hash)).await);
        assert!(!is("battery staple", Some(&hash)).await);
        assert!(!is("the password of nobody", None).await);
    }
}
