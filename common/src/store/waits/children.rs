//! Runs that a node run starts, and waits for: begun with its wait, counted as they end, stopped when nobody waits.
//!
//! The end of a child is told to its parent by a job, since nothing crosses runs. Counting it locks the parent's run
//! only, and costs the same whether it has one child or ten thousand.

use std::collections::BTreeMap;

use serde_json::Value;
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use super::{Opened, answer_all, stops};
use crate::outbox::{self, Row};
use crate::run::RunState;
use crate::store::accept::{self, NewRun, Subject};
use crate::store::requeue;
use crate::wait::{Answer, ChildSpec, Children, OnItemFailure, Parent, WaitKind};

/// A child that has ended, and whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// The run that started it.
    pub parent: Uuid,
    /// The child.
    pub child: Uuid,
}

/// What the children of a wait inherit.
struct Above {
    created_by: String,
    trigger: Value,
    traceparent: Option<String>,
}

async fn above(conn: &mut PgConnection, run: Uuid) -> Result<Above, sqlx::Error> {
    sqlx::query_as!(Above, "select created_by, trigger, traceparent from runs where id = $1", run)
        .fetch_one(conn)
        .await
}

/// Writes the children of a wait that opens, and begins as many as may be under way at a time.
pub(super) async fn begin(
    conn: &mut PgConnection,
    opened: &Opened,
    children: &Children,
) -> Result<Vec<Row>, sqlx::Error> {
    let room = usize::try_from(children.spec.max_concurrency).unwrap_or(1).max(1);
    let (first, rest) = children.inputs.split_at(room.min(children.inputs.len()));
    let begun: Vec<(i32, Uuid, Value)> =
        (0..).zip(first).map(|(index, input)| (index, Uuid::now_v7(), input.clone())).collect();
    let ids = begun.iter().map(|(_, run, _)| Some(*run)).chain(rest.iter().map(|_| None));
    let inputs = first.iter().map(|_| None).chain(rest.iter().map(Some));
    sqlx::query!(
        "with begun as (update waits set begun = $6 where run_id = $1 and node = $2)
         insert into children (parent_id, node, spent, index, run_id, input)
         select $1, $2, $3, (c.place - 1)::int, c.run_id, c.input
         from unnest($4::uuid[], $5::jsonb[]) with ordinality as c (run_id, input, place)",
        opened.run,
        opened.node,
        opened.wait.spent,
        &ids.collect::<Vec<_>>() as &[Option<Uuid>],
        &inputs.collect::<Vec<_>>() as &[Option<&Value>],
        begun.len() as i32,
    )
    .execute(&mut *conn)
    .await?;
    let parent = above(conn, opened.run).await?;
    start(conn, (opened.run, &opened.node), &parent, &children.spec, begun).await
}

/// Accepts children, each under an id that its row has already.
async fn start(
    conn: &mut PgConnection,
    (run, node): (Uuid, &str),
    above: &Above,
    spec: &ChildSpec,
    begun: Vec<(i32, Uuid, Value)>,
) -> Result<Vec<Row>, sqlx::Error> {
    let new = |(index, id, input)| {
        let parent = Parent { run, node: node.to_owned(), index, depth: spec.depth };
        let (pipeline, name) = (spec.pipeline_id, spec.pipeline.clone());
        NewRun {
            id,
            subject: Subject::Pipeline { id: pipeline, name, version: spec.version },
            lane: spec.lane.clone(),
            input,
            trigger: parent.trigger(&above.trigger),
            tags: Vec::new(),
            created_by: above.created_by.clone(),
            rerun_of: None,
            keep_completed: false,
            traceparent: above.traceparent.clone(),
            delay: None,
        }
    };
    let runs: Vec<NewRun> = begun.into_iter().map(new).collect();
    accept::accept(conn, &runs).await
}

/// A wait with children, as it stands once ends of them are counted.
struct Counted {
    run_id: Uuid,
    node: String,
    spent: i32,
    kind: WaitKind,
    spec: Json<ChildSpec>,
    children: i32,
    begun: i32,
    ended: i32,
    failed: i32,
}

impl Counted {
    /// Whether it needs no more: all have ended, or one has failed and the others do not matter.
    fn is_over(&self) -> bool {
        let fails =
            self.kind == WaitKind::Child || self.spec.on_item_failure == OnItemFailure::Fail;
        self.ended >= self.children || (self.failed > 0 && fails)
    }
}

