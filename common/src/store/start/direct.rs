//! The start of a run in one statement, where nothing has to be read before it is known what to write: an action, or a
//! version of a pipeline that is compiled here already. Whatever the rows do not confirm is left to [`super::start`].

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Beginning, Start, beginning, keep_triggers};
use crate::advance::{Changes, advance, fresh};
use crate::clock::Instant;
use crate::context::{RunContext, RunRow};
use crate::graph::Graph;
use crate::outbox;
use crate::store::claim::Claimed;
use crate::store::definitions::{Definitions, single};
use crate::store::follow::{Follow, Keeping, Places};
use crate::store::write::{self, Writes};

/// What came of it.
#[derive(Debug, Clone)]
pub enum Answer {
    /// It runs; these node runs are this worker's.
    Started(Vec<Claimed>),
    /// It runs, but its action cannot be read; the sentence says why.
    Unreadable(String),
    /// The rows are not as was guessed: it takes a look at them.
    Look,
}

/// A batch, with what is to be published once it is committed.
#[derive(Debug, Default)]
pub struct Started {
    /// One answer an item.
    pub answers: Vec<Answer>,
    /// The jobs that it wrote.
    pub jobs: Vec<outbox::Row>,
}

/// A run whose rows are put together before it is known to be queued.
struct Plan {
    graph: Arc<Graph>,
    kept: Vec<Claimed>,
    jobs: Vec<outbox::Row>,
}

#[derive(Default)]
struct Asked {
    runs: Vec<Uuid>,
    pipelines: Vec<Option<Uuid>>,
    versions: Vec<Option<i32>>,
    jobs: Vec<Uuid>,
    /// How many changes the start counts for.
    changes: Vec<i64>,
    open: Vec<i32>,
    timeouts: Vec<Option<i64>>,
    /// Rows of node runs, and of jobs; none for an action, whose row says what its node run is.
    nodes: Vec<Option<String>>,
    sends: Vec<Option<String>>,
}

impl Asked {
    /// An action: its only node begins, and so does the run.
    fn action(&mut self, item: &Start) {
        self.push(item, None, (2, 1));
        self.timeouts.push(None);
        self.nodes.push(None);
        self.sends.push(None);
    }

    fn push(&mut self, item: &Start, version: Option<(Uuid, i32)>, (changes, open): (i64, i32)) {
        self.runs.push(item.run);
        self.pipelines.push(version.map(|it| it.0));
        self.versions.push(version.map(|it| it.1));
        self.jobs.push(item.job);
        self.changes.push(changes);
        self.open.push(open);
    }
}

