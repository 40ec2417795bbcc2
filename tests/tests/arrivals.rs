//! Many node runs that lead to one join, recorded by one statement.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use common::advance::Verdict;
use common::context::{RunContext, RunRow};
use common::run::StopReason;
use common::store::accept::{self, NewRun, Subject};
use common::store::claim::Claimed;
use common::store::definitions::Definitions;
use common::store::follow::Keeping;
use common::store::record::arrival::{self, Arrival};
use common::store::record::direct::{self, Known};
use common::store::record::{self, Outcome, Record, RecordAnswer};
use common::store::start::{self, Start};
use common::store::stop;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use tests::database::Database;
use tests::servers::Servers;
use tests::wait::{eventually, seen};
use uuid::Uuid;

const WORKER: Uuid = Uuid::from_u128(7);

fn keeping(serves: &'static (dyn Fn(&str) -> bool + Sync)) -> Keeping<'static> {
    Keeping { owner: Some(WORKER), serves, quick: &|_, _| true }
}

fn all() -> Keeping<'static> {
    keeping(&|_| true)
}

/// `root` → `b0` … → `join`.
fn fan(width: usize) -> Value {
    let branches = (0..width).map(|n| format!("b{n}"));
    let node = |id: &str| json!({"id": id, "type": "action", "config": {"action": "echo"}});
    let nodes: Vec<Value> = ["root".to_owned(), "join".to_owned()]
        .into_iter()
        .chain(branches.clone())
        .map(|id| node(&id))
        .collect();
    let edges: Vec<Value> = branches
        .flat_map(|id| [json!({"from": "root", "to": id}), json!({"from": id, "to": "join"})])
        .collect();
    json!({"name": "fan", "nodes": nodes, "edges": edges})
}

/// The record that `claimed` has ended well.
pub(crate) fn completed(claimed: &Claimed) -> Arc<Record> {
    let output = json!({"by": claimed.id()});
    Arc::new(Record {
        context: claimed.context.clone(),
        node: claimed.node,
        attempt: claimed.attempt,
        job: claimed.job,
        outcome: Outcome::Completed { text: output.to_string(), output: Arc::new(output) },
        verdicts: Vec::new(),
        goes_on: true,
    })
}

fn arrivals<'a>(claimed: impl IntoIterator<Item = &'a Claimed>) -> Vec<Arrival> {
    let arrival = |claimed| Arrival::of(&completed(claimed)).expect("it leads to a join");
    claimed.into_iter().map(arrival).collect()
}

struct Bench {
    conn: PgConnection,
    database: Database,
    definitions: Definitions,
}

impl Bench {
    async fn new(width: usize) -> Self {
        let database = Database::create(&Servers::shared().await.database_url).await;
        let mut conn = PgConnection::connect(database.url()).await.expect("a session");
        let statements = [
            "insert into pipelines (id, name, version, owner) values ($1, 'fan', 1, 'test')",
            "insert into pipeline_versions (pipeline_id, version, definition, lane, created_by)
             select $1, 1, $2, 'default', 'test'",
        ];
        sqlx::query(statements[0]).bind(pipeline()).execute(&mut conn).await.expect("a pipeline");
        let version = sqlx::query(statements[1]).bind(pipeline()).bind(fan(width));
        version.execute(&mut conn).await.expect("a version");
        Self { conn, database, definitions: Definitions::default() }
    }

    /// A run of which all branches run here.
    async fn begun(&mut self) -> (Uuid, Vec<Claimed>) {
        let id = Uuid::now_v7();
        let run = NewRun {
            id,
            subject: Subject::Pipeline { id: pipeline(), name: "fan".into(), version: 1 },
            lane: "default".into(),
            input: json!({}),
            trigger: json!({"kind": "api"}),
            tags: Vec::new(),
            created_by: "test".into(),
            rerun_of: None,
            keep_completed: false,
            traceparent: None,
            delay: None,
        };
        let rows = accept::accept(&mut self.conn, &[run]).await.expect("accepted");
        let start = Start {
            run: id,
            job: rows[0].id,
            pipeline: Some(("fan".into(), 1)),
            traceparent: None,
        };
        let mut tx = self.conn.begin().await.expect("a transaction");
        let started = start::start(&mut tx, &[start], all(), 100, &self.definitions).await;
        tx.commit().await.expect("committed");
        let start::StartAnswer::Started(root) = &started.expect("started").answers[0] else {
            panic!("it starts")
        };
        let known = Known::of(&completed(&root[0])).expect("no join follows");
        let recorded = direct::record(&mut self.conn, &[known], all(), 100).await;
        let branches = recorded.expect("recorded").answers.remove(0).expect("it counts");
        (id, branches)
    }