/// Counts ends that are not counted yet: begins the next children, or answers the wait. Returns the rows to publish
/// after the commit. The caller's transaction must have locked nothing yet.
pub async fn count(conn: &mut PgConnection, ends: &[End]) -> Result<Vec<Row>, sqlx::Error> {
    let parents: Vec<Uuid> = ends.iter().map(|end| end.parent).collect();
    let mut runs = requeue::lock_runs(conn, parents).await?;
    let mut rows = Vec::new();
    let (mut answers, mut stop) = (Vec::new(), Vec::new());
    for wait in note(conn, ends).await? {
        let Some(run) = runs.get(&wait.run_id).filter(|run| run.state == RunState::Running) else {
            continue;
        };
        if wait.is_over() {
            if wait.begun > wait.ended {
                stop.push(stops(run));
            }
            answers.push((wait.run_id, wait.node, Answer::ChildrenEnded));
        } else {
            rows.extend(next(conn, &wait).await?);
        }
    }
    outbox::insert(conn, &stop).await?;
    rows.extend(stop);
    rows.extend(answer_all(conn, &mut runs, &answers).await?);
    Ok(rows)
}

/// Notes how the children ended, and counts them in the waits that are still open; these are returned.
async fn note(conn: &mut PgConnection, ends: &[End]) -> Result<Vec<Counted>, sqlx::Error> {
    let children: Vec<Uuid> = ends.iter().map(|end| end.child).collect();
    let parents: Vec<Uuid> = ends.iter().map(|end| end.parent).collect();
    let ended = sqlx::query!(
        r#"update children as c set state = coalesce(e.state, 'failed')
           from (
               select a.id, a.parent_id, r.state
               from unnest($1::uuid[], $2::uuid[]) as a (id, parent_id) left join runs as r on r.id = a.id
               where r.id is null or r.finished_at is not null
           ) as e
           where c.run_id = e.id and c.parent_id = e.parent_id and c.state is null
           returning c.parent_id, c.node, c.spent, c.state as "state!: RunState""#,
        &children,
        &parents
    )
    .fetch_all(&mut *conn)
    .await?;
    let mut counts: BTreeMap<(Uuid, String, i32), (i32, i32)> = BTreeMap::new();
    for row in ended {
        let count = counts.entry((row.parent_id, row.node, row.spent)).or_default();
        count.0 += 1;
        count.1 += i32::from(row.state != RunState::Completed);
    }
    if counts.is_empty() {
        return Ok(Vec::new());
    }
    sqlx::query_as!(
        Counted,
        r#"update waits as w set ended = w.ended + c.ended, failed = w.failed + c.failed
           from unnest($1::uuid[], $2::text[], $3::int[], $4::int[], $5::int[])
               as c (run_id, node, spent, ended, failed)
           where w.run_id = c.run_id and w.node = c.node and w.spent = c.spent and w.answer is null
               and w.kind in ('child', 'map')
           returning w.run_id, w.node, w.spent, w.kind as "kind: WaitKind", w.spec as "spec: Json<ChildSpec>",
               w.children, w.begun, w.ended, w.failed"#,
        &counts.keys().map(|key| key.0).collect::<Vec<_>>(),
        &counts.keys().map(|key| key.1.as_str()).collect::<Vec<_>>() as &[&str],
        &counts.keys().map(|key| key.2).collect::<Vec<_>>(),
        &counts.values().map(|count| count.0).collect::<Vec<_>>(),
        &counts.values().map(|count| count.1).collect::<Vec<_>>(),
    )
    .fetch_all(conn)
    .await
}

/// Begins as many more as there is room for.
async fn next(conn: &mut PgConnection, wait: &Counted) -> Result<Vec<Row>, sqlx::Error> {
    let room = wait.spec.max_concurrency.max(1) - (wait.begun - wait.ended);
    let many = room.min(wait.children - wait.begun);
    if many <= 0 {
        return Ok(Vec::new());
    }
    let ids: Vec<Uuid> = (0..many).map(|_| Uuid::now_v7()).collect();
    let begun = sqlx::query!(
        r#"with begun as (
               update waits set begun = begun + $5::int where run_id = $1 and node = $2
           ), chosen as (
               select c.index, c.input, u.id
               from unnest($6::uuid[]) with ordinality as u (id, place)
               join children as c on c.parent_id = $1 and c.node = $2 and c.spent = $3 and c.index = $4::int + u.place - 1
           )
           update children as c set run_id = o.id, input = null
           from chosen as o
           where c.parent_id = $1 and c.node = $2 and c.spent = $3 and c.index = o.index
           returning c.index, o.id as "id!", o.input"#,
        wait.run_id,
        wait.node,
        wait.spent,
        wait.begun,
        many,
        &ids
    )
    .fetch_all(&mut *conn)
    .await?;
    let parent = above(conn, wait.run_id).await?;
    let begun = begun.into_iter().map(|row| (row.index, row.id, row.input.unwrap_or_default()));
    start(conn, (wait.run_id, &wait.node), &parent, &wait.spec, begun.collect()).await
}

