//! The same steps on Postgres, by the store's own functions, under a clock that the simulation sets.
//!
//! The store reads one clock, `clock_timestamp()`. Here its sessions find another function of that name first.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use common::graph::NodeIx;
use common::job::{Job, Task};
use common::node_run::NodeState;
use common::run::{RunState, StopReason};
use common::store::claim::{self, Claim, ClaimAnswer, Claimed};
use common::store::definitions::Definitions;
use common::store::follow::Keeping;
use common::store::leader::{Address, Session};
use common::store::open_runs::{self, Look};
use common::store::reclaim::{self, Found, Life};
use common::store::record::arrival::Arrival;
use common::store::record::direct::Known;
use common::store::record::{self, Record, RecordAnswer};
use common::store::start::{self, Start, StartAnswer};
use common::store::waits::{self, Answered};
use common::store::{audit, probes, stop, timers, workers};
use common::wait::{Answer, WaitKind};
use scheduler::duty::audit::lanes::Lanes;
use scheduler::duty::audit::owners::Owners;
use scheduler::duty::audit::verdict::{self, Repair};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use tests::database::Database;
use uuid::Uuid;

use super::model::{LANE, Model, instant, task};
use super::world::shown;

const CLOCK: &str = "
    create schema sim;
    create table sim.clock (now timestamptz not null);
    insert into sim.clock values (pg_catalog.clock_timestamp());
    create function sim.clock_timestamp() returns timestamptz language sql volatile
        as 'select now from sim.clock';
    alter table outbox alter column created_at set default sim.clock_timestamp();
    alter table workers alter column locked_at set default sim.clock_timestamp();
    alter table probes alter column sent_at set default sim.clock_timestamp();";

pub(super) struct Mirror {
    // Dropped before the database is.
    conn: PgConnection,
    locks: BTreeMap<Uuid, PgConnection>,
    idle: Vec<PgConnection>,
    sessions: BTreeMap<usize, Session>,
    minds: BTreeMap<usize, Owners>,
    definitions: Definitions,
    run: Uuid,
    url: String,
    _database: Database,
}

fn keeping(owner: Option<Uuid>) -> Keeping<'static> {
    Keeping { owner, serves: &|lane| lane == LANE, quick: &|_, _| false }
}

impl Mirror {
    pub(super) async fn on(database: Database) -> Self {
        sqlx::raw_sql(CLOCK).execute(database.pool()).await.expect("a clock");
        let url = format!(
            "{}?options=-c%20search_path%3Dsim%2Cpg_catalog%2Cpublic%20-c%20synchronous_commit%3Doff",
            database.url()
        );
        let conn = PgConnection::connect(&url).await.expect("a session");
        Self {
            conn,
            locks: BTreeMap::new(),
            idle: Vec::new(),
            sessions: BTreeMap::new(),
            minds: BTreeMap::new(),
            definitions: Definitions::default(),
            run: Uuid::nil(),
            url,
            _database: database,
        }
    }

    /// Forgets all schedules so far; returns what the clock shows, in milliseconds.
    pub(super) async fn reset(&mut self) -> i64 {
        for mut conn in std::mem::take(&mut self.locks).into_values() {
            sqlx::query("select pg_advisory_unlock_all()").execute(&mut conn).await.expect("freed");
            self.idle.push(conn);
        }
        for leader in [0, 1] {
            self.unseat(leader).await;
        }
        self.sessions.clear();
        self.minds.clear();
        self.definitions = Definitions::default();
        let clear = "
            delete from outbox; delete from timers; delete from waits; delete from attempts; delete from node_runs;
            delete from runs; delete from open_runs; delete from probes; delete from workers;
            delete from pipeline_versions; delete from pipelines; update leader set epoch = 0;
            update sim.clock set now = date_trunc('milliseconds', pg_catalog.clock_timestamp());";
        sqlx::raw_sql(clear).execute(&mut self.conn).await.expect("cleared");
        let query = "select (extract(epoch from now) * 1000)::bigint from sim.clock";
        sqlx::query_scalar(query).fetch_one(&mut self.conn).await.expect("a clock")
    }

