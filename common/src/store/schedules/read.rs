//! Schedules and fires as clients read them.

use sqlx::types::Json;
use sqlx::{PgPool, Postgres, QueryBuilder};
use uuid::Uuid;

use crate::clock::Instant;
use crate::schedule::{Cause, Kind, Outcome, Spec, State};

/// A schedule with where it stands.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Schedule {
    /// Its id.
    pub id: Uuid,
    /// What the client says.
    pub spec: Json<Spec>,
    /// Where it stands.
    pub state: State,
    /// Why it is disabled or expired.
    pub reason: Option<String>,
    /// The next moment at which it is to fire.
    pub next_fire_at: Option<Instant>,
    /// The last.
    pub last_fire_at: Option<Instant>,
    /// Fires but for those that were skipped.
    pub fires: i32,
    /// Failures in a row.
    pub failures: i32,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created_at: Instant,
    /// When it was changed last, but by its fires.
    pub updated_at: Instant,
}

/// What to list.
#[derive(Debug, Default)]
pub struct Filter {
    /// In one of these states; empty: in any.
    pub states: Vec<State>,
    /// Of one of these kinds; empty: of any.
    pub kinds: Vec<Kind>,
    /// With all of these tags.
    pub tags: Vec<String>,
    /// Of this name.
    pub name: Option<String>,
    /// Older than this one: the last of the page before.
    pub before: Option<Uuid>,
}

const SELECT: &str =
    "select s.id, s.spec, s.state, s.reason, c.next_fire_at, c.last_fire_at, c.fires, c.failures,
         s.created_by, s.created_at, s.updated_at
     from schedules s join schedule_clocks c on c.schedule_id = s.id where true";

/// The schedule.
pub async fn find(pool: &PgPool, id: Uuid) -> Result<Option<Schedule>, sqlx::Error> {
    let mut query: QueryBuilder<Postgres> = QueryBuilder::new(SELECT);
    query.push(" and s.id = ").push_bind(id);
    query.build_query_as().fetch_optional(pool).await
}

/// A page of schedules, newest first. The statement is built, since each filter has its own index.
pub async fn list(
    pool: &PgPool,
    filter: &Filter,
    limit: i64,
) -> Result<Vec<Schedule>, sqlx::Error> {
    let mut query: QueryBuilder<Postgres> = QueryBuilder::new(SELECT);
    if !filter.states.is_empty() {
        query.push(" and s.state = any(").push_bind(&filter.states).push(")");
    }
    if !filter.kinds.is_empty() {
        query.push(" and s.kind = any(").push_bind(&filter.kinds).push(")");
    }
    if !filter.tags.is_empty() {
        query.push(" and s.tags <> '{}' and s.tags @> ").push_bind(&filter.tags);
    }
    if let Some(name) = &filter.name {
        query.push(" and s.name = ").push_bind(name);
    }
    if let Some(id) = filter.before {
        query.push(" and s.id < ").push_bind(id);
    }
    query.push(" order by s.id desc limit ").push_bind(limit);
    query.build_query_as().fetch_all(pool).await
}

/// A fire.
#[derive(Debug, Clone)]
pub struct Fire {
    /// When it was to be.
    pub fire_at: Instant,
    /// The same, with its jitter.
    pub due_at: Instant,
    /// When it was decided.
    pub fired_at: Instant,
    /// Why there is one.
    pub cause: Cause,
    /// What became of it.
    pub outcome: Outcome,
    /// Why it was skipped or refused.
    pub reason: Option<String>,
    /// Its run.
    pub run_id: Option<Uuid>,
    /// The event that made it.
    pub event_id: Option<Uuid>,
    /// Missed moments that it stands for besides itself.
    pub missed: i32,
}

/// A page of a schedule's fires, newest first. That of a run that has ended says so at once, whether or not the leader
/// has noted it yet.
pub async fn fires(
    pool: &PgPool,
    schedule: Uuid,
    outcomes: &[Outcome],
    before: Option<Instant>,
    limit: i64,
) -> Result<Vec<Fire>, sqlx::Error> {
    sqlx::query_as!(
        Fire,
        r#"select fire_at as "fire_at!", due_at as "due_at!", fired_at as "fired_at!", cause as "cause!: Cause",
               outcome as "outcome!: Outcome", reason, run_id, event_id, missed as "missed!"
           from (
               select f.fire_at, f.due_at, f.fired_at, f.cause, f.reason, f.run_id, f.event_id, f.missed,
                   case when f.outcome = 'started' and r.finished_at is not null then r.state::text::fire_outcome
                        else f.outcome end as outcome
               from fires f left join runs r on r.id = f.run_id and f.outcome = 'started'
               where f.schedule_id = $1 and ($3::timestamptz is null or f.fire_at < $3)
               order by f.fire_at desc
           ) f
           where cardinality($2::fire_outcome[]) = 0 or outcome = any($2)
           order by fire_at desc limit $4"#,
        schedule,
        outcomes as &[Outcome],
        before,
        limit
    )
    .fetch_all(pool)
    .await
}