/// Up to `limit` runs that `run` has started, that go on, and that it waits for no longer.
pub async fn unwanted(
    conn: &mut PgConnection,
    run: Uuid,
    limit: i64,
) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select c.run_id as "run_id!"
           from children as c join runs as r on r.id = c.run_id
           where c.parent_id = $1 and c.state is null and r.state in ('queued', 'running')
               and not exists (
                   select from waits as w
                   where w.run_id = c.parent_id and w.node = c.node and w.spent = c.spent and w.answer is null)
           order by c.run_id limit $2"#,
        run,
        limit
    )
    .fetch_all(conn)
    .await
}

/// A child whose end is not counted, as the leader sees it.
#[derive(Debug)]
pub struct Open {
    /// The child.
    pub child: Uuid,
    /// The run that started it.
    pub parent: Uuid,
    /// Whether it ended some seconds ago: the job that tells of it is late, or lost.
    pub is_ended: bool,
    /// Whether it goes on, though nobody has waited for it for some seconds.
    pub is_unwanted: bool,
}

/// The next `limit` children past `after` whose end is not counted.
pub async fn open(
    conn: &mut PgConnection,
    after: Uuid,
    limit: i64,
) -> Result<Vec<Open>, sqlx::Error> {
    sqlx::query_as!(
        Open,
        r#"select c.run_id as "child!", c.parent_id as parent,
               r.id is null or coalesce(r.finished_at < clock_timestamp() - interval '5 s', false) as "is_ended!",
               coalesce(r.state in ('queued', 'running'), false) and coalesce((
                   select w.spent <> c.spent or coalesce(w.answered_at < clock_timestamp() - interval '5 s', false)
                   from waits as w where w.run_id = c.parent_id and w.node = c.node limit 1), true) as "is_unwanted!"
           from children as c
           -- `offset 0`: each is looked up by its key.
           left join lateral (select id, state, finished_at from runs where id = c.run_id offset 0) as r on true
           where c.run_id is not null and c.state is null and c.run_id > $1
           order by c.run_id limit $2"#,
        after,
        limit
    )
    .fetch_all(conn)
    .await
}

/// A child that has ended, or never began.
#[derive(Debug)]
pub struct Ended {
    /// Its place.
    pub index: i32,
    /// The run; none when it never began.
    pub run: Option<Uuid>,
    /// How it ended.
    pub state: Option<RunState>,
    /// Its output, if it completed with one.
    pub output: Option<Value>,
    /// Its error.
    pub error: Option<Value>,
}

/// The first of a wait's children that did not complete.
pub async fn failure(
    conn: &mut PgConnection,
    run: Uuid,
    node: &str,
    spent: i32,
) -> Result<Option<Ended>, sqlx::Error> {
    sqlx::query_as!(
        Ended,
        r#"select c.index, c.run_id as run, c.state as "state: RunState", null::jsonb as output, r.error
           from children as c left join runs as r on r.id = c.run_id
           where c.parent_id = $1 and c.node = $2 and c.spent = $3 and c.state <> 'completed'
           order by c.index limit 1"#,
        run,
        node,
        spent
    )
    .fetch_optional(conn)
    .await
}

/// About how many bytes the outputs of a wait's children have, as they are stored.
pub async fn size(
    conn: &mut PgConnection,
    run: Uuid,
    node: &str,
    spent: i32,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select coalesce(sum(pg_column_size(r.output)), 0)::bigint as "size!"
           from children as c join runs as r on r.id = c.run_id
           where c.parent_id = $1 and c.node = $2 and c.spent = $3"#,
        run,
        node,
        spent
    )
    .fetch_one(conn)
    .await
}

/// A wait's children, in their order.
pub async fn all(
    conn: &mut PgConnection,
    run: Uuid,
    node: &str,
    spent: i32,
) -> Result<Vec<Ended>, sqlx::Error> {
    sqlx::query_as!(
        Ended,
        r#"select c.index, c.run_id as run, c.state as "state: RunState", r.output, r.error
           from children as c left join runs as r on r.id = c.run_id
           where c.parent_id = $1 and c.node = $2 and c.spent = $3
           order by c.index"#,
        run,
        node,
        spent
    )
    .fetch_all(conn)
    .await
}
