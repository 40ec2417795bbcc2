//! Accepting runs: what is committed here is what a 202 promises.

use std::time::Duration;

use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::job::{Job, Reason, Task};
use crate::outbox::Row;

/// What a run executes.
#[derive(Debug, Clone)]
pub enum Subject {
    /// A version of a pipeline.
    Pipeline {
        /// The pipeline.
        id: Uuid,
        /// Its name at this time.
        name: String,
        /// The version to which the run is pinned.
        version: i32,
    },
    /// One action.
    Action {
        /// The run's only node, complete.
        node: Value,
    },
}

/// A run that has passed its checks, and is to be written.
#[derive(Debug, Clone)]
pub struct NewRun {
    /// Its id, which the caller chose.
    pub id: Uuid,
    /// What it executes.
    pub subject: Subject,
    /// The lane of its start job.
    pub lane: String,
    /// Its input.
    pub input: Value,
    /// What asked for it.
    pub trigger: Value,
    /// The client's own marks.
    pub tags: Vec<String>,
    /// Who asked for it.
    pub created_by: String,
    /// The run that it repeats.
    pub rerun_of: Option<Uuid>,
    /// Whether it keeps what completed in `rerun_of`.
    pub keep_completed: bool,
    /// W3C trace context of the request.
    pub traceparent: Option<String>,
    /// How long it waits before it starts.
    pub delay: Option<Duration>,
}

impl NewRun {
    /// Whether it is an action that asks for no more than to be executed now.
    fn is_plain_action(&self) -> bool {
        matches!(self.subject, Subject::Action { .. })
            && self.delay.is_none()
            && self.tags.is_empty()
            && self.rerun_of.is_none()
            && !self.keep_completed
    }

    /// The outbox row that will start it; none while it is delayed, since the leader queues it then.
    fn start(&self) -> Option<Row> {
        if self.delay.is_some() {
            return None;
        }
        let (pipeline, version) = match &self.subject {
            Subject::Pipeline { name, version, .. } => (Some(name.clone()), Some(*version)),
            Subject::Action { .. } => (None, None),
        };
        let id = Uuid::now_v7();
        let job = Job {
            id,
            task: Task::RunStart { run: self.id },
            reason: Reason::Submitted,
            pipeline,
            version,
            traceparent: self.traceparent.clone(),
        };
        Some(Row { id, lane: self.lane.clone(), job })
    }
}

/// Writes the runs with their outbox rows, or the timers of those that are delayed, in one statement: all or none.
/// Returns the rows to publish once the transaction is committed.
pub async fn accept(conn: &mut PgConnection, runs: &[NewRun]) -> Result<Vec<Row>, sqlx::Error> {
    let starts: Vec<Option<Row>> = runs.iter().map(NewRun::start).collect();
    write(conn, runs, &starts, &[]).await?;
    Ok(starts.into_iter().flatten().collect())
}

/// As [`accept`], if each of these versions is its pipeline's newest at this moment, and the pipeline neither paused nor
/// deleted; else (none) nothing is written. Nor is it where all runs are delayed.
pub async fn accept_if_newest(
    conn: &mut PgConnection,
    runs: &[NewRun],
    newest: &[(Uuid, i32)],
) -> Result<Option<Vec<Row>>, sqlx::Error> {
    let starts: Vec<Option<Row>> = runs.iter().map(NewRun::start).collect();
    // What shows whether the statement has written are the rows that it sends.
    if starts.iter().all(Option::is_none) {
        return Ok(None);
    }
    let sent = write(conn, runs, &starts, newest).await?;
    Ok((sent > 0).then(|| starts.into_iter().flatten().collect()))
}

/// Returns how many outbox rows it has written.
async fn write(
    conn: &mut PgConnection,
    runs: &[NewRun],
    starts: &[Option<Row>],
    newest: &[(Uuid, i32)],
) -> Result<u64, sqlx::Error> {
    if runs.is_empty() {
        return Ok(0);
    }
    let columns = Columns::of(runs, starts)?;
    if newest.is_empty() && runs.iter().all(NewRun::is_plain_action) {
        return write_actions(conn, &columns).await;
    }
    write_all(conn, &columns, newest).await
}

