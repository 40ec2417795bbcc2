//! What node runs wait for without a worker, and the answers. Whoever opens or answers a wait holds the run's lock.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde_json::Value;
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use super::requeue::{self, LockedRun, ToQueue};
use crate::clock::Instant;
use crate::job::{Reason, Task};
use crate::node_run::NodeState;
use crate::outbox::{self, Row};
use crate::run::RunState;
use crate::wait::{Answer, Wait, WaitKind};

pub mod children;
pub mod hear;
pub mod undecided;

/// A wait that the record of its node run opens.
#[derive(Debug, Clone)]
pub struct Opened {
    /// The run.
    pub run: Uuid,
    /// The node.
    pub node: String,
    /// The attempt that set it waiting.
    pub attempt: i32,
    /// For what.
    pub wait: Arc<Wait>,
}

/// What a node run waits for, or has waited for last.
#[derive(Debug, Clone)]
pub struct Awaited {
    /// What kind of thing.
    pub kind: WaitKind,
    /// What the kind wanted to know.
    pub spec: Value,
    /// The attempts that counted before it.
    pub spent: i32,
    /// What ended it; none while it is open.
    pub answer: Option<Answer>,
    /// When.
    pub answered_at: Option<Instant>,
}

/// What came of an answer.
#[derive(Debug)]
pub enum Answered {
    /// It counts; these rows are to be published after the commit.
    Done(Vec<Row>),
    /// The node run waits for nothing of that kind.
    NotWaiting,
    /// Another answer came first.
    Before(Awaited),
}

/// Writes what node runs begin to wait for, whose runs the caller has locked, and starts what they start. A wait of
/// before is replaced. Returns the rows to publish after the commit.
pub(super) async fn open(
    conn: &mut PgConnection,
    opened: &[Opened],
) -> Result<Vec<Row>, sqlx::Error> {
    if opened.is_empty() {
        return Ok(Vec::new());
    }
    let deadline =
        |wait: &Wait| wait.deadline.map(|it| i64::try_from(it.as_millis()).unwrap_or(i64::MAX / 2));
    let count = |wait: &Wait| wait.children.as_ref().map_or(0, |it| it.inputs.len() as i32);
    sqlx::query!(
        "insert into waits (run_id, node, kind, attempt, spent, spec, deadline_at, listens, children)
         select o.run_id, o.node, o.kind, o.attempt, o.spent, o.spec,
             clock_timestamp() + o.deadline_ms * interval '1 ms', o.listens, o.children
         from unnest($1::uuid[], $2::text[], $3::wait_kind[], $4::int[], $5::int[], $6::jsonb[], $7::bigint[],
                 $8::text[], $9::int[])
             as o (run_id, node, kind, attempt, spent, spec, deadline_ms, listens, children)
         on conflict (run_id, node) do update set kind = excluded.kind, attempt = excluded.attempt,
             spent = excluded.spent, spec = excluded.spec, deadline_at = excluded.deadline_at,
             listens = excluded.listens, children = excluded.children, begun = 0, ended = 0, failed = 0,
             answer = null, answered_at = null, created_at = clock_timestamp()",
        &opened.iter().map(|o| o.run).collect::<Vec<_>>(),
        &opened.iter().map(|o| o.node.as_str()).collect::<Vec<_>>() as &[&str],
        &opened.iter().map(|o| o.wait.kind).collect::<Vec<_>>() as &[WaitKind],
        &opened.iter().map(|o| o.attempt).collect::<Vec<_>>(),
        &opened.iter().map(|o| o.wait.spent).collect::<Vec<_>>(),
        &opened.iter().map(|o| o.wait.spec.clone()).collect::<Vec<_>>(),
        &opened.iter().map(|o| deadline(&o.wait)).collect::<Vec<_>>() as &[Option<i64>],
        &opened.iter().map(|o| o.wait.listens.as_deref()).collect::<Vec<_>>() as &[Option<&str>],
        &opened.iter().map(|o| count(&o.wait)).collect::<Vec<_>>(),
    )
    .execute(&mut *conn)
    .await?;
    let mut rows = Vec::new();
    for one in opened {
        if let Some(children) = &one.wait.children {
            rows.extend(children::begin(conn, one, children).await?);
        }
    }
    Ok(rows)
}

/// What a node run waits for, or has waited for last.
pub async fn read(
    conn: &mut PgConnection,
    run: Uuid,
    node: &str,
) -> Result<Option<Awaited>, sqlx::Error> {
    let row = sqlx::query!(
        r#"select kind as "kind: WaitKind", spec, spent, answer as "answer: Json<Answer>", answered_at
           from waits where run_id = $1 and node = $2"#,
        run,
        node
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| Awaited {
        kind: row.kind,
        spec: row.spec,
        spent: row.spent,
        answer: row.answer.map(|Json(answer)| answer),
        answered_at: row.answered_at,
    }))
}

/// Answers what a node run waits for, if it still does. The caller's transaction must have locked no node runs yet.
pub async fn answer(
    conn: &mut PgConnection,
    run: Uuid,
    node: &str,
    kind: WaitKind,
    answer: &Answer,
) -> Result<Answered, sqlx::Error> {
    let mut runs = requeue::lock_runs(conn, vec![run]).await?;
    let found = read(conn, run, node).await?.filter(|awaited| awaited.kind == kind);
    let Some(awaited) = found else { return Ok(Answered::NotWaiting) };
    if awaited.answer.is_some() {
        return Ok(Answered::Before(awaited));
    }
    let rows = answer_all(conn, &mut runs, &[(run, node.to_owned(), answer.clone())]).await?;
    Ok(if rows.is_empty() { Answered::NotWaiting } else { Answered::Done(rows) })
}

