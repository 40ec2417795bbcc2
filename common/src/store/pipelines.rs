//! Pipelines and their versions.

use serde_json::Value;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::clock::Instant;

/// A pipeline without its definition.
#[derive(Debug, Clone)]
pub struct Pipeline {
    /// Stays through all versions.
    pub id: Uuid,
    /// What clients call it.
    pub name: String,
    /// The newest version.
    pub version: i32,
    /// Whether submitting is refused.
    pub paused: bool,
    /// Who created it.
    pub owner: String,
    /// When it was created.
    pub created_at: Instant,
    /// When its newest version was made, or it was paused or resumed.
    pub updated_at: Instant,
}

/// A definition that has passed its check.
#[derive(Debug)]
pub struct NewVersion<'a> {
    /// The pipeline's name.
    pub name: &'a str,
    /// As the client sent it.
    pub definition: &'a Value,
    /// The lane of the first root.
    pub lane: &'a str,
    /// What inputs are checked against.
    pub input_schema: Option<&'a Value>,
    /// The pipelines that it starts whenever it runs.
    pub calls: &'a [String],
    /// Who made it.
    pub by: &'a str,
}

/// One version of a pipeline, as it was sent.
#[derive(Debug)]
pub struct Version {
    /// Its number.
    pub version: i32,
    /// As the client sent it.
    pub definition: Value,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created_at: Instant,
}

/// What a submission needs to know of a pipeline's newest version.
#[derive(Debug, Clone)]
pub struct Submittable {
    /// The pipeline.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Its newest version.
    pub version: i32,
    /// Whether submitting is refused.
    pub paused: bool,
    /// Where its runs start.
    pub lane: String,
    /// Whether its inputs are checked.
    pub has_schema: bool,
}

/// A node as lists show it: its id and its type.
#[derive(Debug, Clone)]
pub struct Outlined {
    /// The node's id.
    pub id: String,
    /// The node's type.
    pub node_type: String,
}

/// Creates a pipeline with its first version. The constraint `pipelines_name_taken` refuses a name in use.
pub async fn create(
    conn: &mut PgConnection,
    id: Uuid,
    new: &NewVersion<'_>,
) -> Result<Pipeline, sqlx::Error> {
    sqlx::query_as!(
        Pipeline,
        "with made as (
             insert into pipelines (id, name, version, owner) values ($1, $2, 1, $3) returning *
         ), first as (
             insert into pipeline_versions (pipeline_id, version, definition, lane, input_schema, calls, created_by)
             select id, 1, $4, $5, $6, $7, $3 from made
         )
         select id, name, version, paused, owner, created_at, updated_at from made",
        id,
        new.name,
        new.by,
        new.definition,
        new.lane,
        new.input_schema,
        new.calls,
    )
    .fetch_one(conn)
    .await
}

/// Adds the next version. None: there is no such pipeline, or its version is not `expected`.
pub async fn replace(
    conn: &mut PgConnection,
    new: &NewVersion<'_>,
    expected: Option<i32>,
) -> Result<Option<Pipeline>, sqlx::Error> {
    sqlx::query_as!(
        Pipeline,
        "with raised as (
             update pipelines set version = version + 1, updated_at = clock_timestamp()
             where name = $1 and deleted_at is null and ($6::int is null or version = $6)
             returning *
         ), next as (
             insert into pipeline_versions (pipeline_id, version, definition, lane, input_schema, calls, created_by)
             select id, version, $2, $3, $4, $7, $5 from raised
         )
         select id, name, version, paused, owner, created_at, updated_at from raised",
        new.name,
        new.definition,
        new.lane,
        new.input_schema,
        new.by,
        expected,
        new.calls,
    )
    .fetch_optional(conn)
    .await
}

/// Frees the name; the versions stay for the runs that are pinned to them.
pub async fn delete(
    conn: &mut PgConnection,
    name: &str,
    expected: Option<i32>,
) -> Result<bool, sqlx::Error> {
    let deleted = sqlx::query!(
        "update pipelines set deleted_at = clock_timestamp()
         where name = $1 and deleted_at is null and ($2::int is null or version = $2)",
        name,
        expected,
    )
    .execute(conn)
    .await?;
    Ok(deleted.rows_affected() == 1)
}

