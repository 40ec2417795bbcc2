//! The record of a completed node run in one statement, where nothing has to be read before it is known what follows:
//! none of its successors waits for another node, and the run's output, if this is its end, is the node's own. What
//! the rows do not confirm is left to [`super::record`].

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::PgConnection;
use uuid::Uuid;

use super::{Outcome, Record};
use crate::advance::{Changes, End, advance};
use crate::node_run::NodeState;
use crate::outbox;
use crate::run::RunState;
use crate::store::claim::Claimed;
use crate::store::follow::{self, Follow, Keeping, Places};
use crate::store::write::{self, NodeRow, Writes};

/// How many nodes a record may make ready. Rows of more go the longer way, where they are handed over as columns: 10,000
/// of them take half as long there.
const MOST_READY: usize = 100;

/// A record whose consequences are known.
#[derive(Debug, Clone)]
pub struct Known {
    record: Arc<Record>,
    changes: Changes,
    /// Whether the run ends with it.
    ends: bool,
}

impl Known {
    /// None when rows have to be read first, or when more than the node run's own fence decides.
    pub fn of(record: &Arc<Record>) -> Option<Self> {
        let Outcome::Completed { .. } = record.outcome else { return None };
        let graph = &record.context.graph;
        let verdicts: HashMap<_, _> = record.verdicts.iter().cloned().collect();
        let ended = [(record.node, End::Completed)];
        let changes = advance(graph, &ended, |_| None, &verdicts).ok()?;
        let ends = match changes.closed_sinks {
            0 => false,
            1 if graph.sinks().len() == 1 => true,
            _ => return None,
        };
        let plain = changes.failed.is_empty()
            && changes.unhandled.is_none()
            && changes.ready.len() <= MOST_READY;
        plain.then(|| Self { record: record.clone(), changes, ends })
    }

    /// The record.
    pub fn record(&self) -> &Arc<Record> {
        &self.record
    }
}

/// What came of a batch.
#[derive(Debug, Default)]
pub struct Recorded {
    /// One an item: what this worker goes on with; none when the rows have to be looked at.
    pub answers: Vec<Option<Vec<Claimed>>>,
    /// The jobs that it wrote.
    pub jobs: Vec<outbox::Row>,
    /// The runs that changed, and how they stand.
    pub runs: Vec<(Uuid, RunState)>,
}

#[derive(Default)]
struct Columns<'a> {
    runs: Vec<Uuid>,
    nodes: Vec<&'a str>,
    attempts: Vec<i32>,
    outputs: Vec<&'a str>,
    changes: Vec<i64>,
    ends: Vec<bool>,
    /// Whether the output of the run is the node's.
    gives: Vec<bool>,
    /// Rows of successors.
    moves: Vec<Vec<NodeRow>>,
    /// Whether the end of one of them leaves a deadline over.
    leaves_deadlines: bool,
}

/// What follows from the records of a batch, at the most.
enum Consequences {
    /// Runs end.
    Ends,
    /// Runs end, or this worker goes on with one node run.
    Steps,
    /// Whatever it may be.
    All,
}

impl Columns<'_> {
    fn consequences(&self, sends: bool) -> Consequences {
        let is_step = |moves: &Vec<NodeRow>| match moves.as_slice() {
            [] => true,
            [only] => only.state == NodeState::Running,
            _ => false,
        };
        match self.leaves_deadlines || sends {
            false if self.moves.iter().all(Vec::is_empty) => Consequences::Ends,
            false if self.moves.iter().all(is_step) => Consequences::Steps,
            _ => Consequences::All,
        }
    }
}

/// What follows from one record.
struct Plan {
    place: usize,
    kept: Vec<Claimed>,
    jobs: Vec<outbox::Row>,
}