/// Starts what is queued, and is what its message says; in one statement, which commits by itself.
pub async fn start(
    conn: &mut PgConnection,
    starts: &[Start],
    keeping: Keeping<'_>,
    spare: usize,
    definitions: &Definitions,
) -> Result<Started, sqlx::Error> {
    let mut started = Started { answers: vec![Answer::Look; starts.len()], jobs: Vec::new() };
    let Some(owner) = keeping.owner else { return Ok(started) };
    let mut asked = Asked::default();
    let mut plans: HashMap<Uuid, (usize, Option<Plan>)> = HashMap::new();
    let mut places = Places { own: Vec::new(), spare };
    // By run, so that two batches never lock in different orders.
    let mut order: Vec<usize> = (0..starts.len()).collect();
    order.sort_by_key(|place| starts[*place].run);
    for place in order {
        let item = &starts[place];
        if plans.contains_key(&item.run) {
            continue;
        }
        let Some((name, version)) = &item.pipeline else {
            asked.action(item);
            plans.insert(item.run, (place, None));
            continue;
        };
        let Some((id, graph)) = definitions.named(name, *version) else { continue };
        let Some(changes) = opening(&graph) else { continue };
        let context = Arc::new(guessed(item, id, name, *version, graph.clone()));
        places.own = vec![item.job];
        let mut beginning = Beginning {
            follow: Follow { context: &context, job: item.job, seq: 0 },
            writes: Writes::default(),
            kept: HashSet::new(),
        };
        let kept = beginning.follow.apply(&changes, keeping, &mut places, &mut beginning.writes);
        beginning.write_rest();
        let open = graph.sinks().len() as i32 - changes.closed_sinks;
        asked.push(item, Some((id, *version)), (beginning.follow.seq + 1, open));
        let timeout = graph.timeout();
        let timeout = timeout.map(|it| i64::try_from(it.as_millis()).unwrap_or(i64::MAX / 2));
        asked.timeouts.push(timeout);
        let own = beginning.writes;
        asked.nodes.push(write::json_rows(&own.nodes)?);
        asked.sends.push(write::json_rows(&own.jobs)?);
        plans.insert(item.run, (place, Some(Plan { graph, kept, jobs: own.jobs })));
    }
    for begun in begin(conn, &asked, owner).await? {
        let (row, action, job) = begun.split();
        let Some((place, plan)) = plans.remove(&row.id) else { continue };
        started.answers[place] = match plan {
            Some(plan) => {
                started.jobs.extend(plan.jobs);
                let context = Arc::new(RunContext::new(row, plan.graph));
                keep_triggers(&context);
                let claimed = plan.kept.into_iter();
                let claimed = claimed.map(|one| Claimed { context: context.clone(), ..one });
                Answer::Started(claimed.collect())
            }
            None => match action.as_ref().map(single) {
                Some(Ok(graph)) => Answer::Started(vec![Claimed {
                    context: Arc::new(RunContext::new(row, Arc::new(graph))),
                    node: 0,
                    attempt: 1,
                    spent: 0,
                    losses: 0,
                    waiting: None,
                    job,
                }]),
                Some(Err(why)) => Answer::Unreadable(why),
                None => Answer::Unreadable("the run has no action".to_owned()),
            },
        };
    }
    Ok(started)
}

/// What a run of this definition opens with; none when that takes a condition, or when it ends or fails at once.
fn opening(graph: &Graph) -> Option<Changes> {
    let (ended, mut ready) = beginning(graph, |_| false);
    let fresh = |node| Some(fresh(graph, node));
    let mut changes = advance(graph, &ended, fresh, &HashMap::new()).ok()?;
    ready.append(&mut changes.ready);
    changes.ready = ready;
    let goes_on = changes.unhandled.is_none()
        && changes.failed.is_empty()
        && (changes.closed_sinks as usize) < graph.sinks().len();
    goes_on.then_some(changes)
}

/// A context from which rows and jobs can be written, but no node run executed: its input is not known.
fn guessed(item: &Start, id: Uuid, name: &str, version: i32, graph: Arc<Graph>) -> RunContext {
    let row = RunRow {
        id: item.run,
        pipeline_id: Some(id),
        pipeline: Some(name.to_owned()),
        version: Some(version),
        action: None,
        input: Value::Null,
        trigger: Value::Null,
        tags: Vec::new(),
        created_at: Instant::UNIX_EPOCH,
        traceparent: item.traceparent.clone(),
    };
    RunContext::new(row, graph)
}

/// What the statements return: a run that begins, and its row.
struct Begun {
    id: Uuid,
    pipeline_id: Option<Uuid>,
    pipeline: Option<String>,
    version: Option<i32>,
    action: Option<Value>,
    input: Value,
    trigger: Value,
    tags: Vec<String>,
    created_at: Instant,
    traceparent: Option<String>,
    job_id: Uuid,
}

impl Begun {
    fn split(self) -> (RunRow, Option<Value>, Uuid) {
        let run = RunRow {
            id: self.id,
            pipeline_id: self.pipeline_id,
            pipeline: self.pipeline,
            version: self.version,
            action: None,
            input: self.input,
            trigger: self.trigger,
            tags: self.tags,
            created_at: self.created_at,
            traceparent: self.traceparent,
        };
        (run, self.action, self.job_id)
    }
}