/// Refuses submissions from now on, or takes them again.
pub async fn set_paused(
    conn: &mut PgConnection,
    name: &str,
    paused: bool,
) -> Result<Option<Pipeline>, sqlx::Error> {
    sqlx::query_as!(
        Pipeline,
        "update pipelines set paused = $2,
             updated_at = case when paused = $2 then updated_at else clock_timestamp() end
         where name = $1 and deleted_at is null
         returning id, name, version, paused, owner, created_at, updated_at",
        name,
        paused,
    )
    .fetch_optional(conn)
    .await
}

/// The living pipeline of that name.
pub async fn find(pool: &PgPool, name: &str) -> Result<Option<Pipeline>, sqlx::Error> {
    sqlx::query_as!(
        Pipeline,
        "select id, name, version, paused, owner, created_at, updated_at
         from pipelines where name = $1 and deleted_at is null",
        name,
    )
    .fetch_optional(pool)
    .await
}

/// One version of a pipeline.
pub async fn version(
    pool: &PgPool,
    pipeline: Uuid,
    version: i32,
) -> Result<Option<Version>, sqlx::Error> {
    sqlx::query_as!(
        Version,
        "select version, definition, created_by, created_at
         from pipeline_versions where pipeline_id = $1 and version = $2",
        pipeline,
        version,
    )
    .fetch_optional(pool)
    .await
}

/// A page of the living pipelines, by name.
pub async fn list(pool: &PgPool, after: &str, limit: i64) -> Result<Vec<Pipeline>, sqlx::Error> {
    sqlx::query_as!(
        Pipeline,
        "select id, name, version, paused, owner, created_at, updated_at
         from pipelines where deleted_at is null and name > $1 order by name limit $2",
        after,
        limit,
    )
    .fetch_all(pool)
    .await
}

/// The living ones of `names`, as they are at this moment: a pause, a deletion or a new version counts at once.
pub async fn submittable(
    conn: &mut PgConnection,
    names: &[String],
) -> Result<Vec<Submittable>, sqlx::Error> {
    sqlx::query_as!(
        Submittable,
        r#"select p.id, p.name, p.version, p.paused, v.lane, v.input_schema is not null as "has_schema!"
         from pipelines p
         join pipeline_versions v on v.pipeline_id = p.id and v.version = p.version
         where p.name = any($1) and p.deleted_at is null"#,
        names,
    )
    .fetch_all(conn)
    .await
}

/// The living ones of `names`, each with the pipelines that its newest version starts whenever it runs.
pub async fn calls(
    conn: &mut PgConnection,
    names: &[String],
) -> Result<Vec<(String, Vec<String>)>, sqlx::Error> {
    let rows = sqlx::query!(
        "select p.name, v.calls from pipelines p
         join pipeline_versions v on v.pipeline_id = p.id and v.version = p.version
         where p.name = any($1) and p.deleted_at is null",
        names,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.name, row.calls)).collect())
}

/// What the inputs of a version are checked against.
pub async fn input_schema(
    conn: &mut PgConnection,
    pipeline: Uuid,
    version: i32,
) -> Result<Option<Value>, sqlx::Error> {
    let schema = sqlx::query_scalar!(
        "select input_schema from pipeline_versions where pipeline_id = $1 and version = $2",
        pipeline,
        version,
    )
    .fetch_optional(conn)
    .await?;
    Ok(schema.flatten())
}

/// The nodes of a version, in the definition's order.
pub async fn outline(
    pool: &PgPool,
    pipeline: Uuid,
    version: i32,
) -> Result<Vec<Outlined>, sqlx::Error> {
    sqlx::query_as!(
        Outlined,
        r#"select coalesce(n.node ->> 'id', '') as "id!", coalesce(n.node ->> 'type', '') as "node_type!"
         from pipeline_versions v
         cross join jsonb_array_elements(v.definition -> 'nodes') with ordinality as n (node, place)
         where v.pipeline_id = $1 and v.version = $2
         order by n.place"#,
        pipeline,
        version,
    )
    .fetch_all(pool)
    .await
}