/// Plain actions alone: what is in a statement costs time whether or not it has anything to do.
async fn write_actions(conn: &mut PgConnection, columns: &Columns<'_>) -> Result<u64, sqlx::Error> {
    /// `$arriving` names the runs, as rows of the columns that are bound.
    macro_rules! statement {
        ($arriving:literal) => {
            sqlx::query!(
                "with arriving as (
                     "
                    + $arriving
                    + "
                 ), accepted as (
                     insert into runs (id, kind, action, lane, input, trigger, created_by, traceparent, queued_at)
                     select id, 'action', action::jsonb, lane, input::jsonb, trigger::jsonb, created_by, traceparent,
                            clock_timestamp()
                     from arriving
                 ), open as (
                     insert into open_runs (run_id) select id from arriving
                 )
                 insert into outbox (id, lane, job) select job_id, lane, job::jsonb from arriving",
                &columns.ids,
                &columns.actions as &[Option<String>],
                &columns.lanes as &[&str],
                &columns.inputs,
                &columns.triggers,
                &columns.created_by as &[&str],
                &columns.traceparents as &[Option<&str>],
                &columns.job_ids as &[Option<Uuid>],
                &columns.jobs as &[Option<String>],
            )
            .execute(conn)
            .await?
        };
    }
    // One alone, as one client after the other sends them, is taken out of its columns by its place: to unnest nine of
    // them takes about a tenth of the statement.
    let written = match columns.ids.len() {
        1 => statement!(
            "select ($1::uuid[])[1] as id, ($2::text[])[1] as action, ($3::text[])[1] as lane, ($4::text[])[1] as input,
                 ($5::text[])[1] as trigger, ($6::text[])[1] as created_by, ($7::text[])[1] as traceparent,
                 ($8::uuid[])[1] as job_id, ($9::text[])[1] as job"
        ),
        _ => statement!(
            "select * from unnest(
                 $1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::uuid[], $9::text[]
             ) as t (id, action, lane, input, trigger, created_by, traceparent, job_id, job)"
        ),
    };
    Ok(written.rows_affected())
}

/// All that can be accepted.
async fn write_all(
    conn: &mut PgConnection,
    columns: &Columns<'_>,
    newest: &[(Uuid, i32)],
) -> Result<u64, sqlx::Error> {
    let (pipelines, versions): (Vec<Uuid>, Vec<i32>) = newest.iter().copied().unzip();
    /// `$asked` names the runs, as rows of the columns that are bound.
    macro_rules! statement {
        ($asked:literal) => {
            sqlx::query!(
                "with arriving as (
                     select * from "
                     + $asked
                     + "
                     where not exists (
                         select from unnest($17::uuid[], $18::int[]) as n (id, version)
                         where not exists (
                             select from pipelines as p
                             where p.id = n.id and p.version = n.version and not p.paused and p.deleted_at is null
                         )
                     )
                 ), accepted as (
                     insert into runs (id, kind, pipeline_id, pipeline, version, action, lane, input, trigger, tags, created_by,
                                       rerun_of, keep_completed, traceparent, queued_at)
                     select id, case when pipeline_id is null then 'action'::run_kind else 'pipeline' end, pipeline_id, pipeline,
                            version, action::jsonb, lane, input::jsonb, trigger::jsonb,
                            case when tags is null then '{}' else array(select jsonb_array_elements_text(tags::jsonb)) end,
                            created_by, rerun_of, keep_completed, traceparent,
                            case when delay is null then clock_timestamp() end
                     from arriving
                 ), open as (
                     insert into open_runs (run_id) select id from arriving
                 ), delayed as (
                     insert into timers (run_id, kind, due_at)
                     select id, 'start', clock_timestamp() + make_interval(secs => delay) from arriving where delay is not null
                 )
                 insert into outbox (id, lane, job) select job_id, lane, job::jsonb from arriving where job_id is not null",
                &columns.ids,
                &columns.pipeline_ids as &[Option<Uuid>],
                &columns.pipelines as &[Option<&str>],
                &columns.versions as &[Option<i32>],
                &columns.actions as &[Option<String>],
                &columns.lanes as &[&str],
                &columns.inputs,
                &columns.triggers,
                &columns.tags as &[Option<String>],
                &columns.created_by as &[&str],
                &columns.reruns as &[Option<Uuid>],
                &columns.keeps,
                &columns.traceparents as &[Option<&str>],
                &columns.delays as &[Option<f64>],
                &columns.job_ids as &[Option<Uuid>],
                &columns.jobs as &[Option<String>],
                &pipelines,
                &versions,
            )
            .execute(conn)
            .await?
        };
    }
    let written = match columns.ids.len() {
        1 => statement!(
            "(select ($1::uuid[])[1] as id, ($2::uuid[])[1] as pipeline_id, ($3::text[])[1] as pipeline,
                  ($4::int[])[1] as version, ($5::text[])[1] as action, ($6::text[])[1] as lane, ($7::text[])[1] as input,
                  ($8::text[])[1] as trigger, ($9::text[])[1] as tags, ($10::text[])[1] as created_by,
                  ($11::uuid[])[1] as rerun_of, ($12::bool[])[1] as keep_completed, ($13::text[])[1] as traceparent,
                  ($14::float8[])[1] as delay, ($15::uuid[])[1] as job_id, ($16::text[])[1] as job) as t"
        ),
        _ => statement!(
            "unnest(
                 $1::uuid[], $2::uuid[], $3::text[], $4::int[], $5::text[], $6::text[], $7::text[], $8::text[],
                 $9::text[], $10::text[], $11::uuid[], $12::bool[], $13::text[], $14::float8[], $15::uuid[], $16::text[]
             ) as t (id, pipeline_id, pipeline, version, action, lane, input, trigger, tags, created_by, rerun_of,
                     keep_completed, traceparent, delay, job_id, job)"
        ),
    };
    Ok(written.rows_affected())
}

