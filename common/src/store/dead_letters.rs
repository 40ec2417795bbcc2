//! Dead letters: node runs that failed for good, and with them their run, until someone redrives or dismisses them.

use serde_json::Value;
use sqlx::{PgConnection, PgPool, Postgres, QueryBuilder};
use uuid::Uuid;

use crate::advance::Dead;
use crate::clock::Instant;
use crate::context::RunContext;
use crate::run::RunState;

/// A letter to be written with the end of its node run.
#[derive(Debug, Clone)]
pub struct Row {
    id: Uuid,
    run: Uuid,
    node: String,
    pipeline: Option<String>,
    action: Option<String>,
    kind: &'static str,
}

impl Row {
    /// The letter of a node that failed in this run.
    pub fn new(context: &RunContext, dead: &Dead) -> Self {
        let node = context.graph.node(dead.node);
        Self {
            id: Uuid::now_v7(),
            run: context.id,
            node: node.node.id.clone(),
            pipeline: context.pipeline.clone(),
            action: node.action.clone(),
            kind: dead.kind.name(),
        }
    }
}

/// Writes letters, within the transaction that ends their node runs.
pub(super) async fn insert(conn: &mut PgConnection, rows: &[Row]) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "insert into dead_letters (id, run_id, node, pipeline, action, kind)
         select * from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[])
         on conflict (run_id, node) do nothing",
        &rows.iter().map(|row| row.id).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.run).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.node.as_str()).collect::<Vec<_>>() as &[&str],
        &rows.iter().map(|row| row.pipeline.as_deref()).collect::<Vec<_>>() as &[Option<&str>],
        &rows.iter().map(|row| row.action.as_deref()).collect::<Vec<_>>() as &[Option<&str>],
        &rows.iter().map(|row| row.kind).collect::<Vec<_>>() as &[&str],
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A letter as clients read it.
#[derive(Debug, sqlx::FromRow)]
pub struct Letter {
    /// In the order of the failures.
    pub id: Uuid,
    /// The run that failed.
    pub run_id: Uuid,
    /// The node that failed.
    pub node: String,
    /// The pipeline's name when it was submitted.
    pub pipeline: Option<String>,
    /// The version to which the run is pinned.
    pub version: Option<i32>,
    /// The node's action, if it is one.
    pub action: Option<String>,
    /// Its lane.
    pub lane: String,
    /// How many attempts it had.
    pub attempt: i32,
    /// Why it failed.
    pub error: Option<Value>,
    /// The run's tags.
    pub tags: Vec<String>,
    /// When it failed.
    pub failed_at: Instant,
    /// The run that repeats it.
    pub redriven_as: Option<Uuid>,
    /// Who asked for that.
    pub redriven_by: Option<String>,
    /// When.
    pub redriven_at: Option<Instant>,
}

/// What to list.
#[derive(Debug, Default)]
pub struct Filter {
    /// Those that were redriven, in place of those that are open.
    pub redriven: bool,
    /// Of this pipeline.
    pub pipeline: Option<String>,
    /// Of this action.
    pub action: Option<String>,
    /// Of one of these kinds of error; empty: of any.
    pub kinds: Vec<&'static str>,
    /// Failed after this.
    pub after: Option<Instant>,
    /// Failed before this.
    pub before: Option<Instant>,
    /// Older than this letter: the last of the page before.
    pub older_than: Option<Uuid>,
}

/// Letters whose run has ended by their failure. Of a run that goes on there is nothing to decide yet; of one that was
/// cancelled, somebody has decided.
const LETTERS: &str =
    "select d.id, d.run_id, d.node, d.pipeline, r.version, d.action, n.lane, n.attempt, n.error, r.tags, d.failed_at,
         d.redriven_as, d.redriven_by, d.redriven_at
     from dead_letters d join runs r on r.id = d.run_id join node_runs n on n.run_id = d.run_id and n.node = d.node
     where d.dismissed_at is null and r.state in ('failed', 'timed_out')";

