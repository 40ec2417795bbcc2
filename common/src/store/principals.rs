//! Whether those who sent tokens and keys may still do what they could: many of them in one look.

use std::collections::HashSet;

use sqlx::PgConnection;
use uuid::Uuid;

use crate::access::Role;

/// A user at this moment.
#[derive(Debug, Clone, Copy)]
pub struct UserStanding {
    /// The account.
    pub id: Uuid,
    /// What they may do.
    pub role: Role,
    /// Whether their tokens are refused.
    pub is_disabled: bool,
}

/// A key at this moment.
#[derive(Debug, Clone)]
pub struct KeyStanding {
    /// Its public part.
    pub prefix: String,
    /// SHA-256 of its secret part.
    pub hash: Vec<u8>,
    /// Whose it is.
    pub owner: Uuid,
    /// What it may do: its own role, or its owner's if that is less.
    pub role: Role,
    /// Neither revoked nor expired, and its owner is not disabled.
    pub is_good: bool,
}

/// Those of the access tokens that are revoked.
pub async fn revoked(conn: &mut PgConnection, jtis: &[Uuid]) -> Result<HashSet<Uuid>, sqlx::Error> {
    let revoked = sqlx::query_scalar!("select jti from revoked_tokens where jti = any($1)", jtis)
        .fetch_all(conn)
        .await?;
    Ok(revoked.into_iter().collect())
}

/// The users that there are.
pub async fn users(
    conn: &mut PgConnection,
    ids: &[Uuid],
) -> Result<Vec<UserStanding>, sqlx::Error> {
    sqlx::query_as!(
        UserStanding,
        r#"select id, role as "role: Role", disabled_at is not null as "is_disabled!"
           from users where id = any($1)"#,
        ids
    )
    .fetch_all(conn)
    .await
}

/// The keys that there are.
pub async fn keys(
    conn: &mut PgConnection,
    prefixes: &[String],
) -> Result<Vec<KeyStanding>, sqlx::Error> {
    sqlx::query_as!(
        KeyStanding,
        r#"select k.prefix, k.hash, k.owner, least(k.role, u.role) as "role!: Role",
               k.revoked_at is null and u.disabled_at is null
                   and (k.expires_at is null or k.expires_at > clock_timestamp()) as "is_good!"
           from api_keys k join users u on u.id = k.owner
           where k.prefix = any($1)"#,
        prefixes
    )
    .fetch_all(conn)
    .await
}
