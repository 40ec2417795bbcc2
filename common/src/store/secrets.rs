//! Secrets of nodes, sealed. Only [`crate::secret`] opens them.

use sqlx::PgConnection;

use crate::clock::Instant;

/// What is shown of a secret.
#[derive(Debug)]
pub struct Shown {
    /// Its name.
    pub name: String,
    /// Who made it.
    pub created_by: String,
    /// When it was made.
    pub created_at: Instant,
    /// When it was last given a value.
    pub updated_at: Instant,
}

/// A secret as it is stored.
#[derive(Debug, Clone)]
pub struct Sealed {
    /// Its name.
    pub name: String,
    /// Which key sealed it.
    pub key_id: String,
    /// Nonce, ciphertext and tag.
    pub sealed: Vec<u8>,
}

/// Stores a value under its name, in place of the one before; whether it is new, and what is shown of it.
pub async fn put(
    conn: &mut PgConnection,
    secret: &Sealed,
    by: &str,
) -> Result<(bool, Shown), sqlx::Error> {
    let put = sqlx::query!(
        r#"insert into secrets (name, key_id, sealed, created_by) values ($1, $2, $3, $4)
           on conflict (name) do update
           set key_id = excluded.key_id, sealed = excluded.sealed, updated_at = clock_timestamp()
           returning xmax = 0 as "is_new!", name, created_by, created_at, updated_at"#,
        secret.name,
        secret.key_id,
        secret.sealed,
        by
    )
    .fetch_one(conn)
    .await?;
    let shown = Shown {
        name: put.name,
        created_by: put.created_by,
        created_at: put.created_at,
        updated_at: put.updated_at,
    };
    Ok((put.is_new, shown))
}

/// A page of names, in their order.
pub async fn list(
    conn: &mut PgConnection,
    after: &str,
    limit: i64,
) -> Result<Vec<Shown>, sqlx::Error> {
    sqlx::query_as!(
        Shown,
        "select name, created_by, created_at, updated_at from secrets
         where name > $1 order by name limit $2",
        after,
        limit
    )
    .fetch_all(conn)
    .await
}

/// Forgets a secret; whether there was one.
pub async fn delete(conn: &mut PgConnection, name: &str) -> Result<bool, sqlx::Error> {
    let gone = sqlx::query!("delete from secrets where name = $1", name).execute(conn).await?;
    Ok(gone.rows_affected() == 1)
}

/// Those of the names that there are.
pub async fn sealed(conn: &mut PgConnection, names: &[String]) -> Result<Vec<Sealed>, sqlx::Error> {
    sqlx::query_as!(Sealed, "select name, key_id, sealed from secrets where name = any($1)", names)
        .fetch_all(conn)
        .await
}

/// Those that another key than `key_id` sealed.
pub async fn sealed_otherwise(
    conn: &mut PgConnection,
    key_id: &str,
) -> Result<Vec<Sealed>, sqlx::Error> {
    sqlx::query_as!(
        Sealed,
        "select name, key_id, sealed from secrets where key_id <> $1 order by name",
        key_id
    )
    .fetch_all(conn)
    .await
}

/// Puts a secret that was sealed anew in the place of what it was opened from, unless that has changed meanwhile.
pub async fn reseal(
    conn: &mut PgConnection,
    before: &Sealed,
    after: &Sealed,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query!(
        "update secrets set key_id = $2, sealed = $3 where name = $1 and sealed = $4",
        before.name,
        after.key_id,
        after.sealed,
        before.sealed
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}