    /// Accepts the model's run.
    pub(super) async fn accept(&mut self, model: &Model, definition: &Value, pipeline: Uuid) {
        self.run = model.context.id;
        let (job, _) = &model.outbox[0];
        let statements = [
            "insert into pipelines (id, name, version, owner) values ($2, 'simulated', 1, 'test')",
            "insert into pipeline_versions (pipeline_id, version, definition, lane, created_by)
             values ($2, 1, $3, 'default', 'test')",
            "insert into runs (id, kind, pipeline_id, pipeline, version, lane, input, trigger, created_by, queued_at)
             values ($1, 'pipeline', $2, 'simulated', 1, 'default', '{}', '{}', 'test', clock_timestamp())",
            "insert into open_runs values ($1)",
            "insert into outbox (id, lane, job) values ($4, 'default', $5)",
        ];
        // Each statement takes what it needs of the same five values.
        for statement in statements {
            let statement = format!(
                "with given as (select $1::uuid, $2::uuid, $3::jsonb, $4::uuid, $5::jsonb) {statement}"
            );
            sqlx::query(AssertSqlSafe(statement))
                .bind(self.run)
                .bind(pipeline)
                .bind(definition)
                .bind(job.id)
                .bind(serde_json::to_value(job).expect("JSON"))
                .execute(&mut self.conn)
                .await
                .expect("accepted");
        }
    }

    pub(super) async fn tick(&mut self, now: i64) {
        let update = sqlx::query("update sim.clock set now = $1").bind(instant(now));
        update.execute(&mut self.conn).await.expect("a tick");
    }

    /// In one statement where that will do, as a worker does it; else the longer way.
    pub(super) async fn start(
        &mut self,
        _: &Model,
        owner: Uuid,
        job: Uuid,
    ) -> Option<Vec<Claimed>> {
        let pipeline = Some(("simulated".to_owned(), 1));
        let starts = [Start { run: self.run, job, pipeline, traceparent: None }];
        let keeping = keeping(Some(owner));
        let started =
            start::direct::start(&mut self.conn, &starts, keeping, 0, &self.definitions).await;
        match started.expect("started").answers.into_iter().next().expect("an answer") {
            start::direct::Answer::Started(claimed) => return Some(claimed),
            start::direct::Answer::Unreadable(why) => panic!("{why}"),
            start::direct::Answer::Look => {}
        }
        let mut tx = self.conn.begin().await.expect("a transaction");
        let started =
            start::start(&mut tx, &starts, keeping, 0, &self.definitions).await.expect("started");
        tx.commit().await.expect("committed");
        match started.answers.into_iter().next().expect("an answer") {
            StartAnswer::Started(claimed) => Some(claimed),
            StartAnswer::Ended(_) => Some(Vec::new()),
            StartAnswer::NotQueued => None,
        }
    }

    pub(super) async fn claim(&mut self, claim: &Claim, owner: Uuid) -> Option<Vec<Claimed>> {
        let claims = std::slice::from_ref(claim);
        let answers = claim::claim(&mut self.conn, claims, owner, &self.definitions).await;
        match answers.expect("claimed").into_iter().next().expect("an answer") {
            ClaimAnswer::Claimed(claimed) => Some(vec![claimed]),
            ClaimAnswer::NotQueued => None,
            ClaimAnswer::Unreadable(why) => panic!("{why}"),
        }
    }

    /// Somebody decides; whether it counts.
    pub(super) async fn answer(&mut self, model: &Model, node: NodeIx) -> bool {
        let id = model.context.graph.node(node).node.id.clone();
        let decided = Answer::Decided { approved: true, by: "me".to_owned(), comment: None };
        let mut tx = self.conn.begin().await.expect("a transaction");
        let answered = waits::answer(&mut tx, self.run, &id, WaitKind::Approval, &decided).await;
        let answered = answered.expect("answered");
        tx.commit().await.expect("committed");
        matches!(answered, Answered::Done(_))
    }

    /// The same for a record.
    pub(super) async fn record(
        &mut self,
        owner: Option<Uuid>,
        item: &Record,
    ) -> Option<Vec<Claimed>> {
        let item = Arc::new(item.clone());
        if let Some(known) = Known::of(&item) {
            let known = [known];
            let recorded = record::direct::record(&mut self.conn, &known, keeping(owner), 0).await;
            let answer = recorded.expect("recorded").answers.into_iter().next().flatten();
            if answer.is_some() {
                return answer;
            }
        } else if let Some(arrival) = Arrival::of(&item) {
            let recorded =
                record::arrival::record(&mut self.conn, &[arrival], keeping(owner)).await;
            let answer = recorded.expect("recorded").answers.into_iter().next().flatten();
            if answer.is_some() {
                return answer;
            }
        }
        let mut tx = self.conn.begin().await.expect("a transaction");
        let recorded = record::record(&mut tx, &[item], keeping(owner), 0).await.expect("recorded");
        tx.commit().await.expect("committed");
        match recorded.answers.into_iter().next().expect("an answer") {
            RecordAnswer::Recorded(claimed) => Some(claimed),
            RecordAnswer::Stale => None,
        }
    }

    pub(super) async fn under(&mut self, _: &Model, job: Uuid) -> Vec<Found> {
        reclaim::under(&mut self.conn, self.run, job).await.expect("found")
    }

