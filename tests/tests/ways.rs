//! One run after another, many at once, and the longer way, which looks at the rows first: whichever statement writes
//! it, a run is written the same.

use std::time::Duration;

use common::store::accept::{self, NewRun, Subject};
use common::store::claim::Claimed;
use common::store::definitions::Definitions;
use common::store::follow::Keeping;
use common::store::record::direct::Known;
use common::store::record::{self, RecordAnswer};
use common::store::start::{self, Start, StartAnswer};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use tests::database::Database;
use tests::servers::Servers;
use uuid::Uuid;

use crate::arrivals::completed;

const PIPELINE: Uuid = Uuid::from_u128(1);

fn keeping() -> Keeping<'static> {
    Keeping { owner: Some(Uuid::from_u128(7)), serves: &|_| true, quick: &|_, _| true }
}

fn chain() -> Value {
    let node = |id| json!({"id": id, "type": "action", "config": {"action": "echo"}});
    let edge = |from, to| json!({"from": from, "to": to});
    json!({"name": "chain", "nodes": [node("a"), node("b"), node("c")], "edges": [edge("a", "b"), edge("b", "c")]})
}

fn run(subject: Subject) -> NewRun {
    NewRun {
        id: Uuid::now_v7(),
        subject,
        lane: "default".into(),
        input: json!({"text": "hello"}),
        trigger: json!({"kind": "api"}),
        tags: Vec::new(),
        created_by: "test".into(),
        rerun_of: None,
        keep_completed: false,
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        delay: None,
    }
}

fn action() -> Subject {
    Subject::Action { node: json!({"id": "only", "type": "action", "config": {"action": "echo"}}) }
}

fn pipeline() -> Subject {
    Subject::Pipeline { id: PIPELINE, name: "chain".into(), version: 1 }
}

/// Who writes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    /// What needs no look.
    Direct,
    /// What looks at the rows first.
    Longer,
}

struct Store {
    conn: PgConnection,
    database: Database,
    definitions: Definitions,
}

impl Store {
    async fn new() -> Self {
        let database = Database::create(&Servers::shared().await.database_url).await;
        let mut conn = PgConnection::connect(database.url()).await.expect("a session");
        let statements = [
            "insert into pipelines (id, name, version, owner) values ($1, 'chain', 1, 'test')",
            "insert into pipeline_versions (pipeline_id, version, definition, lane, created_by)
             select $1, 1, $2, 'default', 'test'",
        ];
        sqlx::query(statements[0]).bind(PIPELINE).execute(&mut conn).await.expect("a pipeline");
        let version = sqlx::query(statements[1]).bind(PIPELINE).bind(chain());
        version.execute(&mut conn).await.expect("a version");
        let definitions = Definitions::default();
        let graph = definitions.graph(&mut conn, PIPELINE, 1).await.expect("it can be read");
        graph.expect("it compiles");
        Self { conn, database, definitions }
    }

    /// All of them at once, through to their ends. Returns what is written of each of `shown`.
    async fn lived(&mut self, way: Way, runs: &[NewRun], shown: &[Uuid]) -> Vec<Value> {
        let newest: Vec<_> = runs
            .iter()
            .filter(|run| matches!(run.subject, Subject::Pipeline { .. }))
            .map(|_| (PIPELINE, 1))
            .collect();
        let rows = match newest.as_slice() {
            [] => accept::accept(&mut self.conn, runs).await.expect("accepted"),
            newest => accept::accept_if_newest(&mut self.conn, runs, newest)
                .await
                .expect("accepted")
                .expect("it is the newest"),
        };
        let accepted = self.written(shown).await;
        let starts: Vec<Start> = rows
            .iter()
            .map(|row| Start {
                run: row.job.task.run().expect("a run's"),
                job: row.id,
                pipeline: row.job.pipeline.clone().zip(row.job.version),
                traceparent: row.job.traceparent.clone(),
            })
            .collect();
        let mut claimed = self.start(way, &starts).await;
        let mut steps = vec![accepted, self.written(shown).await];
        while !claimed.is_empty() {
            claimed = self.record(way, &claimed).await;
            steps.push(self.written(shown).await);
        }
        let steps = &steps;
        (0..shown.len()).map(|n| steps.iter().map(|step| step[n].clone()).collect()).collect()
    }