    async fn arrive(
        &mut self,
        items: &[Arrival],
        keeping: Keeping<'_>,
    ) -> Vec<Option<Vec<String>>> {
        let recorded = arrival::record(&mut self.conn, items, keeping).await.expect("recorded");
        let nodes = |claimed: &Vec<Claimed>| claimed.iter().map(|it| it.id().to_owned()).collect();
        recorded.answers.iter().map(|answer| answer.as_ref().map(nodes)).collect()
    }

    async fn longer(&mut self, item: &Claimed) -> RecordAnswer {
        let mut tx = self.conn.begin().await.expect("a transaction");
        let recorded = record::record(&mut tx, &[completed(item)], all(), 100).await;
        tx.commit().await.expect("committed");
        recorded.expect("recorded").answers.remove(0)
    }

    /// State, attempt, open edges and owner of the join.
    async fn join(&self, run: Uuid) -> (String, i32, i32, Option<Uuid>) {
        sqlx::query_as("select state::text, attempt, open_in, owner from node_runs where run_id = $1 and node = 'join'")
            .bind(run)
            .fetch_one(self.database.pool())
            .await
            .expect("a join")
    }

    /// Each change of a run has a number of its own, and the run's is above them all.
    async fn assert_numbered(&self, run: Uuid) {
        let seqs: Vec<i64> = sqlx::query_scalar("select seq from node_runs where run_id = $1")
            .bind(run)
            .fetch_all(self.database.pool())
            .await
            .expect("node runs");
        let of_run: i64 = sqlx::query_scalar("select seq from runs where id = $1")
            .bind(run)
            .fetch_one(self.database.pool())
            .await
            .expect("a run");
        let different: BTreeSet<i64> = seqs.iter().copied().collect();
        assert_eq!(different.len(), seqs.len(), "{seqs:?}");
        assert!(different.last() < Some(&of_run), "{seqs:?}, and the run's is {of_run}");
    }
}

fn pipeline() -> Uuid {
    Uuid::from_u128(1)
}

fn context(graph: common::graph::Graph) -> Arc<RunContext> {
    let row = RunRow {
        id: Uuid::nil(),
        pipeline_id: None,
        pipeline: None,
        version: None,
        action: None,
        input: Value::Null,
        trigger: Value::Null,
        tags: Vec::new(),
        created_at: common::clock::Instant::UNIX_EPOCH,
        traceparent: None,
    };
    Arc::new(RunContext::new(row, Arc::new(graph)))
}

