//! Keys of programs.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::access::Role;
use crate::clock::Instant;

/// A key, without what proves it.
#[derive(Debug, Clone)]
pub struct ApiKey {
    /// By which it is revoked.
    pub id: Uuid,
    /// Its public part.
    pub prefix: String,
    /// What it is for.
    pub name: String,
    /// The user whose it is.
    pub owner: Uuid,
    /// What it may do, as long as its owner may.
    pub role: Role,
    /// When it ends by itself.
    pub expires_at: Option<Instant>,
    /// When it was last used, to half a minute.
    pub last_used_at: Option<Instant>,
    /// When it was revoked.
    pub revoked_at: Option<Instant>,
    /// When it was made.
    pub created_at: Instant,
}

/// A key to be made.
#[derive(Debug)]
pub struct NewKey<'a> {
    /// Its public part.
    pub prefix: &'a str,
    /// SHA-256 of its secret part.
    pub hash: &'a [u8],
    /// What it is for.
    pub name: &'a str,
    /// The user whose it is.
    pub owner: Uuid,
    /// What it may do.
    pub role: Role,
    /// In how many seconds it ends by itself.
    pub ttl_s: Option<f64>,
}

/// Makes a key.
pub async fn create(
    conn: &mut PgConnection,
    id: Uuid,
    new: &NewKey<'_>,
) -> Result<ApiKey, sqlx::Error> {
    sqlx::query_as!(
        ApiKey,
        r#"insert into api_keys (id, prefix, hash, name, owner, role, expires_at)
           values ($1, $2, $3, $4, $5, $6, clock_timestamp() + $7 * interval '1 s')
           returning id, prefix, name, owner, role as "role: Role", expires_at, last_used_at, revoked_at, created_at"#,
        id,
        new.prefix,
        new.hash,
        new.name,
        new.owner,
        new.role as Role,
        new.ttl_s,
    )
    .fetch_one(conn)
    .await
}

/// A page of keys, newest first: of one owner, or of all.
pub async fn list(
    conn: &mut PgConnection,
    owner: Option<Uuid>,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<ApiKey>, sqlx::Error> {
    sqlx::query_as!(
        ApiKey,
        r#"select id, prefix, name, owner, role as "role: Role", expires_at, last_used_at, revoked_at, created_at
           from api_keys where ($1::uuid is null or owner = $1) and ($2::uuid is null or id < $2)
           order by id desc limit $3"#,
        owner,
        before,
        limit
    )
    .fetch_all(conn)
    .await
}

/// Revokes a key, of this owner or of anybody; its prefix, unless there is none.
pub async fn revoke(
    conn: &mut PgConnection,
    id: Uuid,
    owner: Option<Uuid>,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar!(
        "update api_keys set revoked_at = coalesce(revoked_at, clock_timestamp())
         where id = $1 and ($2::uuid is null or owner = $2) returning prefix",
        id,
        owner
    )
    .fetch_optional(conn)
    .await
}

/// Notes that keys are in use; at most once in half a minute each, so that use costs no writes.
pub async fn used(conn: &mut PgConnection, prefixes: &[String]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update api_keys set last_used_at = clock_timestamp()
         where prefix = any($1)
           and (last_used_at is null or last_used_at < clock_timestamp() - interval '30 s')",
        prefixes
    )
    .execute(conn)
    .await?;
    Ok(())
}
