//! A fleet to measure, and the load on it.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::future::join_all;
use serde_json::{Value, json};
use sqlx::Row;
use tests::client::{Client, token};
use tests::fleet::{FleetOptions, Role, SECRET, TestFleet};
use tests::leftovers::wrongs;
use tests::wait::{eventually, seen};

use crate::Arguments;
use crate::http::{Connection, Request};

/// Clients of most workloads.
pub(crate) const CONNECTIONS: usize = 16;

const ADMIN: &str = "bench@example.org";
const PASSWORD: &str = "a password for the bench alone";

/// What runs while a workload is measured.
pub(crate) struct Load {
    pub(crate) fleet: TestFleet,
    pub(crate) token: String,
}

/// How many ended.
pub(crate) struct Ended {
    pub(crate) runs: i64,
    pub(crate) nodes: i64,
}

impl Load {
    /// A fleet whose connections are open and whose statements are prepared.
    pub(crate) async fn start(arguments: &Arguments, workers: usize) -> Self {
        let load = Self::start_with(arguments, workers, arguments.concurrency).await;
        if workers > 0 {
            load.warm_up().await;
        }
        load
    }

    pub(crate) async fn start_with(
        arguments: &Arguments,
        workers: usize,
        concurrency: usize,
    ) -> Self {
        let mut options =
            FleetOptions { apis: arguments.apis, workers, concurrency, ..FleetOptions::default() };
        for role in [Role::Api, Role::Worker, Role::Scheduler] {
            options = options.with(role, "RUST_LOG", &arguments.log);
        }
        if arguments.signs_in {
            let limit = ("GATHERING_RATE_LIMIT_WRITE", "1000000/s");
            let admin =
                [limit, ("GATHERING_ADMIN_EMAIL", ADMIN), ("GATHERING_ADMIN_PASSWORD", PASSWORD)];
            options =
                admin.into_iter().fold(options, |it, (name, to)| it.with(Role::Api, name, to));
        }
        let fleet = TestFleet::start(options).await;
        let token = match arguments.signs_in {
            false => token(SECRET, "bench", "admin", Duration::from_secs(24 * 3600)),
            true => {
                let signed_in = fleet.client().sign_in(ADMIN, PASSWORD).await;
                signed_in["access_token"].as_str().expect("a token").to_owned()
            }
        };
        Self { fleet, token }
    }

    async fn warm_up(&self) {
        self.submit("/v1/actions", &no_op(), 200, CONNECTIONS).await;
        self.ended(Duration::from_secs(60)).await;
        self.fleet.database().execute("truncate runs, node_runs").await;
    }

    pub(crate) fn client(&self) -> Client {
        self.fleet.client()
    }

    pub(crate) fn address(&self, api: usize) -> SocketAddr {
        let url = self.fleet.url(Role::Api, api);
        url.trim_start_matches("http://").parse().expect("an address of the loopback")
    }

    /// Opens connections, spread over the apis.
    pub(crate) async fn connections(&self, arguments: &Arguments, count: usize) -> Vec<Connection> {
        join_all((0..count).map(|n| Connection::open(self.address(n % arguments.apis)))).await
    }

    /// Submits the same body many times, over several connections at once.
    pub(crate) async fn submit(&self, path: &str, body: &Value, count: usize, connections: usize) {
        let request = Request::post(path, &self.token, &body.to_string());
        let status = if path.ends_with(":batch") { 200 } else { 202 };
        join_all((0..connections).map(|n| {
            let (request, share) =
                (&request, count / connections + usize::from(n < count % connections));
            async move {
                let mut connection = Connection::open(self.address(0)).await;
                for _ in 0..share {
                    connection.expect(request, status).await;
                }
            }
        }))
        .await;
    }

    /// Waits until every run has ended, and counts those that completed.
    pub(crate) async fn ended(&self, patience: Duration) -> Ended {
        let database = self.fleet.database();
        eventually(patience, "every run to end", async || {
            let open = database
                .count(
                    "select count(*) from open_runs join runs on id = run_id where finished_at is null",
                )
                .await;
            // Seldom while much is open: counting takes from what is measured.
            tokio::time::sleep(Duration::from_millis(if open > 1000 { 200 } else { 20 })).await;
            seen(open == 0, open)
        })
        .await;
        let row = sqlx::query(
            "select count(*), (select count(*) from node_runs where state = 'completed')
             from runs where state = 'completed'",
        )
        .fetch_one(database.pool())
        .await
        .expect("runs can be counted");
        Ended { runs: row.get(0), nodes: row.get(1) }
    }

    /// Seconds from a moment of this machine's clock to the last end.
    pub(crate) async fn seconds_since(&self, began: SystemTime) -> f64 {
        let last: f64 =
            sqlx::query_scalar("select extract(epoch from max(finished_at))::float8 from runs")
                .fetch_one(self.fleet.database().pool())
                .await
                .expect("runs can be counted");
        last - began.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
    }

    /// Fails the bench when something was lost, left over or recorded twice.
    pub(crate) async fn check(&self, ended: &Ended, runs: usize) {
        assert_eq!(usize::try_from(ended.runs), Ok(runs), "every run that was accepted completes");
        self.fleet.drain(Duration::from_secs(60)).await;
        let wrongs = wrongs(self.fleet.database()).await;
        assert!(wrongs.is_empty(), "{}", wrongs.join("\n"));
    }
}

/// The action that does nothing.
pub(crate) fn no_op() -> Value {
    json!({"action": "echo", "input": {"n": 1}})
}

/// A batch of them.
pub(crate) fn no_ops(count: usize) -> Value {
    json!({"items": vec![no_op(); count]})
}

/// A pipeline of nodes that do `config`, one after the other.
pub(crate) fn chain(name: &str, length: usize, config: &Value) -> Value {
    let node = |n: usize| json!({"id": format!("n{n}"), "type": "action", "config": config});
    let edge = |n: usize| json!({"from": format!("n{}", n - 1), "to": format!("n{n}")});
    let (nodes, edges): (Vec<_>, Vec<_>) =
        ((0..length).map(node).collect(), (1..length).map(edge).collect());
    json!({"name": name, "nodes": nodes, "edges": edges})
}

/// A pipeline of 1 → `width` → 1 no-op nodes.
pub(crate) fn fan(name: &str, width: usize) -> Value {
    let node = |id: &str| json!({"id": id, "type": "action", "config": {"action": "echo", "n": 1}});
    let ids: Vec<_> = (0..width).map(|n| format!("b{n}")).collect();
    let mut nodes = vec![node("start"), node("end")];
    nodes.extend(ids.iter().map(|id| node(id)));
    let edges: Vec<_> = ids
        .iter()
        .flat_map(|id| [json!({"from": "start", "to": id}), json!({"from": id, "to": "end"})])
        .collect();
    json!({"name": name, "nodes": nodes, "edges": edges})
}