/// The runs turned into columns, as `unnest` wants them.
#[derive(Default)]
struct Columns<'a> {
    ids: Vec<Uuid>,
    pipeline_ids: Vec<Option<Uuid>>,
    pipelines: Vec<Option<&'a str>>,
    versions: Vec<Option<i32>>,
    actions: Vec<Option<String>>,
    lanes: Vec<&'a str>,
    inputs: Vec<String>,
    triggers: Vec<String>,
    tags: Vec<Option<String>>,
    created_by: Vec<&'a str>,
    reruns: Vec<Option<Uuid>>,
    keeps: Vec<bool>,
    traceparents: Vec<Option<&'a str>>,
    delays: Vec<Option<f64>>,
    job_ids: Vec<Option<Uuid>>,
    jobs: Vec<Option<String>>,
}

impl<'a> Columns<'a> {
    fn of(runs: &'a [NewRun], starts: &[Option<Row>]) -> Result<Self, sqlx::Error> {
        let mut columns = Self::default();
        for (run, start) in runs.iter().zip(starts) {
            columns.push(run, start.as_ref())?;
        }
        Ok(columns)
    }

    fn push(&mut self, run: &'a NewRun, start: Option<&Row>) -> Result<(), sqlx::Error> {
        let (pipeline, action) = match &run.subject {
            Subject::Pipeline { id, name, version } => (Some((*id, name.as_str(), *version)), None),
            Subject::Action { node } => (None, Some(node.to_string())),
        };
        let encode = |error: serde_json::Error| sqlx::Error::Encode(error.into());
        self.ids.push(run.id);
        self.pipeline_ids.push(pipeline.map(|p| p.0));
        self.pipelines.push(pipeline.map(|p| p.1));
        self.versions.push(pipeline.map(|p| p.2));
        self.actions.push(action);
        self.lanes.push(&run.lane);
        self.inputs.push(run.input.to_string());
        self.triggers.push(run.trigger.to_string());
        self.tags.push(match run.tags.as_slice() {
            [] => None,
            tags => Some(serde_json::to_string(tags).map_err(encode)?),
        });
        self.created_by.push(&run.created_by);
        self.reruns.push(run.rerun_of);
        self.keeps.push(run.keep_completed);
        self.traceparents.push(run.traceparent.as_deref());
        self.delays.push(run.delay.map(|delay| delay.as_secs_f64()));
        self.job_ids.push(start.map(|row| row.id));
        self.jobs.push(match start {
            Some(row) => Some(serde_json::to_string(&row.job).map_err(encode)?),
            None => None,
        });
        Ok(())
    }
}
