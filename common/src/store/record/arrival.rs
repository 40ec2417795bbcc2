//! The record of completed node runs that lead to a join and nowhere else, in one statement. The statement counts them
//! there, and goes on with the join where they were the last. What the rows do not confirm is left to [`super::record`].

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sqlx::PgConnection;
use uuid::Uuid;

use super::direct::Recorded;
use super::{Outcome, Record};
use crate::advance::{End, Join, advance};
use crate::graph::NodeIx;
use crate::run::RunState;
use crate::store::claim::Claimed;
use crate::store::follow::{self, Keeping};

/// A record of which a join counts one more edge as taken, and from which nothing else follows.
#[derive(Debug, Clone)]
pub struct Arrival {
    record: Arc<Record>,
    join: NodeIx,
}

impl Arrival {
    /// None when something else follows from the record, or rows have to be read before that is known.
    pub fn of(record: &Arc<Record>) -> Option<Self> {
        let Outcome::Completed { .. } = record.outcome else { return None };
        let verdicts: HashMap<_, _> = record.verdicts.iter().cloned().collect();
        // As if the join waited for many more: what is done to it shows.
        let open = Join { open: i32::MAX, ..Join::default() };
        let ended = [(record.node, End::Completed)];
        let graph = &record.context.graph;
        let mut changes = advance(graph, &ended, |_| Some(open.clone()), &verdicts).ok()?;
        let (join, counted) = changes.pending.pop_first()?;
        let counts_one = counted == Join { open: i32::MAX - 1, taken: true, ..Join::default() };
        let nothing_else = changes == Default::default();
        (counts_one && nothing_else).then(|| Self { record: record.clone(), join })
    }

    /// The record.
    pub fn record(&self) -> &Arc<Record> {
        &self.record
    }

    /// Whether this worker goes on with the join.
    fn keeps(&self, keeping: Keeping<'_>) -> bool {
        let join = &self.record.context.graph.node(self.join).node;
        let is_kept = follow::is_control(join.node_type)
            || (self.record.goes_on && (keeping.serves)(&join.lane));
        keeping.owner.is_some() && is_kept
    }

    fn node(&self, ix: NodeIx) -> &str {
        &self.record.context.graph.node(ix).node.id
    }
}

/// The records of one run: of those in the batch, the ones that lead to the same join as the first.
struct Group<'a> {
    first: &'a Arrival,
    keeps: bool,
    /// Where they stand in the batch, by node.
    places: HashMap<&'a str, usize>,
}

#[derive(Default)]
struct Columns<'a> {
    runs: Vec<Uuid>,
    joins: Vec<&'a str>,
    counts: Vec<i32>,
    /// Whether this worker goes on with the join, if these are the last.
    keeps: Vec<bool>,
    records: Records<'a>,
}

#[derive(Default)]
struct Records<'a> {
    runs: Vec<Uuid>,
    nodes: Vec<&'a str>,
    attempts: Vec<i32>,
    jobs: Vec<Uuid>,
    outputs: Vec<&'a str>,
    /// The how-manieth of its run it is, from 1.
    numbers: Vec<i64>,
}

/// Records what still runs under its fence, in runs that go on; in one statement, which commits by itself.
pub async fn record(
    conn: &mut PgConnection,
    items: &[Arrival],
    keeping: Keeping<'_>,
) -> Result<Recorded, sqlx::Error> {
    // By run, so that two batches never lock in different orders.
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by_key(|place| items[*place].record.context.id);
    let mut groups: HashMap<Uuid, Group<'_>> = HashMap::new();
    let mut columns = Columns::default();
    for place in order {
        let item = &items[place];
        let (run, Outcome::Completed { text, .. }) = (item.record.context.id, &item.record.outcome)
        else {
            continue;
        };
        let group = groups.entry(run).or_insert_with(|| {
            let keeps = item.keeps(keeping);
            columns.runs.push(run);
            columns.joins.push(item.node(item.join));
            columns.counts.push(0);
            columns.keeps.push(keeps);
            Group { first: item, keeps, places: HashMap::new() }
        });
        let node = item.node(item.record.node);
        let fits = group.first.join == item.join && group.keeps == item.keeps(keeping);
        if !fits || group.places.contains_key(node) {
            continue;
        }
        group.places.insert(node, place);
        if let Some(count) = columns.counts.last_mut() {
            *count += 1;
        }
        columns.records.runs.push(run);
        columns.records.nodes.push(node);
        columns.records.attempts.push(item.record.attempt);
        columns.records.jobs.push(item.record.job);
        columns.records.outputs.push(text);
        columns.records.numbers.push(group.places.len() as i64);
    }
    let mut recorded = Recorded::default();
    recorded.answers.resize(items.len(), None);
    let mut told = HashSet::new();
    for arrived in write(conn, &columns, keeping.owner).await? {
        let Some(group) = groups.get(&arrived.run_id) else { continue };
        let Some(place) = group.places.get(arrived.node.as_str()) else { continue };
        let record = &items[*place].record;
        recorded.answers[*place] = Some(match arrived.goes_on {
            true => vec![Claimed {
                context: record.context.clone(),
                node: group.first.join,
                attempt: 1,
                spent: 0,
                losses: 0,
                waiting: None,
                job: record.job,
            }],
            false => Vec::new(),
        });
        if told.insert(arrived.run_id) {
            recorded.runs.push((arrived.run_id, RunState::Running));
        }
    }
    Ok(recorded)
}