/// Records what still runs under its fence, in runs that go on; in one statement, which commits by itself. Of several
/// records of one run it takes the first.
pub async fn record(
    conn: &mut PgConnection,
    items: &[Known],
    keeping: Keeping<'_>,
    spare: usize,
) -> Result<Recorded, sqlx::Error> {
    let (mut columns, mut jobs) = (Columns::default(), Vec::new());
    let mut plans: HashMap<Uuid, Plan> = HashMap::new();
    let mut places = Places { own: Vec::new(), spare };
    // By run, so that two batches never lock in different orders.
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by_key(|place| items[*place].record.context.id);
    for place in order {
        let item = &items[place];
        let record = &item.record;
        let (context, Outcome::Completed { text, .. }) = (&record.context, &record.outcome) else {
            continue;
        };
        if plans.contains_key(&context.id) {
            continue;
        }
        places.own = record.goes_on.then_some(record.job).into_iter().collect();
        // The node run's own change comes first.
        let mut follow = Follow { context, job: record.job, seq: 1 };
        let mut own = Writes::default();
        let kept = follow.apply(&item.changes, keeping, &mut places, &mut own);
        if item.ends {
            own.jobs.extend(follow::told(context, &context.graph.node(record.node).node.lane));
        }
        columns.runs.push(context.id);
        columns.nodes.push(&context.graph.node(record.node).node.id);
        columns.attempts.push(record.attempt);
        columns.outputs.push(text);
        columns.changes.push(follow.seq + 1);
        columns.ends.push(item.ends);
        columns.gives.push(item.ends && context.graph.is_sink(record.node));
        columns.leaves_deadlines |= item.ends && context.graph.timeout().is_some();
        columns.moves.push(own.nodes);
        jobs.push(write::json_rows(&own.jobs)?);
        plans.insert(context.id, Plan { place, kept, jobs: own.jobs });
    }
    let mut recorded = Recorded::default();
    recorded.answers.resize(items.len(), None);
    let counted = match columns.consequences(jobs.iter().any(Option::is_some)) {
        Consequences::Ends => write_ends(conn, &columns).await?,
        Consequences::Steps => write_steps(conn, &columns).await?,
        Consequences::All => write_all(conn, &columns, &jobs).await?,
    };
    for run in counted {
        if let Some(plan) = plans.remove(&run.id) {
            recorded.answers[plan.place] = Some(plan.kept);
            recorded.jobs.extend(plan.jobs);
            recorded.runs.push((run.id, run.state));
        }
    }
    Ok(recorded)
}

/// What the statement returns: a run that changed.
struct Counted {
    id: Uuid,
    state: RunState,
}

/// The statement, whose parts `$follows` write what follows from the records, out of further columns. Each of its parts
/// walks the rows of the one before, so that none is compared with all of another's; the end of a run is
/// [`RunState::next`]'s for sinks that ended. What is in it costs time whether or not there is anything to do for it:
/// so events are told by a function, which is called only where something listens.
macro_rules! statement {
    // One record is taken out of its columns by its place: to unnest them takes longer.
    (one $one:literal, $($rest:tt)+) => {
        statement!(
            @of ["(select ($1::uuid[])[1] as run_id, ($2::text[])[1] as node, ($3::int[])[1] as attempt,
                      ($4::text[])[1] as output, ($5::bigint[])[1] as changes, ($6::bool[])[1] as ends,
                      ($7::bool[])[1] as gives",
                $one,
                ") as a"],
            $($rest)+
        )
    };
    (many $types:literal, $names:literal, $($rest:tt)+) => {
        statement!(
            @of ["unnest($1::uuid[], $2::text[], $3::int[], $4::text[], $5::bigint[], $6::bool[], $7::bool[]",
                $types,
                ") as a (run_id, node, attempt, output, changes, ends, gives",
                $names,
                ")"],
            $($rest)+
        )
    };
    (@of [$($asked:literal),+], $follows:literal, $columns:expr $(, $more:expr)*) => {
        sqlx::query_as!(
            Counted,
            r#"with locked as (
               select a.*, r.seq, r.error is not null as failed, clock_timestamp() as now
               from "#
                $(+ $asked)+
                + r#"
               join runs as r on r.id = a.run_id
               where r.state = 'running' order by a.run_id for no key update of r
           ),
           done as (
               update node_runs as n set state = 'completed', output = l.output::jsonb, error = null, seq = l.seq + 1,
                   finished_at = l.now
               from locked as l
               where n.run_id = l.run_id and n.node = l.node and n.state = 'running' and n.attempt = l.attempt
               returning l.*
           ),
           counted as (
               update runs as r set seq = d.seq + d.changes,
                   open = case when d.ends then 0 else r.open end,
                   state = case when not d.ends then r.state when d.failed then 'failed' else 'completed' end,
                   output = case when d.gives and not d.failed then d.output::jsonb else r.output end,
                   finished_at = case when d.ends then d.now end
               from done as d
               where r.id = d.run_id
               returning r.id, r.state, d.ends,
                   case when d.ends and (select exists (select from schedules where listens is not null)
                       or exists (select from waits where listens is not null)) then tell_end(r.id, r.state) end
           )"#
                + $follows
                + r#"
           select id, state as "state: RunState" from counted"#,
            &$columns.runs,
            &$columns.nodes as &[&str],
            &$columns.attempts,
            &$columns.outputs as &[&str],
            &$columns.changes,
            &$columns.ends,
            &$columns.gives
            $(, $more)*
        )
    };
}

