//! Answers to requests that carried an `Idempotency-Key`: the same request gets the same answer for 24 hours.

use std::collections::HashSet;

use serde_json::Value;
use sqlx::PgConnection;

/// A key that a request carried, and the answer that it will get.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// Who sent the request.
    pub principal: String,
    /// Method and path.
    pub route: String,
    /// The client's key.
    pub key: String,
    /// SHA-256 of the body.
    pub body_hash: Vec<u8>,
    /// What is answered, complete.
    pub answer: Value,
}

/// An answer that was given before.
#[derive(Debug)]
pub struct Given {
    /// Who got it.
    pub principal: String,
    /// For which method and path.
    pub route: String,
    /// Under which key.
    pub key: String,
    /// SHA-256 of the body that it answered.
    pub body_hash: Vec<u8>,
    /// The answer.
    pub answer: Value,
}

/// Begins a transaction that waits for a key in another's hands for 2 s, then fails with 55P03.
pub const BEGIN: &str = "begin; set local lock_timeout = '2s'";

/// The answers that were given to any of these keys.
pub async fn given<'a>(
    conn: &mut PgConnection,
    keys: impl Iterator<Item = &'a NewKey>,
) -> Result<Vec<Given>, sqlx::Error> {
    let (mut principals, mut routes, mut names) = (Vec::new(), Vec::new(), Vec::new());
    for key in keys {
        principals.push(key.principal.as_str());
        routes.push(key.route.as_str());
        names.push(key.key.as_str());
    }
    sqlx::query_as!(
        Given,
        "select k.principal, k.route, k.key, k.body_hash, k.answer
         from unnest($1::text[], $2::text[], $3::text[]) as asked (principal, route, key)
         join idempotency_keys k using (principal, route, key)
         where k.created_at > clock_timestamp() - interval '24 hours'",
        &principals as &[&str],
        &routes as &[&str],
        &names as &[&str],
    )
    .fetch_all(conn)
    .await
}

/// Claims the keys, all different, for this transaction, and returns those that it got: the others were given an
/// answer in the meantime. Waits for another transaction that holds one, up to the caller's `lock_timeout`.
pub async fn claim(
    conn: &mut PgConnection,
    keys: &[&NewKey],
) -> Result<HashSet<(String, String, String)>, sqlx::Error> {
    // In one order everywhere, so that two transactions cannot wait for each other.
    let mut keys = keys.to_vec();
    keys.sort_by(|a, b| (&a.principal, &a.route, &a.key).cmp(&(&b.principal, &b.route, &b.key)));
    let claimed = sqlx::query!(
        "insert into idempotency_keys (principal, route, key, body_hash, answer)
         select principal, route, key, body_hash, answer::jsonb
         from unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::text[])
             as asked (principal, route, key, body_hash, answer)
         on conflict (principal, route, key) do update
         set body_hash = excluded.body_hash, answer = excluded.answer, created_at = clock_timestamp()
         where idempotency_keys.created_at <= clock_timestamp() - interval '24 hours'
         returning principal, route, key",
        &keys.iter().map(|key| key.principal.as_str()).collect::<Vec<_>>() as &[&str],
        &keys.iter().map(|key| key.route.as_str()).collect::<Vec<_>>() as &[&str],
        &keys.iter().map(|key| key.key.as_str()).collect::<Vec<_>>() as &[&str],
        &keys.iter().map(|key| key.body_hash.as_slice()).collect::<Vec<_>>() as &[&[u8]],
        &keys.iter().map(|key| key.answer.to_string()).collect::<Vec<_>>(),
    )
    .fetch_all(conn)
    .await?;
    Ok(claimed.into_iter().map(|row| (row.principal, row.route, row.key)).collect())
}