async fn begin(
    conn: &mut PgConnection,
    asked: &Asked,
    owner: Uuid,
) -> Result<Vec<Begun>, sqlx::Error> {
    if asked.runs.is_empty() {
        return Ok(Vec::new());
    }
    let [actions, alone] = [
        asked.pipelines.iter().all(Option::is_none),
        asked.pipelines.iter().all(Option::is_some)
            && asked.sends.iter().all(Option::is_none)
            && asked.timeouts.iter().all(Option::is_none),
    ];
    match (actions, alone) {
        (true, _) => begin_actions(conn, asked, owner).await,
        (_, true) => begin_alone(conn, asked).await,
        _ => begin_all(conn, asked, owner).await,
    }
}

/// Actions alone: each run has one node run, and its row says which.
async fn begin_actions(
    conn: &mut PgConnection,
    asked: &Asked,
    owner: Uuid,
) -> Result<Vec<Begun>, sqlx::Error> {
    /// `$asked` names what is asked for, as rows of the columns that are bound.
    macro_rules! statement {
        ($asked:literal) => {
            sqlx::query_as!(
                Begun,
                r#"with locked as (
                       select a.*, clock_timestamp() as now
                       from "#
                    + $asked
                    + r#"
                       join runs as r on r.id = a.run_id
                       where r.state = 'queued' and not r.keep_completed and r.action is not null
                       order by a.run_id for no key update of r
                   ),
                   begun as (
                       update runs as r set state = 'running', seq = r.seq + l.changes, open = l.open, started_at = l.now
                       from locked as l
                       where r.id = l.run_id and r.state = 'queued'
                       returning r.id, r.action, r.lane, r.input, r.trigger, r.tags, r.created_at, r.traceparent,
                           r.seq - l.changes as before, l.job_id, l.now
                   ),
                   written as (
                       insert into node_runs (run_id, node, state, lane, attempt, owner, job_id, seq, queued_at, started_at)
                       select b.id, b.action ->> 'id', 'running', b.lane, 1, $5, b.job_id, b.before + 1, b.now, b.now
                       from begun as b
                   )
                   select id, null::uuid as pipeline_id, null as pipeline, null::int as version, action, input, trigger,
                       tags, created_at, traceparent, job_id as "job_id!"
                   from begun"#,
                &asked.runs,
                &asked.jobs,
                &asked.changes,
                &asked.open,
                owner,
            )
            .fetch_all(conn)
            .await
        };
    }
    match asked.runs.len() {
        // To unnest columns of one row takes longer than to look into them.
        1 => statement!(
            "(select ($1::uuid[])[1] as run_id, ($2::uuid[])[1] as job_id, ($3::bigint[])[1] as changes,
                  ($4::int[])[1] as open) as a"
        ),
        _ => statement!(
            "unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::int[]) as a (run_id, job_id, changes, open)"
        ),
    }
}