fn none() -> Option<Vec<String>> {
    Some(Vec::new())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_counts_those_whose_fence_holds_and_goes_on_with_the_last() {
    let mut bench = Bench::new(5).await;
    let (run, branches) = bench.begun().await;
    let (other, others) = bench.begun().await;
    assert_eq!((branches.len(), bench.join(run).await.2), (5, 5));

    // Of one run three, one of them twice, and one that another has taken over; of another run two.
    let stale = Claimed { attempt: 2, ..branches[3].clone() };
    let batch = [&branches[0], &branches[1], &branches[2], &branches[2], &stale];
    let batch = arrivals(batch.into_iter().chain(&others[..2]));
    let answers = bench.arrive(&batch, all()).await;
    assert_eq!(answers, [none(), none(), none(), None, None, none(), none()]);
    assert_eq!(bench.join(run).await, ("pending".to_owned(), 0, 2, None));
    assert_eq!(bench.join(other).await.2, 3);
    bench.assert_numbered(run).await;

    // Once more, after an answer that was lost: nothing counts twice.
    assert_eq!(bench.arrive(&batch[..3], all()).await, [None, None, None]);
    assert_eq!(bench.join(run).await.2, 2);

    // The last two, and the last three: in each run one slot goes on with the join, claimed under its job.
    let last = arrivals(branches[3..].iter().chain(&others[2..]));
    let answers = bench.arrive(&last, all()).await;
    let joins = |answers: &[Option<Vec<String>>]| {
        let of = |answer: &Option<Vec<String>>| answer.clone().expect("it counts");
        answers.iter().flat_map(of).collect::<Vec<_>>()
    };
    assert_eq!(joins(&answers[..2]), ["join"]);
    assert_eq!(joins(&answers[2..]), ["join"]);
    assert_eq!(bench.join(run).await, ("running".to_owned(), 1, 0, Some(WORKER)));
    bench.assert_numbered(run).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_be_the_last_and_is_not_goes_on_with_nothing() {
    let mut bench = Bench::new(2).await;
    let (run, branches) = bench.begun().await;
    let stale = Claimed { attempt: 2, ..branches[1].clone() };
    let answers = bench.arrive(&arrivals([&branches[0], &stale]), all()).await;
    assert_eq!(answers, [none(), None]);
    assert_eq!(bench.join(run).await, ("pending".to_owned(), 0, 1, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_rows_do_not_confirm_is_left_to_the_longer_way() {
    let mut bench = Bench::new(2).await;

    // The join is another lane's, and these are the last: it has to be sent.
    let (run, branches) = bench.begun().await;
    assert_eq!(bench.arrive(&arrivals(&branches), keeping(&|_| false)).await, [None, None]);
    assert_eq!(bench.join(run).await, ("pending".to_owned(), 0, 2, None));
    let first = arrivals(&branches[..1]);
    assert_eq!(bench.arrive(&first, keeping(&|_| false)).await, [none()], "one of two is not");
    let RecordAnswer::Recorded(kept) = bench.longer(&branches[1]).await else {
        panic!("it counts")
    };
    assert_eq!(kept[0].id(), "join");

    // An edge to the join is broken already: it will be skipped.
    let (run, branches) = bench.begun().await;
    let broken =
        "update node_runs set broken_in = true, open_in = 1 where node = 'join' and run_id = ";
    bench.database.execute(&format!("{broken} '{run}'")).await;
    assert_eq!(bench.arrive(&arrivals(&branches[..1]), all()).await, [None]);
    assert!(
        matches!(bench.longer(&branches[0]).await, RecordAnswer::Recorded(kept) if kept.is_empty())
    );
    assert_eq!(bench.join(run).await.0, "skipped");

    // The run stops.
    let (run, branches) = bench.begun().await;
    let stop = "update runs set state = 'cancelling', stop_reason = 'cancel' where id = ";
    bench.database.execute(&format!("{stop} '{run}'")).await;
    assert_eq!(bench.arrive(&arrivals(&branches[..1]), all()).await, [None]);
}

/// Who waits for the run's lock counts on from what it finds once it has it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_arrival_that_waited_for_the_run_counts_on_from_what_it_finds_then() {
    for (width, stops, expected) in
        [(3, false, Some(vec![])), (2, false, Some(vec!["join".to_owned()])), (2, true, None)]
    {
        let mut bench = Bench::new(width).await;
        let (run, branches) = bench.begun().await;
        let mut other = PgConnection::connect(bench.database.url()).await.expect("a session");
        let mut tx = other.begin().await.expect("a transaction");
        if stops {
            stop::stop(&mut tx, run, StopReason::Cancel).await.expect("stopped");
        } else {
            let first = record::record(&mut tx, &[completed(&branches[0])], all(), 100).await;
            assert!(matches!(first.expect("recorded").answers[0], RecordAnswer::Recorded(_)));
        }
        let pool = bench.database.pool().clone();
        let released = async move {
            let waits = "select count(*) from pg_stat_activity
                         where datname = current_database() and wait_event_type = 'Lock'";
            eventually(Duration::from_secs(10), "a statement that waits for the run", async || {
                let waiting: i64 =
                    sqlx::query_scalar(waits).fetch_one(&pool).await.expect("a count");
                seen(waiting > 0, waiting)
            })
            .await;
            tx.commit().await.expect("committed");
        };
        let second = arrivals(&branches[1..2]);
        let (answers, ()) = tokio::join!(bench.arrive(&second, all()), released);
        assert_eq!(answers, [expected]);
        if !stops {
            assert_eq!(bench.join(run).await.2, i32::try_from(width).expect("small") - 2);
            bench.assert_numbered(run).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outputs_are_stored_as_they_are() {
    let mut bench = Bench::new(4).await;
    let (run, branches) = bench.begun().await;
    let outputs = [Value::Null, json!("a \"b\" \\ c"), json!({"n": 1.50, "l": [null, {}]})];
    let with = |(claimed, output): (&Claimed, &Value)| {
        let outcome =
            Outcome::Completed { text: output.to_string(), output: Arc::new(output.clone()) };
        let record = Record { outcome, ..completed(claimed).as_ref().clone() };
        Arrival::of(&Arc::new(record)).expect("it leads to a join")
    };
    let items: Vec<Arrival> = branches.iter().zip(&outputs).map(with).collect();
    assert_eq!(bench.arrive(&items, all()).await, [none(), none(), none()]);
    let stored: Vec<Option<Value>> = sqlx::query_scalar(
        "select output from node_runs where run_id = $1 and state = 'completed' and node <> 'root' order by node",
    )
    .bind(run)
    .fetch_all(bench.database.pool())
    .await
    .expect("outputs");
    let order: Vec<usize> = {
        let mut order: Vec<usize> = (0..3).collect();
        order.sort_by_key(|ix| branches[*ix].id().to_owned());
        order
    };
    let expected: Vec<_> = order.into_iter().map(|ix| Some(outputs[ix].clone())).collect();
    assert_eq!(stored, expected);
}

#[test]
fn only_what_leads_to_one_join_and_nowhere_else_is_an_arrival() {
    let of = |edges: Value, verdicts: Vec<_>| {
        let node = |id: &str| json!({"id": id, "type": "action", "config": {"action": "echo"}});
        let nodes: Vec<_> = ["a", "b", "c", "d"].map(node).into();
        let definition = json!({"name": "n", "nodes": nodes, "edges": edges});
        let graph = common::pipeline::stored_graph(&definition.to_string()).expect("it is right");
        let claimed = Claimed {
            context: context(graph),
            node: 0,
            attempt: 1,
            spent: 0,
            losses: 0,
            waiting: None,
            job: Uuid::nil(),
        };
        let record = Record { verdicts, ..completed(&claimed).as_ref().clone() };
        Arrival::of(&Arc::new(record)).is_some()
    };
    let edge = |from: &str, to: &str| json!({"from": from, "to": to});
    let join = || [edge("a", "c"), edge("b", "c")];
    let with = |more: Value| Value::Array(join().into_iter().chain([more]).collect());
    assert!(of(with(edge("c", "d")), vec![]));
    assert!(!of(with(edge("a", "d")), vec![]), "it leads somewhere else, too");
    assert!(
        !of(with(json!({"from": "a", "to": "c", "when": "always"})), vec![]),
        "it counts twice"
    );
    assert!(!of(json!([edge("a", "c")]), vec![]), "nothing else leads there");
    assert!(!of(json!([edge("b", "c"), edge("d", "c")]), vec![]), "it leads nowhere");
    let condition = json!([{"from": "a", "to": "c", "condition": "output.x"}, edge("b", "c")]);
    assert!(!of(condition.clone(), vec![]), "what the condition says is not known");
    assert!(of(condition.clone(), vec![(0, Verdict::True)]));
    assert!(!of(condition.clone(), vec![(0, Verdict::False)]));
    assert!(!of(condition, vec![(0, Verdict::Error("no".into()))]));
}
