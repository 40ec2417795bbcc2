//! Sign-ins: families of refresh tokens, and access tokens that are refused before they expire.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::access::Role;

/// A pair of tokens to be recorded. Neither is stored: one as its hash, the other by its id.
#[derive(Debug)]
pub struct Pair {
    /// SHA-256 of the refresh token.
    pub hash: Vec<u8>,
    /// How long it can be used, in seconds.
    pub refresh_ttl_s: f64,
    /// The access token's id.
    pub jti: Uuid,
    /// How long that is valid, in seconds.
    pub access_ttl_s: f64,
}

/// What came of using a refresh token.
#[derive(Debug, PartialEq, Eq)]
pub enum Refreshed {
    /// It is unknown, expired or revoked, or its user is disabled.
    Refused,
    /// It had been used before: its family is revoked now.
    Reused {
        /// Whose it was.
        user: Uuid,
    },
    /// It is spent, and the new pair recorded.
    Done {
        /// Whose it is.
        user: Uuid,
    },
}

/// Begins a family with its first pair, unless the user is disabled by now; whether it did.
pub async fn begin(
    conn: &mut PgConnection,
    family: Uuid,
    user: Uuid,
    pair: &Pair,
) -> Result<bool, sqlx::Error> {
    let begun = sqlx::query!(
        "with family as (
             insert into token_families (id, user_id)
             select $1, id from users where id = $2 and disabled_at is null
             returning id
         )
         insert into refresh_tokens (hash, family_id, access_jti, access_expires_at, expires_at)
         select $3, id, $4, clock_timestamp() + $5 * interval '1 s', clock_timestamp() + $6 * interval '1 s'
         from family",
        family,
        user,
        pair.hash,
        pair.jti,
        pair.access_ttl_s,
        pair.refresh_ttl_s,
    )
    .execute(conn)
    .await?;
    Ok(begun.rows_affected() == 1)
}

/// Whose a refresh token is, spent or not.
#[derive(Debug)]
pub struct Owner {
    /// The account.
    pub id: Uuid,
    /// What they may do.
    pub role: Role,
}

/// Whose a refresh token is, if it is known.
pub async fn owner(conn: &mut PgConnection, hash: &[u8]) -> Result<Option<Owner>, sqlx::Error> {
    sqlx::query_as!(
        Owner,
        r#"select u.id, u.role as "role: Role"
           from refresh_tokens t
           join token_families f on f.id = t.family_id
           join users u on u.id = f.user_id
           where t.hash = $1"#,
        hash
    )
    .fetch_optional(conn)
    .await
}

/// Spends a refresh token for a new pair, within the caller's transaction.
pub async fn refresh(
    conn: &mut PgConnection,
    hash: &[u8],
    pair: &Pair,
) -> Result<Refreshed, sqlx::Error> {
    let found = sqlx::query!(
        r#"select t.family_id, f.user_id, t.spent_at is not null as "is_spent!",
               t.expires_at > clock_timestamp() and f.revoked_at is null and u.disabled_at is null as "is_good!"
           from refresh_tokens t
           join token_families f on f.id = t.family_id
           join users u on u.id = f.user_id
           where t.hash = $1
           for no key update of t, f"#,
        hash
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(found) = found else { return Ok(Refreshed::Refused) };
    if found.is_spent {
        revoke_family(conn, found.family_id).await?;
        return Ok(Refreshed::Reused { user: found.user_id });
    }
    if !found.is_good {
        return Ok(Refreshed::Refused);
    }
    sqlx::query!("update refresh_tokens set spent_at = clock_timestamp() where hash = $1", hash)
        .execute(&mut *conn)
        .await?;
    sqlx::query!(
        "insert into refresh_tokens (hash, family_id, access_jti, access_expires_at, expires_at)
         values ($1, $2, $3, clock_timestamp() + $4 * interval '1 s', clock_timestamp() + $5 * interval '1 s')",
        pair.hash,
        found.family_id,
        pair.jti,
        pair.access_ttl_s,
        pair.refresh_ttl_s,
    )
    .execute(conn)
    .await?;
    Ok(Refreshed::Done { user: found.user_id })
}

/// Refuses an access token from now on, and the family to which it belongs, within the caller's transaction.
pub async fn log_out(
    conn: &mut PgConnection,
    jti: Uuid,
    remaining_s: f64,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into revoked_tokens (jti, expires_at)
         values ($1, clock_timestamp() + $2 * interval '1 s') on conflict (jti) do nothing",
        jti,
        remaining_s
    )
    .execute(&mut *conn)
    .await?;
    let family =
        sqlx::query_scalar!("select family_id from refresh_tokens where access_jti = $1", jti)
            .fetch_optional(&mut *conn)
            .await?;
    if let Some(family) = family {
        revoke_family(conn, family).await?;
    }
    Ok(())
}

/// Revokes all families of a user, within the caller's transaction.
pub async fn revoke_all(conn: &mut PgConnection, user: Uuid) -> Result<(), sqlx::Error> {
    let families = sqlx::query_scalar!(
        "select id from token_families where user_id = $1 and revoked_at is null order by id",
        user
    )
    .fetch_all(&mut *conn)
    .await?;
    for family in families {
        revoke_family(conn, family).await?;
    }
    Ok(())
}

/// The family first, so that a refresh under way has ended when its access tokens are looked up.
async fn revoke_family(conn: &mut PgConnection, family: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update token_families set revoked_at = coalesce(revoked_at, clock_timestamp()) where id = $1",
        family
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "insert into revoked_tokens (jti, expires_at)
         select access_jti, access_expires_at from refresh_tokens
         where family_id = $1 and access_expires_at > clock_timestamp() - interval '5 min'
         on conflict (jti) do nothing",
        family
    )
    .execute(conn)
    .await?;
    Ok(())
}
