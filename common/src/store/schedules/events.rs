//! Events: accepted here, and dealt with by the leader, which deletes what it has dealt with.

use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::clock::{self, Instant};

/// An event that was accepted.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its place in the order of arrival.
    pub seq: i64,
    /// Its id.
    pub id: Uuid,
    /// Its type.
    pub event_type: String,
    /// What it carries.
    pub data: Value,
    /// How many events led to it.
    pub depth: i32,
    /// Of those that listen, those up to this one have fired.
    pub after_id: Option<Uuid>,
    /// When it was accepted.
    pub created_at: Instant,
}

impl Event {
    /// As templates and conditions see it.
    pub fn shown(&self) -> Value {
        json!({
            "id": self.id, "type": self.event_type, "data": self.data, "depth": self.depth,
            "at": clock::text(&self.created_at),
        })
    }
}

/// Accepts an event; it is durable once the caller's transaction is committed.
pub async fn accept(
    conn: &mut PgConnection,
    id: Uuid,
    event_type: &str,
    data: &Value,
) -> Result<(), sqlx::Error> {
    sqlx::query!("insert into events (id, type, data) values ($1, $2, $3)", id, event_type, data)
        .execute(conn)
        .await?;
    Ok(())
}

/// The oldest events that nobody has dealt with. Deleting them tells the rest: there is no mark that a late commit
/// could fall behind.
pub async fn waiting(conn: &mut PgConnection, limit: i64) -> Result<Vec<Event>, sqlx::Error> {
    sqlx::query_as!(
        Event,
        "select seq, id, type as event_type, data, depth, after_id, created_at from events order by seq limit $1",
        limit
    )
    .fetch_all(conn)
    .await
}

/// Notes how far an event has come among those that listen.
pub(super) async fn proceed(
    conn: &mut PgConnection,
    seq: i64,
    after: Uuid,
) -> Result<(), sqlx::Error> {
    sqlx::query!("update events set after_id = $2 where seq = $1", seq, after)
        .execute(conn)
        .await?;
    Ok(())
}

/// Takes events out that are dealt with in the caller's transaction.
pub(super) async fn delete(conn: &mut PgConnection, seqs: &[i64]) -> Result<(), sqlx::Error> {
    sqlx::query!("delete from events where seq = any($1)", seqs).execute(conn).await?;
    Ok(())
}

/// Puts an event that cannot be dealt with behind all others.
pub async fn postpone(conn: &mut PgConnection, seq: i64) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "with gone as (delete from events where seq = $1 returning id, type, data, depth, after_id, created_at)
         insert into events (id, type, data, depth, after_id, created_at)
         select id, type, data, depth, after_id, created_at from gone",
        seq
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Up to `limit` schedules that listen to one of these types, after one, by id.
pub(super) async fn listeners(
    conn: &mut PgConnection,
    types: &[String],
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        "select s.id from schedules s
         where s.listens is not null and exists (select from unnest($1::text[]) as t (type) where t.type like s.listens)
             and ($2::uuid is null or s.id > $2)
         order by s.id limit $3",
        types,
        after,
        limit
    )
    .fetch_all(conn)
    .await
}