/// A page of letters, newest first. The statement is built, since each filter has its own index.
pub async fn list(pool: &PgPool, filter: &Filter, limit: i64) -> Result<Vec<Letter>, sqlx::Error> {
    let mut query: QueryBuilder<Postgres> = QueryBuilder::new(LETTERS);
    query.push(if filter.redriven {
        " and d.redriven_as is not null"
    } else {
        " and d.redriven_as is null"
    });
    for (column, value) in [("pipeline", &filter.pipeline), ("action", &filter.action)] {
        if let Some(value) = value {
            query.push(" and d.").push(column).push(" = ").push_bind(value);
        }
    }
    if !filter.kinds.is_empty() {
        query.push(" and d.kind = any(").push_bind(&filter.kinds).push(")");
    }
    if let Some(after) = filter.after {
        query.push(" and d.failed_at > ").push_bind(after);
    }
    if let Some(before) = filter.before {
        query.push(" and d.failed_at < ").push_bind(before);
    }
    if let Some(id) = filter.older_than {
        query.push(" and d.id < ").push_bind(id);
    }
    query.push(" order by d.id desc limit ").push_bind(limit);
    query.build_query_as().fetch_all(pool).await
}

/// One letter.
pub async fn read(pool: &PgPool, id: Uuid) -> Result<Option<Letter>, sqlx::Error> {
    let mut query: QueryBuilder<Postgres> = QueryBuilder::new(LETTERS);
    query.push(" and d.id = ").push_bind(id);
    query.build_query_as().fetch_optional(pool).await
}

/// What came of the wish to redrive a letter.
#[derive(Debug, PartialEq, Eq)]
pub enum Redriven {
    /// It is marked, and so are the other letters of its run.
    Now,
    /// It was redriven before, as this run.
    Before(Uuid),
    /// There is no such letter, or none any more.
    Unknown,
}

/// Marks the letters of the run of letter `id` as redriven by the run `again`, which the caller writes in the same
/// transaction.
pub async fn redrive(
    conn: &mut PgConnection,
    id: Uuid,
    again: Uuid,
    by: &str,
) -> Result<Redriven, sqlx::Error> {
    // The run's lock first, so that of two who redrive, or one who prunes, the second sees what the first did.
    let run = sqlx::query!(
        r#"select r.id, r.state as "state: RunState" from runs r
           where r.id = (select run_id from dead_letters where id = $1) for no key update"#,
        id
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(run) = run.filter(|run| matches!(run.state, RunState::Failed | RunState::TimedOut))
    else {
        return Ok(Redriven::Unknown);
    };
    let letter =
        sqlx::query!("select redriven_as, dismissed_at from dead_letters where id = $1", id)
            .fetch_optional(&mut *conn)
            .await?;
    match letter {
        Some(letter) if letter.dismissed_at.is_none() => {
            if let Some(before) = letter.redriven_as {
                return Ok(Redriven::Before(before));
            }
        }
        _ => return Ok(Redriven::Unknown),
    }
    sqlx::query!(
        "update dead_letters set redriven_as = $2, redriven_by = $3, redriven_at = clock_timestamp()
         where run_id = $1 and redriven_as is null and dismissed_at is null",
        run.id,
        again,
        by
    )
    .execute(conn)
    .await?;
    Ok(Redriven::Now)
}

/// Dismisses a letter; false when there is none, or none any more.
pub async fn dismiss(conn: &mut PgConnection, id: Uuid, by: &str) -> Result<bool, sqlx::Error> {
    let dismissed = sqlx::query!(
        "update dead_letters d set dismissed_at = clock_timestamp(), dismissed_by = $2
         where d.id = $1 and d.dismissed_at is null
             and exists (select from runs r where r.id = d.run_id and r.state in ('failed', 'timed_out'))",
        id,
        by
    )
    .execute(conn)
    .await?;
    Ok(dismissed.rows_affected() == 1)
}

/// How many letters are open, of runs under way and cancelled ones included; counted up to 100,000.
pub async fn open(conn: &mut PgConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from (
               select from dead_letters where redriven_as is null and dismissed_at is null limit 100000
           ) as open"#
    )
    .fetch_one(conn)
    .await
}
