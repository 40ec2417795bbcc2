//! The record of completed node runs that lead to a join and nowhere else, in one statement. The statement counts them
//! there, and goes on with the join where they were the last. What the rows do not confirm is left to [`super::record`].

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;
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
    /// Whether this worker goes on with the join, if these are the last.
    keeps: Vec<bool>,
    records: Vec<Vec<Row<'a>>>,
}

/// A record, as its run's row has it.
#[derive(Serialize)]
struct Row<'a> {
    node: &'a str,
    attempt: i32,
    job_id: Uuid,
    output: &'a RawValue,
    /// The how-manieth of its run it is, from 1.
    number: i64,
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
            columns.keeps.push(keeps);
            columns.records.push(Vec::new());
            Group { first: item, keeps, places: HashMap::new() }
        });
        let node = item.node(item.record.node);
        let fits = group.first.join == item.join && group.keeps == item.keeps(keeping);
        if !fits || group.places.contains_key(node) {
            continue;
        }
        group.places.insert(node, place);
        if let Some(records) = columns.records.last_mut() {
            records.push(Row {
                node,
                attempt: item.record.attempt,
                job_id: item.record.job,
                output: serde_json::from_str(text).map_err(unencodable)?,
                number: group.places.len() as i64,
            });
        }
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

fn unencodable(error: serde_json::Error) -> sqlx::Error {
    sqlx::Error::Encode(error.into())
}

/// Both the run and the join are locked before the counter is read, so that it is the newest. Whether the join is
/// complete shows by the node runs whose fence held; that it may be is decided before, with all of them in mind. Each part
/// walks the rows of the one before, and the bounds of `number` tell the planner that there are few, as in the other
/// direct records. An output that is null is none once it was a field of a record.
async fn write(
    conn: &mut PgConnection,
    columns: &Columns<'_>,
    owner: Option<Uuid>,
) -> Result<Vec<Arrived>, sqlx::Error> {
    let counts: Vec<i32> = columns.records.iter().map(|rows| rows.len() as i32).collect();
    let records: Vec<String> = columns
        .records
        .iter()
        .map(serde_json::to_string)
        .collect::<Result<_, _>>()
        .map_err(unencodable)?;
    sqlx::query_as!(
        Arrived,
        r#"with locked as (
               select a.*, r.seq, j.open_in, clock_timestamp() as now
               from unnest($1::uuid[], $2::text[], $3::int[], $4::bool[], $5::text[])
                   as a (run_id, target, count, keeps, records)
               join runs as r on r.id = a.run_id
               join node_runs as j on j.run_id = a.run_id and j.node = a.target
               where r.state = 'running' and j.state = 'pending'
                   and (j.open_in > a.count or (a.keeps and not j.broken_in and j.error is null))
               order by a.run_id for no key update of r, j
           ),
           records as materialized (
               select l.run_id, l.target, l.seq + e.number as at, l.seq + l.count as seq, l.open_in, l.now, e.*
               from locked as l, jsonb_to_recordset(l.records::jsonb)
                   as e (node text, attempt int, job_id uuid, output jsonb, number bigint)
               where e.number between 0 and 4611686018427387904
           ),
           done as (
               update node_runs as n set state = 'completed', output = coalesce(e.output, 'null'), error = null,
                   seq = e.at, finished_at = e.now
               from records as e
               where n.run_id = e.run_id and n.node = e.node and n.state = 'running' and n.attempt = e.attempt
               returning e.run_id, e.target, e.seq, e.open_in, e.now, e.node, e.job_id
           ),
           arrived as (
               select run_id, target, seq, now, open_in - count(*)::int as open,
                   (array_agg(job_id order by node))[1] as job_id
               from done group by run_id, target, seq, now, open_in
           ),
           joined as (
               update node_runs as j set seq = a.seq + 1, open_in = a.open, taken_in = a.open > 0,
                   state = case when a.open > 0 then j.state else 'running' end,
                   attempt = case when a.open > 0 then j.attempt else 1 end,
                   owner = case when a.open > 0 then j.owner else $6 end,
                   job_id = case when a.open > 0 then j.job_id else a.job_id end,
                   queued_at = case when a.open > 0 then j.queued_at else a.now end,
                   started_at = case when a.open > 0 then j.started_at else a.now end
               from arrived as a
               where j.run_id = a.run_id and j.node = a.target
           ),
           counted as (
               update runs as r set seq = a.seq + 2 from arrived as a where r.id = a.run_id
           )
           select run_id as "run_id!", node as "node!",
               open_in = count(*) over of_run and node = min(node) over of_run as "goes_on!"
           from done window of_run as (partition by run_id)"#,
        &columns.runs,
        &columns.joins as &[&str],
        &counts,
        &columns.keeps,
        &records,
        owner
    )
    .fetch_all(conn)
    .await
}