    pub(super) async fn life(&mut self, worker: Uuid) -> Life {
        reclaim::life(&mut self.conn, worker).await.expect("asked")
    }

    pub(super) async fn cancel(&mut self) {
        let mut tx = self.conn.begin().await.expect("a transaction");
        stop::stop(&mut tx, self.run, StopReason::Cancel).await.expect("stopped");
        tx.commit().await.expect("committed");
    }

    pub(super) async fn confirm(&mut self, job: Uuid) {
        let delete = sqlx::query("delete from outbox where id = $1").bind(job);
        delete.execute(&mut self.conn).await.expect("deleted");
    }

    pub(super) async fn arrived(&mut self, probe: Uuid) {
        workers::arrived(&mut self.conn, probe).await.expect("arrived");
    }

    pub(super) async fn lock(&mut self, id: Uuid, held: bool) {
        if !held {
            let conn = self.locks.get_mut(&id).expect("a worker's session");
            sqlx::query("select pg_advisory_unlock_all()").execute(conn).await.expect("freed");
            return;
        }
        if !self.locks.contains_key(&id) {
            let conn = match self.idle.pop() {
                Some(conn) => conn,
                None => PgConnection::connect(&self.url).await.expect("a session"),
            };
            self.locks.insert(id, conn);
        }
        let who = workers::Presence {
            id,
            name: String::new(),
            lanes: vec![(LANE.to_owned(), 1)],
            tools: vec![],
        };
        let conn = self.locks.get_mut(&id).expect("it is there");
        // A thaw takes a lock that may never have been lost.
        sqlx::query("select pg_advisory_unlock_all()").execute(&mut *conn).await.expect("freed");
        assert!(workers::appear(conn, &who).await.expect("asked"), "the lock is free");
    }

    pub(super) async fn campaign(&mut self, candidate: usize) -> Option<i64> {
        let address = Address::parse(&self.url, "simulated").expect("an address");
        let mut session = Session::open(&address).await.expect("a session");
        let epoch = session.campaign(&candidate.to_string()).await.expect("asked");
        if epoch.is_some() {
            self.sessions.insert(candidate, session);
            self.minds.insert(candidate, Owners::default());
        }
        epoch
    }

    /// Ends the session from the server's side, and waits until its lock is free.
    pub(super) async fn unseat(&mut self, leader: usize) {
        if !self.sessions.contains_key(&leader) {
            return;
        }
        // Its own wait for the end would look every 100 ms only.
        let end = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                   where application_name = 'simulated' and datname = current_database()";
        loop {
            let left = sqlx::query_scalar::<_, i64>(end).fetch_one(&mut self.conn).await;
            if left.expect("terminated") == 0 {
                return;
            }
        }
    }

    pub(super) async fn may_write(&mut self, leader: usize) -> bool {
        let session = self.sessions.get_mut(&leader).expect("a session");
        let may = match session.begin().await {
            Ok(tx) => tx.rollback().await.is_ok(),
            Err(_) => false,
        };
        if !may {
            self.sessions.remove(&leader);
        }
        may
    }

    pub(super) async fn fire(&mut self, leader: usize) -> bool {
        let session = self.sessions.get_mut(&leader).expect("a session");
        let due = timers::due(session.reader(), 100).await.expect("read");
        let mut tx = session.begin().await.expect("it leads");
        let fired = timers::fire(&mut tx, &due).await.expect("fired");
        tx.commit().await.expect("committed");
        fired.timers > 0
    }

    pub(super) async fn look(&mut self, leader: usize, at: Instant) -> Vec<String> {
        let reader = self.sessions.get_mut(&leader).expect("a session").reader();
        let owners = self.minds.get_mut(&leader).expect("a mind");
        owners.looked(audit::workers(reader).await.expect("read"), at);
        let mut lanes = Lanes::default();
        lanes.proved(probes::proofs(reader).await.expect("read"));
        let Look { runs, ended, .. } =
            open_runs::look(reader, Uuid::nil(), 10).await.expect("read");
        open_runs::forget(reader, &ended).await.expect("forgotten");
        let started: Vec<Uuid> =
            runs.iter().filter(|run| run.state != RunState::Queued).map(|run| run.id).collect();
        let alive = owners.alive();
        let nodes = audit::doubtful_nodes(reader, &started, &alive).await.expect("read");
        let mut verdicts: Vec<String> =
            runs.iter().map(|run| shown(&verdict::of_run(run, &lanes))).collect();
        for node in &nodes {
            node.owner.into_iter().for_each(|owner| owners.doubt(owner, at));
            verdicts.push(shown(&verdict::of_node(node, &lanes, owners)));
        }
        verdicts.sort();
        verdicts
    }

