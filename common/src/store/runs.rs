//! Runs as clients read them.

use serde::Deserialize;
use serde_json::Value;
use sqlx::types::Json;
use sqlx::{PgConnection, PgPool, Postgres, QueryBuilder};
use uuid::Uuid;

use crate::clock::Instant;
use crate::node_run::NodeState;
use crate::run::{RunKind, RunState};

/// A run without what can be large: its input, its output and its nodes.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Summary {
    /// Its id.
    pub id: Uuid,
    /// What it executes.
    pub kind: RunKind,
    /// The pipeline's name when it was submitted.
    pub pipeline: Option<String>,
    /// The version to which it is pinned.
    pub version: Option<i32>,
    /// Where it stands.
    pub state: RunState,
    /// The first failure that was not taken up.
    pub error: Option<Value>,
    /// What asked for it.
    pub trigger: Value,
    /// The client's own marks.
    pub tags: Vec<String>,
    /// Who asked for it.
    pub created_by: String,
    /// The run that it repeats.
    pub rerun_of: Option<Uuid>,
    /// When it was accepted.
    pub created_at: Instant,
    /// When a worker started it.
    pub started_at: Option<Instant>,
    /// When it ended.
    pub finished_at: Option<Instant>,
}

/// A run, whole.
#[derive(Debug)]
pub struct Run {
    /// Its id.
    pub id: Uuid,
    /// What it executes.
    pub kind: RunKind,
    /// The pipeline, when it is one's.
    pub pipeline_id: Option<Uuid>,
    /// The pipeline's name when it was submitted.
    pub pipeline: Option<String>,
    /// The version to which it is pinned.
    pub version: Option<i32>,
    /// The node of a single action.
    pub action: Option<Value>,
    /// Where it stands.
    pub state: RunState,
    /// Its input.
    pub input: Value,
    /// Its output, once it completed.
    pub output: Option<Value>,
    /// The first failure that was not taken up.
    pub error: Option<Value>,
    /// What asked for it.
    pub trigger: Value,
    /// The client's own marks.
    pub tags: Vec<String>,
    /// Who asked for it.
    pub created_by: String,
    /// The run that it repeats.
    pub rerun_of: Option<Uuid>,
    /// When it was accepted.
    pub created_at: Instant,
    /// When a worker started it.
    pub started_at: Option<Instant>,
    /// When it ended.
    pub finished_at: Option<Instant>,
    /// Its node runs, in no order; none before it is started.
    pub nodes: Json<Vec<NodeRun>>,
}

/// A node run within a [`Run`].
#[derive(Debug, Deserialize)]
pub struct NodeRun {
    /// The node.
    pub node: String,
    /// Where it stands.
    pub state: NodeState,
    /// The newest attempt.
    pub attempt: i32,
    /// Its output, unless that is omitted.
    pub output: Option<Value>,
    /// Whether the output was left out because of its size.
    pub output_omitted: bool,
    /// What it waits for, while it waits.
    pub waiting: Option<Value>,
    /// Its error.
    pub error: Option<Value>,
    /// When its newest attempt began.
    pub started_at: Option<Instant>,
    /// When it ended.
    pub finished_at: Option<Instant>,
}