    async fn start(&mut self, way: Way, starts: &[Start]) -> Vec<Claimed> {
        let (conn, definitions) = (&mut self.conn, &self.definitions);
        let of = |answer: &_| match answer {
            start::direct::Answer::Started(claimed) => claimed.clone(),
            other => panic!("it starts: {other:?}"),
        };
        if way == Way::Direct {
            let started = start::direct::start(conn, starts, keeping(), 100, definitions).await;
            return started.expect("started").answers.iter().flat_map(of).collect();
        }
        let mut tx = conn.begin().await.expect("a transaction");
        let started = start::start(&mut tx, starts, keeping(), 100, definitions).await;
        tx.commit().await.expect("committed");
        let of = |answer| match answer {
            StartAnswer::Started(claimed) => claimed,
            other => panic!("it starts: {other:?}"),
        };
        started.expect("started").answers.into_iter().flat_map(of).collect()
    }

    async fn record(&mut self, way: Way, claimed: &[Claimed]) -> Vec<Claimed> {
        let records: Vec<_> = claimed.iter().map(completed).collect();
        if way == Way::Direct {
            let known: Vec<_> =
                records.iter().map(|record| Known::of(record).expect("no join")).collect();
            let recorded = record::direct::record(&mut self.conn, &known, keeping(), 100).await;
            let answers = recorded.expect("recorded").answers.into_iter();
            return answers.flat_map(|answer| answer.expect("it counts")).collect();
        }
        let mut tx = self.conn.begin().await.expect("a transaction");
        let recorded = record::record(&mut tx, &records, keeping(), 100).await;
        tx.commit().await.expect("committed");
        let of = |answer| match answer {
            RecordAnswer::Recorded(claimed) => claimed,
            RecordAnswer::Stale => panic!("it counts"),
        };
        recorded.expect("recorded").answers.into_iter().flat_map(of).collect()
    }

    /// All columns of each run's rows, but for ids and the moments themselves.
    async fn written(&self, runs: &[Uuid]) -> Vec<Value> {
        let mut written = Vec::new();
        for run in runs {
            let mut rows: Value = sqlx::query_scalar(
                "select jsonb_build_object(
                     'run', to_jsonb(r) - 'id',
                     'open', (select count(*) from open_runs where run_id = r.id),
                     'timers', (select count(*) from timers where run_id = r.id),
                     'nodes', (select jsonb_agg(to_jsonb(n) - array['run_id', 'job_id'] order by n.node) from node_runs as n
                               where n.run_id = r.id),
                     'jobs', (select jsonb_agg(jsonb_build_object(
                                  'lane', o.lane, 'job', o.job - array['job', 'run'], 'is_its_own', o.id::text = o.job ->> 'job'))
                              from outbox as o where o.job ->> 'run' = r.id::text))
                 from runs as r where r.id = $1",
            )
            .bind(run)
            .fetch_one(self.database.pool())
            .await
            .expect("a run");
            without_moments(&mut rows["run"]);
            rows["nodes"].as_array_mut().into_iter().flatten().for_each(without_moments);
            written.push(rows);
        }
        written
    }
}

/// Whether a moment is there is what is compared.
fn without_moments(row: &mut Value) {
    for (name, value) in row.as_object_mut().expect("a row") {
        if name.ends_with("_at") && !value.is_null() {
            *value = json!("a moment");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_written_the_same_by_every_statement() {
    let mut store = Store::new().await;
    for subject in [action, pipeline] {
        let steps = match subject() {
            Subject::Action { .. } => 3,
            Subject::Pipeline { .. } => 5,
        };
        let mut expected = None;
        for (way, count, in_company) in [
            (Way::Longer, 1, false),
            (Way::Direct, 1, false),
            (Way::Direct, 3, false),
            // Of one that waits, which no statement for plain actions takes.
            (Way::Direct, 1, true),
            (Way::Direct, 2, true),
        ] {
            let mut runs: Vec<_> = (0..count).map(|_| run(subject())).collect();
            let shown: Vec<_> = runs.iter().map(|run| run.id).collect();
            if in_company {
                runs.push(NewRun { delay: Some(Duration::from_secs(3_600)), ..run(action()) });
            }
            for written in store.lived(way, &runs, &shown).await {
                assert_eq!(written.as_array().map(Vec::len), Some(steps));
                assert_eq!(written[0]["run"]["state"], "queued");
                assert_eq!(written[0]["jobs"].as_array().map(Vec::len), Some(1), "{written}");
                assert!(written[1]["nodes"].as_array().is_some_and(|nodes| !nodes.is_empty()));
                assert_eq!(written[steps - 1]["run"]["state"], "completed");
                let expected = expected.get_or_insert_with(|| written.clone());
                assert_eq!(&written, expected, "{way:?}, {count}, in company: {in_company}");
            }
        }
    }
}