    /// Asks the workers' locks once more.
    pub(super) async fn look_again(&mut self, leader: usize, at: Instant) {
        let reader = self.sessions.get_mut(&leader).expect("a session").reader();
        let seen = audit::workers(reader).await.expect("read");
        self.minds.get_mut(&leader).expect("a mind").looked(seen, at);
    }

    pub(super) async fn probe(&mut self, leader: usize) {
        let session = self.sessions.get_mut(&leader).expect("a session");
        let mut tx = session.begin().await.expect("it leads");
        probes::send(&mut tx, &[LANE.to_owned()]).await.expect("sent");
        tx.commit().await.expect("committed");
    }

    pub(super) async fn repair(&mut self, leader: usize, repair: &Repair) {
        let session = self.sessions.get_mut(&leader).expect("a session");
        let mut tx = session.begin().await.expect("it leads");
        let run = self.run;
        match repair.clone() {
            Repair::ResendStart(_, at) => {
                audit::resend_starts(&mut tx, &[(run, at)]).await.expect("sent");
            }
            Repair::ResendNode(_, node, at) => {
                audit::resend_nodes(&mut tx, &[(run, node, at)]).await.expect("sent");
            }
            Repair::SetTimer(timer) => {
                audit::set_timer(&mut tx, &timer).await.expect("set");
            }
            Repair::Recover(_, lost) => {
                let lost = [(run, Found::from(lost))];
                reclaim::recover(&mut tx, &lost, &self.definitions).await.expect("recovered");
            }
            Repair::FinishStopping(_) => {
                stop::finish_if_idle(&mut tx, run).await.expect("finished");
            }
            Repair::FailStuck(..) => panic!("nothing is stuck"),
        }
        tx.commit().await.expect("committed");
    }

    /// What stands here, once the model's new jobs have the ids that they have here.
    pub(super) async fn shown(&mut self, model: &mut Model) -> String {
        let jobs =
            sqlx::query("select job from outbox order by id").fetch_all(&mut self.conn).await;
        let jobs: Vec<Job> = jobs
            .expect("rows")
            .iter()
            .map(|row| serde_json::from_value(row.get(0)).expect("a job"))
            .collect();
        let mut lines = self.lines().await;
        let mut tasks: Vec<String> = jobs.iter().map(task).collect();
        tasks.sort();
        lines.extend(tasks);
        adopt(model, jobs);
        lines.join("\n")
    }

    /// The run, and its node runs.
    async fn lines(&mut self) -> Vec<String> {
        let query = "select r.state, r.open, n.node, n.state, n.attempt, n.spent, n.losses, n.owner, n.job_id,
                            n.open_in, n.taken_in, n.broken_in
                     from runs r left join node_runs n on n.run_id = r.id order by n.node";
        let mut lines = Vec::new();
        for row in sqlx::query(query).fetch_all(&mut self.conn).await.expect("rows") {
            if lines.is_empty() {
                let (state, open): (RunState, i32) = (row.get(0), row.get(1));
                lines.push(format!("run {} open {open}", state.name()));
            }
            let Some(node) = row.get::<Option<String>, _>(2) else { continue };
            let state: NodeState = row.get(3);
            let (open, taken, broken): (i32, bool, bool) = (row.get(9), row.get(10), row.get(11));
            let counters = match state {
                NodeState::Pending => format!("{open}{taken}{broken}"),
                _ => String::new(),
            };
            lines.push(format!(
                "{node} {} attempt {} spent {} losses {} owner {:?} job {:?} {counters}",
                state.name(),
                row.get::<i32, _>(4),
                row.get::<i32, _>(5),
                row.get::<i32, _>(6),
                row.get::<Option<Uuid>, _>(7),
                row.get::<Option<Uuid>, _>(8),
            ));
        }
        lines
    }
}

/// Gives the model's new jobs the ids that they have on Postgres.
fn adopt(model: &mut Model, jobs: Vec<Job>) {
    let here: HashSet<Uuid> = jobs.iter().map(|job| job.id).collect();
    let known: HashSet<Uuid> = model.outbox.iter().map(|(job, _)| job.id).collect();
    for job in jobs.into_iter().filter(|job| !known.contains(&job.id)) {
        let mut mine = model.outbox.iter_mut().map(|(known, _)| known);
        let mine = mine.find(|known| task(known) == task(&job) && !here.contains(&known.id));
        // A difference, which shows in what is compared.
        let Some(known) = mine else { continue };
        let before = std::mem::replace(known, job.clone());
        if let (Task::Probe { probe: ours }, Task::Probe { probe: theirs }) =
            (&before.task, &job.task)
        {
            model.rename_probe(*ours, *theirs);
        }
    }
}