/// Answers those that are still open, of runs that the caller has locked, and queues their node runs. A node run comes
/// once. Returns the rows to publish after the commit.
pub(super) async fn answer_all(
    conn: &mut PgConnection,
    runs: &mut BTreeMap<Uuid, LockedRun>,
    answers: &[(Uuid, String, Answer)],
) -> Result<Vec<Row>, sqlx::Error> {
    let going_on = |run: &Uuid| runs.get(run).is_some_and(|run| run.state == RunState::Running);
    let answers: Vec<_> = answers.iter().filter(|(run, ..)| going_on(run)).collect();
    if answers.is_empty() {
        return Ok(Vec::new());
    }
    let mut answered = sqlx::query_as!(
        ToQueue,
        r#"with answered as (
               update waits as w set answer = a.answer, answered_at = clock_timestamp(), listens = null
               from unnest($1::uuid[], $2::text[], $3::jsonb[]) as a (run_id, node, answer)
               join node_runs as n on n.run_id = a.run_id and n.node = a.node and n.state = 'waiting'
               where w.run_id = a.run_id and w.node = a.node and w.answer is null
               returning n.run_id, n.node, n.state, n.attempt, n.lane
           ), pointless as (
               delete from timers as t using answered as a
               where t.run_id = a.run_id and t.node = a.node and t.kind = 'wait'
           )
           select run_id as "run!", node as "node!", state as "state!: NodeState", attempt as "attempt!",
               lane as "lane!"
           from answered"#,
        &answers.iter().map(|(run, ..)| *run).collect::<Vec<_>>(),
        &answers.iter().map(|(_, node, _)| node.as_str()).collect::<Vec<_>>() as &[&str],
        &answers.iter().map(|(.., answer)| Json(answer)).collect::<Vec<_>>() as &[Json<&Answer>],
    )
    .fetch_all(&mut *conn)
    .await?;
    answered.sort_unstable_by(|a, b| (a.run, &a.node).cmp(&(b.run, &b.node)));
    let reason = |node: &ToQueue| {
        let found = answers.iter().find(|(run, name, _)| *run == node.run && *name == node.node);
        found.map_or(Reason::Answered, |(.., answer)| answer.reason())
    };
    let rows = requeue::queue_nodes(conn, runs, &answered, reason).await?;
    outbox::insert(conn, &rows).await?;
    Ok(rows)
}

/// Waits that have run out of time.
#[derive(Debug, Default)]
pub(super) struct Late {
    /// Their node runs.
    pub(super) nodes: HashSet<(Uuid, String)>,
    /// Jobs that stop what they had started; the caller writes them.
    pub(super) stops: Vec<Row>,
}

/// Answers what waits among `nodes`, whose timers were due, with the deadline.
pub(super) async fn expire(
    conn: &mut PgConnection,
    runs: &BTreeMap<Uuid, LockedRun>,
    nodes: &[ToQueue],
) -> Result<Late, sqlx::Error> {
    let waiting = nodes.iter().filter(|node| node.state == NodeState::Waiting);
    let (ids, names): (Vec<Uuid>, Vec<String>) =
        waiting.map(|node| (node.run, node.node.clone())).unzip();
    let mut late = Late::default();
    if ids.is_empty() {
        return Ok(late);
    }
    let rows = sqlx::query!(
        r#"update waits as w set answer = $3, answered_at = clock_timestamp(), listens = null
           from unnest($1::uuid[], $2::text[]) as d (run_id, node)
           where w.run_id = d.run_id and w.node = d.node and w.answer is null
           returning w.run_id, w.node, w.kind as "kind: WaitKind""#,
        &ids,
        &names,
        Json(&Answer::Deadline) as Json<&Answer>
    )
    .fetch_all(conn)
    .await?;
    for row in rows {
        if let Some(run) = runs.get(&row.run_id).filter(|_| row.kind.has_children()) {
            late.stops.push(stops(run));
        }
        late.nodes.insert((row.run_id, row.node));
    }
    Ok(late)
}

/// The job that stops what a run has started and waits for no longer.
fn stops(run: &LockedRun) -> Row {
    run.row(&run.lane, Task::ChildrenStop { run: run.id }, Reason::Stopped)
}

/// Ends all that a run waits for, which the caller has locked and stops. What it had started is stopped by a job, since
/// nothing crosses runs.
pub(super) async fn close(conn: &mut PgConnection, run: Uuid) -> Result<(), sqlx::Error> {
    let kinds = sqlx::query_scalar!(
        r#"update waits set answer = $2, answered_at = clock_timestamp(), listens = null
           where run_id = $1 and answer is null returning kind as "kind: WaitKind""#,
        run,
        Json(&Answer::Stopped) as Json<&Answer>
    )
    .fetch_all(&mut *conn)
    .await?;
    if kinds.into_iter().any(WaitKind::has_children) {
        let locked = requeue::lock_runs(conn, vec![run]).await?;
        let rows: Vec<Row> = locked.values().map(stops).collect();
        outbox::leave(conn, &rows).await?;
    }
    Ok(())
}