/// Ends alone: no successor moves, nothing is sent, no deadline is left over.
async fn write_ends(
    conn: &mut PgConnection,
    columns: &Columns<'_>,
) -> Result<Vec<Counted>, sqlx::Error> {
    match columns.runs.len() {
        1 => statement!(one "", "", columns).fetch_all(conn).await,
        _ => statement!(many "", "", "", columns).fetch_all(conn).await,
    }
}

/// Ends, and steps: this worker goes on with the only node that has become ready.
async fn write_steps(
    conn: &mut PgConnection,
    columns: &Columns<'_>,
) -> Result<Vec<Counted>, sqlx::Error> {
    let next = || columns.moves.iter().map(|moves| moves.first());
    let nodes: Vec<Option<&str>> = next().map(|row| row.map(|row| row.node.as_str())).collect();
    let jobs: Vec<Option<Uuid>> = next().map(|row| row.and_then(|row| row.job)).collect();
    let owner = next().flatten().find_map(|row| row.owner);
    /// `$asked` are the first arguments of the statement.
    macro_rules! steps {
        ($($asked:tt)+) => {
            statement!(
                $($asked)+,
                ",
                   moved as (
                       update node_runs as n set state = 'running', attempt = 1, open_in = 0, taken_in = false,
                           broken_in = false, owner = $10, job_id = d.next_job, error = null, seq = d.seq + 2,
                           queued_at = d.now, started_at = d.now, finished_at = null
                       from done as d
                       where n.run_id = d.run_id and n.node = d.next and n.state = 'pending'
                   )",
                columns,
                &nodes as &[Option<&str>],
                &jobs as &[Option<Uuid>],
                owner
            )
            .fetch_all(conn)
            .await
        };
    }
    match columns.runs.len() {
        1 => steps!(one ", ($8::text[])[1] as next, ($9::uuid[])[1] as next_job"),
        _ => steps!(many ", $8::text[], $9::uuid[]", ", next, next_job"),
    }
}

/// All that can follow. The bounds on `u.seq` hold always: they tell the planner, which believes in 100 rows a record,
/// that there are few, so that it looks each up by its key even where it planned while the table was empty.
async fn write_all(
    conn: &mut PgConnection,
    columns: &Columns<'_>,
    jobs: &[Option<String>],
) -> Result<Vec<Counted>, sqlx::Error> {
    let moves: Vec<_> =
        columns.moves.iter().map(|rows| write::json_rows(rows)).collect::<Result<_, _>>()?;
    statement!(
        many ", $8::text[], $9::text[]",
        ", moves, jobs",
        r#",
           moves as materialized (
               select d.run_id, d.now, d.seq + u.seq as at, u.*
               from done as d, jsonb_to_recordset(d.moves::jsonb)
                   as u (node text, state node_state, attempt int, open_in int, taken_in bool, broken_in bool,
                       owner uuid, job_id uuid, error jsonb, seq bigint)
               where u.seq between 0 and 4611686018427387904
           ),
           moved as (
               update node_runs as n set state = u.state, attempt = u.attempt, open_in = u.open_in,
                   taken_in = u.taken_in, broken_in = u.broken_in, owner = u.owner, job_id = u.job_id,
                   error = u.error, seq = u.at,
                   queued_at = case when u.state in ('queued', 'running') then u.now end,
                   started_at = case when u.state = 'running' then u.now end,
                   finished_at = case when u.state in ('failed', 'skipped', 'cancelled') then u.now end
               from moves as u
               where n.run_id = u.run_id and n.node = u.node and n.state = 'pending'
           ),
           sent as (
               insert into outbox (id, lane, job)
               select j.id, j.lane, j.job from done as d, jsonb_to_recordset(d.jobs::jsonb) as j (id uuid, lane text, job jsonb)
           ),
           pointless as (
               delete from timers as t using counted as c where t.run_id = c.id and c.ends
           )"#,
        columns,
        &moves as &[Option<String>],
        jobs as &[Option<String>]
    )
    .fetch_all(conn)
    .await
}
