//! Security events, as they are recorded and read.

use serde_json::Value;
use sqlx::{PgConnection, PgPool, Postgres, QueryBuilder};
use uuid::Uuid;

use crate::clock::Instant;

/// An event to be recorded.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// In time order.
    pub id: Uuid,
    /// What happened.
    pub kind: &'static str,
    /// Who did it, if they were signed in.
    pub actor: Option<String>,
    /// To whom or what.
    pub subject: Option<String>,
    /// The client's address.
    pub address: String,
    /// The request.
    pub request_id: String,
    /// What else is worth knowing; never a password or a token.
    pub detail: Value,
    /// When it happened.
    pub since: std::time::Instant,
}

/// An event that was recorded.
#[derive(Debug, sqlx::FromRow)]
pub struct Event {
    /// In time order.
    pub id: Uuid,
    /// What happened.
    pub kind: String,
    /// Who did it, if they were signed in.
    pub actor: Option<String>,
    /// To whom or what.
    pub subject: Option<String>,
    /// The client's address.
    pub address: String,
    /// The request.
    pub request_id: String,
    /// What else is worth knowing.
    pub detail: Value,
    /// When it happened.
    pub at: Instant,
}

/// What to list.
#[derive(Debug, Default)]
pub struct Filter {
    /// Of one of these kinds; empty: of any.
    pub kinds: Vec<String>,
    /// By this actor.
    pub actor: Option<String>,
    /// About this subject.
    pub subject: Option<String>,
    /// From this address.
    pub address: Option<String>,
    /// Of this request.
    pub request_id: Option<String>,
    /// After this instant.
    pub after: Option<Instant>,
    /// Before this instant.
    pub before: Option<Instant>,
    /// Older than this event: the last of the page before.
    pub older_than: Option<Uuid>,
}

/// Records events; one that is recorded already stays as it is.
pub async fn record(conn: &mut PgConnection, events: &[NewEvent]) -> Result<(), sqlx::Error> {
    let ages: Vec<f64> = events.iter().map(|event| event.since.elapsed().as_secs_f64()).collect();
    sqlx::query!(
        "insert into audit_events (id, kind, actor, subject, address, request_id, detail, at)
         select id, kind, actor, subject, address, request_id, detail::jsonb,
             clock_timestamp() - age * interval '1 s'
         from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::float8[])
             as t (id, kind, actor, subject, address, request_id, detail, age)
         on conflict (id) do nothing",
        &events.iter().map(|event| event.id).collect::<Vec<_>>(),
        &events.iter().map(|event| event.kind).collect::<Vec<_>>() as &[&str],
        &events.iter().map(|event| event.actor.as_deref()).collect::<Vec<_>>() as &[Option<&str>],
        &events.iter().map(|event| event.subject.as_deref()).collect::<Vec<_>>() as &[Option<&str>],
        &events.iter().map(|event| event.address.as_str()).collect::<Vec<_>>() as &[&str],
        &events.iter().map(|event| event.request_id.as_str()).collect::<Vec<_>>() as &[&str],
        &events.iter().map(|event| event.detail.to_string()).collect::<Vec<_>>(),
        &ages,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A page of events, newest first. The statement is built, since each filter has its own index.
pub async fn list(pool: &PgPool, filter: &Filter, limit: i64) -> Result<Vec<Event>, sqlx::Error> {
    let mut query: QueryBuilder<Postgres> = QueryBuilder::new(
        "select id, kind, actor, subject, address, request_id, detail, at from audit_events where true",
    );
    if !filter.kinds.is_empty() {
        query.push(" and kind = any(").push_bind(&filter.kinds).push(")");
    }
    for (column, value) in [
        ("actor", &filter.actor),
        ("subject", &filter.subject),
        ("address", &filter.address),
        ("request_id", &filter.request_id),
    ] {
        if let Some(value) = value {
            query.push(" and ").push(column).push(" = ").push_bind(value);
        }
    }
    if let Some(after) = filter.after {
        query.push(" and at > ").push_bind(after);
    }
    if let Some(before) = filter.before {
        query.push(" and at < ").push_bind(before);
    }
    if let Some(id) = filter.older_than {
        query.push(" and id < ").push_bind(id);
    }
    query.push(" order by id desc limit ").push_bind(limit);
    query.build_query_as().fetch_all(pool).await
}