/// The statement for runs of pipelines, whose parts `$more` write more than node runs, out of further columns. It locks
/// the runs in their order, and writes only what belongs to those that are as was guessed. Each of its parts walks the
/// rows of the one before, so that none is compared with all of another's.
macro_rules! statement {
    (one $($rest:tt)+) => {
        statement!(
            @of ["(select ($1::uuid[])[1] as run_id, ($2::uuid[])[1] as pipeline_id, ($3::int[])[1] as version,
                      ($4::uuid[])[1] as job_id, ($5::bigint[])[1] as changes, ($6::int[])[1] as open,
                      ($7::text[])[1] as nodes) as a"],
            $($rest)+
        )
    };
    (many $types:literal, $names:literal, $($rest:tt)+) => {
        statement!(
            @of ["unnest($1::uuid[], $2::uuid[], $3::int[], $4::uuid[], $5::bigint[], $6::int[], $7::text[]",
                $types,
                ") as a (run_id, pipeline_id, version, job_id, changes, open, nodes",
                $names,
                ")"],
            $($rest)+
        )
    };
    (@of [$($source:literal),+], $kept:literal, $more:literal, $asked:expr $(, $column:expr)*) => {
        sqlx::query_as!(
            Begun,
            r#"with locked as (
               select a.*, clock_timestamp() as now
               from "#
                $(+ $source)+
                + r#"
               join runs as r on r.id = a.run_id
               where r.state = 'queued' and not r.keep_completed
                   and r.pipeline_id is not distinct from a.pipeline_id and r.version is not distinct from a.version
               order by a.run_id for no key update of r
           ),
           begun as (
               update runs as r set state = 'running', seq = r.seq + l.changes, open = l.open, started_at = l.now
               from locked as l
               where r.id = l.run_id and r.state = 'queued'
               returning r.id, r.pipeline_id, r.pipeline, r.version, r.action, r.lane, r.input, r.trigger, r.tags,
                   r.created_at, r.traceparent, r.seq - l.changes as before, l.job_id, l.nodes, l.now"#
                + $kept
                + r#"
           ),
           written as (
               insert into node_runs (run_id, node, state, lane, attempt, open_in, taken_in, broken_in, owner, job_id,
                   output, error, seq, queued_at, started_at, finished_at)
               select b.id, i.node, i.state, i.lane, i.attempt, i.open_in, i.taken_in, i.broken_in, i.owner, i.job_id,
                   case when i.state = 'completed' then b.input end, i.error, b.before + i.seq,
                   case when i.state in ('queued', 'running') then b.now end,
                   case when i.state in ('running', 'completed') then b.now end,
                   case when i.state in ('completed', 'failed', 'skipped', 'cancelled') then b.now end
               from begun as b, jsonb_to_recordset(b.nodes::jsonb)
                   as i (node text, state node_state, lane text, attempt int, open_in int, taken_in bool,
                       broken_in bool, owner uuid, job_id uuid, error jsonb, seq bigint)"#
                + $more
                + r#"
           select id, pipeline_id, pipeline, version, action, input, trigger, tags, created_at, traceparent,
               job_id as "job_id!"
           from begun"#,
            &$asked.runs,
            &$asked.pipelines as &[Option<Uuid>],
            &$asked.versions as &[Option<i32>],
            &$asked.jobs,
            &$asked.changes,
            &$asked.open,
            &$asked.nodes as &[Option<String>]
            $(, $column)*
        )
    };
}

/// Runs of pipelines alone, of which nothing is sent, and that have no deadline.
async fn begin_alone(conn: &mut PgConnection, asked: &Asked) -> Result<Vec<Begun>, sqlx::Error> {
    match asked.runs.len() {
        1 => statement!(one "", ")", asked).fetch_all(conn).await,
        _ => statement!(many "", "", "", ")", asked).fetch_all(conn).await,
    }
}

/// All that can begin.
async fn begin_all(
    conn: &mut PgConnection,
    asked: &Asked,
    owner: Uuid,
) -> Result<Vec<Begun>, sqlx::Error> {
    statement!(
        many ", $8::bigint[], $9::text[]",
        ", timeout_ms, jobs",
        ", l.timeout_ms, l.jobs",
        "
               union all
               select b.id, b.action ->> 'id', 'running', b.lane, 1, 0, false, false, $10, b.job_id, null, null,
                   b.before + 1, b.now, b.now, null
               from begun as b where b.action is not null
           ),
           sent as (
               insert into outbox (id, lane, job)
               select j.id, j.lane, j.job from begun as b, jsonb_to_recordset(b.jobs::jsonb) as j (id uuid, lane text, job jsonb)
           ),
           due as (
               insert into timers (run_id, kind, due_at)
               select b.id, 'deadline', b.now + b.timeout_ms * interval '1 millisecond'
               from begun as b where b.timeout_ms is not null
           )",
        asked,
        &asked.timeouts as &[Option<i64>],
        &asked.sends as &[Option<String>],
        owner
    )
    .fetch_all(conn)
    .await
}