/// Where a run stands; none when there is no such run.
pub async fn state(conn: &mut PgConnection, id: Uuid) -> Result<Option<RunState>, sqlx::Error> {
    sqlx::query_scalar!(r#"select state as "state: RunState" from runs where id = $1"#, id)
        .fetch_optional(conn)
        .await
}

/// The run and its node runs at one moment. Outputs of over 4 KiB are left out; how large one is is not asked of
/// those that are large even when compressed, since that would unpack them.
pub async fn read(conn: &mut PgConnection, id: Uuid) -> Result<Option<Run>, sqlx::Error> {
    sqlx::query_as!(
        Run,
        r#"select r.id, r.kind as "kind: RunKind", r.pipeline_id, r.pipeline, r.version, r.action,
               r.state as "state: RunState", r.input, r.output, r.error, r.trigger, r.tags,
               r.created_by, r.rerun_of,
               r.created_at, r.started_at, r.finished_at,
               coalesce((
                   select json_agg(json_build_object(
                       'node', n.node, 'state', n.state, 'attempt', n.attempt,
                       'output', case when s.small then n.output end,
                       'output_omitted', n.output is not null and not s.small,
                       'waiting', case when n.state = 'waiting' then shown_wait(n.run_id, n.node) end,
                       'error', n.error, 'started_at', n.started_at, 'finished_at', n.finished_at))
                   from node_runs n
                   cross join lateral (
                       select case when pg_column_size(n.output) > 65536 then false
                              else octet_length(n.output::text) <= 4096 end as small
                   ) s
                   where n.run_id = r.id
               ), '[]') as "nodes!: Json<Vec<NodeRun>>"
           from runs r where r.id = $1"#,
        id,
    )
    .fetch_optional(conn)
    .await
}

/// What to list.
#[derive(Debug, Default)]
pub struct Filter {
    /// Of this pipeline.
    pub pipeline: Option<String>,
    /// In one of these states; empty: in any.
    pub states: Vec<RunState>,
    /// Of this kind.
    pub kind: Option<RunKind>,
    /// Started by this run.
    pub parent: Option<Uuid>,
    /// With all of these tags.
    pub tags: Vec<String>,
    /// Accepted after this.
    pub created_after: Option<Instant>,
    /// Accepted before this.
    pub created_before: Option<Instant>,
    /// Older than this run: the last of the page before.
    pub before: Option<Uuid>,
}

/// A page of runs, newest first. The statement is built, since each filter has its own index.
pub async fn list(pool: &PgPool, filter: &Filter, limit: i64) -> Result<Vec<Summary>, sqlx::Error> {
    let mut query: QueryBuilder<Postgres> = QueryBuilder::new(
        "select id, kind, pipeline, version, state, error, trigger, tags, created_by, rerun_of, created_at,
             started_at, finished_at
         from ",
    );
    let is_open =
        !filter.states.is_empty() && filter.states.iter().all(|state| !state.is_terminal());
    // Few are open: each is looked up by its key, in the order of theirs.
    let (rows, id) = if is_open {
        (
            "open_runs cross join lateral (select * from runs where id = run_id offset 0) as r",
            "run_id",
        )
    } else {
        ("runs", "id")
    };
    query.push(rows).push(" where true");
    if let Some(pipeline) = &filter.pipeline {
        query.push(" and pipeline = ").push_bind(pipeline);
    }
    if let Some(kind) = filter.kind {
        query.push(" and kind = ").push_bind(kind);
    }
    if !filter.states.is_empty() {
        query.push(" and state = any(").push_bind(&filter.states).push(")");
    }
    if let Some(parent) = filter.parent {
        query.push(
            " and id in (select run_id from children where run_id is not null and parent_id = ",
        );
        query.push_bind(parent).push(")");
    }
    if !filter.tags.is_empty() {
        query.push(" and tags <> '{}' and tags @> ").push_bind(&filter.tags);
    }
    if let Some(after) = filter.created_after {
        query.push(" and created_at > ").push_bind(after);
    }
    if let Some(before) = filter.created_before {
        query.push(" and created_at < ").push_bind(before);
    }
    if let Some(before) = filter.before {
        query.push(" and ").push(id).push(" < ").push_bind(before);
    }
    query.push(" order by ").push(id).push(" desc limit ").push_bind(limit);
    query.build_query_as().fetch_all(pool).await
}

/// What a rerun takes over from the run that it repeats.
#[derive(Debug)]
pub struct Original {
    /// Where it stands: only what ended is rerun.
    pub state: RunState,
    /// The pipeline, when it is one's.
    pub pipeline_id: Option<Uuid>,
    /// The pipeline's name when it was submitted.
    pub pipeline: Option<String>,
    /// The version to which it is pinned.
    pub version: Option<i32>,
    /// The node of a single action.
    pub action: Option<Value>,
    /// The lane of its start job.
    pub lane: String,
    /// Its input.
    pub input: Value,
    /// What asked for it.
    pub trigger: Value,
    /// The client's own marks.
    pub tags: Vec<String>,
}

/// The run to be repeated.
pub async fn original(pool: &PgPool, id: Uuid) -> Result<Option<Original>, sqlx::Error> {
    sqlx::query_as!(
        Original,
        r#"select state as "state: RunState", pipeline_id, pipeline, version, action, lane, input, trigger, tags
           from runs where id = $1"#,
        id,
    )
    .fetch_optional(pool)
    .await
}