/// A node run that was recorded.
struct Arrived {
    run_id: Uuid,
    node: String,
    /// Whether it was the last, and the join goes on in its slot.
    goes_on: bool,
}

/// Both the run and the join are locked before the counter is read, so that it is the newest. Whether the join is
/// complete shows by the node runs whose fence held; that it may be is decided before, with all of them in mind.
async fn write(
    conn: &mut PgConnection,
    columns: &Columns<'_>,
    owner: Option<Uuid>,
) -> Result<Vec<Arrived>, sqlx::Error> {
    sqlx::query_as!(
        Arrived,
        r#"with locked as (
               select a.*, r.seq, j.open_in, clock_timestamp() as now
               from unnest($1::uuid[], $2::text[], $3::int[], $4::bool[]) as a (run_id, target, count, keeps)
               join runs as r on r.id = a.run_id
               join node_runs as j on j.run_id = a.run_id and j.node = a.target
               where r.state = 'running' and j.state = 'pending'
                   and (j.open_in > a.count or (a.keeps and not j.broken_in and j.error is null))
               order by a.run_id for no key update of r, j
           ),
           done as (
               update node_runs as n set state = 'completed', output = e.output::jsonb, error = null,
                   seq = l.seq + e.number, finished_at = l.now
               from unnest($5::uuid[], $6::text[], $7::int[], $8::uuid[], $9::text[], $10::bigint[])
                       as e (run_id, node, attempt, job_id, output, number)
                   join locked as l on l.run_id = e.run_id
               where n.run_id = e.run_id and n.node = e.node and n.state = 'running' and n.attempt = e.attempt
               returning n.run_id, n.node, e.job_id
           ),
           arrived as (
               select l.run_id, l.target, l.now, l.seq + l.count as seq, l.open_in - d.count as open, d.node, d.job_id
               from (
                       select run_id, count(*)::int as count, min(node) as node,
                           (array_agg(job_id order by node))[1] as job_id
                       from done group by run_id
                   ) as d
                   join locked as l on l.run_id = d.run_id
           ),
           joined as (
               update node_runs as j set seq = a.seq + 1, open_in = a.open, taken_in = a.open > 0,
                   state = case when a.open > 0 then j.state else 'running' end,
                   attempt = case when a.open > 0 then j.attempt else 1 end,
                   owner = case when a.open > 0 then j.owner else $11 end,
                   job_id = case when a.open > 0 then j.job_id else a.job_id end,
                   queued_at = case when a.open > 0 then j.queued_at else a.now end,
                   started_at = case when a.open > 0 then j.started_at else a.now end
               from arrived as a
               where j.run_id = a.run_id and j.node = a.target
           ),
           counted as (
               update runs as r set seq = a.seq + 2 from arrived as a where r.id = a.run_id
           )
           select d.run_id, d.node, a.open = 0 and d.node = a.node as "goes_on!"
           from done as d join arrived as a on a.run_id = d.run_id"#,
        &columns.runs,
        &columns.joins as &[&str],
        &columns.counts,
        &columns.keeps,
        &columns.records.runs,
        &columns.records.nodes as &[&str],
        &columns.records.attempts,
        &columns.records.jobs,
        &columns.records.outputs as &[&str],
        &columns.records.numbers,
        owner
    )
    .fetch_all(conn)
    .await
}
