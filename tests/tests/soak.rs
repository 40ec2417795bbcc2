//! Random faults hit a loaded fleet, on servers of its own; then they end, and all that was accepted has to have ended.
//!
//! `GATHERING_SOAK_SECONDS` says how long (600); `GATHERING_SOAK_SEED` repeats a sequence of faults.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tests::client::Client;
use tests::fleet::{FleetOptions, Role, TestFleet};
use tests::http_target::{HttpTarget, Reply};
use tests::ledger::{Entry, seconds};
use tests::proxy::{Mode, Proxy};
use tests::servers::{PrivatePostgres, PrivateRabbit, Servers};

use crate::definitions::*;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

const FAULTS: [&str; 17] = [
    "kill a worker",
    "freeze a worker",
    "stop a worker",
    "kill the api",
    "kill the leader",
    "freeze the leader",
    "kill the broker",
    "restart the broker",
    "freeze the broker",
    "close all connections",
    "purge the lane",
    "delete the lane's queue",
    "restart Postgres",
    "kill Postgres",
    "terminate all sessions",
    "cut the links to the broker",
    "half-open links to Postgres",
];

/// What clients share: where an api is, and what it accepted.
#[derive(Default)]
struct Load {
    api: Mutex<Option<Client>>,
    accepted: Mutex<Vec<String>>,
    refused: Mutex<usize>,
    unanswered: Mutex<usize>,
}

impl Load {
    fn client(&self) -> Client {
        self.api.lock().expect("sound").clone().expect("there is an api")
    }

    /// Sends one request that creates a run, and remembers what was accepted.
    async fn send(&self, path: &str, body: &Value) -> Option<String> {
        let client = self.client();
        let request = client.request(reqwest::Method::POST, path).json(body);
        match client.try_send(request.timeout(Duration::from_secs(20))).await {
            Ok(answer) if answer.status == 202 => {
                let id = answer.body["id"].as_str().expect("an id").to_owned();
                self.accepted.lock().expect("sound").push(id.clone());
                Some(id)
            }
            // In conflict: what is to be run again goes on still, or has not failed.
            Ok(answer) if [409, 503].contains(&answer.status) => {
                *self.refused.lock().expect("sound") += 1;
                None
            }
            Ok(answer) => panic!("{path}: {} {}", answer.status, answer.text),
            Err(_) => {
                *self.unanswered.lock().expect("sound") += 1;
                None
            }
        }
    }

    /// One client, which never stops by itself.
    async fn go_on(self: Arc<Self>, seed: u64, url: String) {
        let mut random = SmallRng::seed_from_u64(seed);
        loop {
            let call = json!({"method": "POST", "url": url, "json": {}});
            let sent = match random.random_range(0..100) {
                0..50 => self.send("/v1/pipelines/mixed/runs", &json!({"input": {}})).await,
                50..75 => {
                    self.send("/v1/actions", &json!({"action": "call_api", "input": call})).await
                }
                75..85 => {
                    let body = json!({"action": "call_api", "input": call, "delay": "2s"});
                    self.send("/v1/actions", &body).await
                }
                _ => {
                    let known = self.accepted.lock().expect("sound").last().cloned();
                    match known {
                        None => None,
                        Some(id) if random.random_bool(0.5) => {
                            self.send(&format!("/v1/runs/{id}/rerun"), &json!({"from": "start"}))
                                .await
                        }
                        Some(id) => {
                            let client = self.client();
                            let path = format!("/v1/runs/{id}/cancel");
                            let request =
                                client.request(reqwest::Method::POST, &path).json(&json!({}));
                            let _ = client.try_send(request.timeout(Duration::from_secs(20))).await;
                            Some(id)
                        }
                    }
                }
            };
            let pause = if sent.is_some() { 60..140 } else { 300..600 };
            tokio::time::sleep(Duration::from_millis(random.random_range(pause))).await;
        }
    }
}

/// The fleet and what can be broken of it.
struct Soak {
    fleet: TestFleet,
    rabbit: PrivateRabbit,
    postgres: PrivatePostgres,
    to_broker: Proxy,
    to_postgres: Proxy,
    load: Arc<Load>,
    workers: Vec<usize>,
    schedulers: Vec<usize>,
    api: usize,
}

impl Soak {
    async fn start(load: Arc<Load>) -> Self {
        let (rabbit, postgres) = (PrivateRabbit::start().await, PrivatePostgres::start().await);
        let servers = Servers::shared().await.with_rabbit(&rabbit).with_postgres(&postgres);
        let to_broker = Proxy::before(&servers.amqp_url).await;
        let mut options =
            FleetOptions { servers: Some(servers.clone()), ..FleetOptions::default() };
        for role in [Role::Api, Role::Worker, Role::Scheduler] {
            options = options.with_broker_via(role, &to_broker, &servers);
        }
        let mut fleet = TestFleet::prepare(options).await;
        let to_postgres = Proxy::before(fleet.database().url()).await;
        for role in [Role::Api, Role::Worker, Role::Scheduler] {
            fleet.database_via(role, &to_postgres);
        }
        let api = fleet.add(Role::Api, &[]);
        let workers = (0..3).map(|_| fleet.add(Role::Worker, &[])).collect();
        let schedulers = (0..2).map(|_| fleet.add(Role::Scheduler, &[])).collect();
        fleet.ready().await;
        *load.api.lock().expect("sound") = Some(fleet.client_of(api));
        Self { fleet, rabbit, postgres, to_broker, to_postgres, load, workers, schedulers, api }
    }

    /// Makes a fault, and ends it.
    async fn make(&mut self, fault: &str, random: &mut SmallRng) {
        let worker = self.workers[random.random_range(0..self.workers.len())];
        let moment = Duration::from_millis(random.random_range(500..12_000));
        match fault {
            "kill a worker" => {
                self.fleet.kill(Role::Worker, worker);
                self.replace_worker(worker);
            }
            "stop a worker" => {
                self.fleet.process(Role::Worker, worker).terminate();
                self.fleet.stopped(Role::Worker, worker).await;
                self.replace_worker(worker);
            }
            "freeze a worker" => {
                self.fleet.process(Role::Worker, worker).freeze();
                tokio::time::sleep(moment).await;
                self.fleet.process(Role::Worker, worker).thaw();
            }
            "kill the api" => {
                self.fleet.kill(Role::Api, self.api);
                self.api = self.fleet.add(Role::Api, &[]);
                *self.load.api.lock().expect("sound") = Some(self.fleet.client_of(self.api));
            }
            "kill the leader" => {
                let leader = self.fleet.leader().await;
                self.fleet.kill(Role::Scheduler, leader);
                let next = self.fleet.add(Role::Scheduler, &[]);
                self.schedulers.retain(|index| *index != leader);
                self.schedulers.push(next);
            }
            "freeze the leader" => {
                let leader = self.fleet.leader().await;
                self.fleet.process(Role::Scheduler, leader).freeze();
                tokio::time::sleep(moment).await;
                self.fleet.process(Role::Scheduler, leader).thaw();
            }
            "kill the broker" => {
                self.rabbit.kill().await;
                self.rabbit.up().await;
            }
            "restart the broker" => self.rabbit.restart().await,
            "freeze the broker" => {
                self.rabbit.freeze().await;
                tokio::time::sleep(moment).await;
                self.rabbit.thaw().await;
            }
            "close all connections" => {
                self.rabbit.ctl(&["close_all_connections", "a soak"]).await;
            }
            "purge the lane" => {
                self.rabbit.ctl(&["purge_queue", &self.fleet.queue()]).await;
            }
            "delete the lane's queue" => {
                self.rabbit.ctl(&["delete_queue", &self.fleet.queue()]).await;
            }
            "restart Postgres" => self.postgres.restart().await,
            "kill Postgres" => {
                self.postgres.kill().await;
                self.postgres.up().await;
            }
            "terminate all sessions" => {
                let all = "select pg_terminate_backend(pid) from pg_stat_activity
                           where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()";
                self.fleet.database().execute(all).await;
            }
            "cut the links to the broker" => self.to_broker.cut(),
            "half-open links to Postgres" => {
                self.to_postgres.set(Mode::Hold);
                tokio::time::sleep(moment).await;
                self.to_postgres.heal();
            }
            other => panic!("{other} is no fault"),
        }
    }

    fn replace_worker(&mut self, gone: usize) {
        let next = self.fleet.add(Role::Worker, &[]);
        self.workers.retain(|index| *index != gone);
        self.workers.push(next);
    }

    /// How long it takes until all are ready and a new action has run.
    async fn recover(&self) -> Duration {
        let began = Instant::now();
        loop {
            let passed = began.elapsed();
            assert!(passed < Duration::from_secs(120), "no action ran within {passed:?}");
            let body = json!({"action": "echo", "input": {}});
            let Some(id) = self.load.send("/v1/actions", &body).await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            // Should its message be lost, the audit needs its time; another one need not wait for that.
            let waiting = Instant::now();
            while waiting.elapsed() < Duration::from_secs(5) {
                let client = self.load.client();
                let request =
                    client.request(reqwest::Method::GET, &format!("/v1/runs/{id}?wait=1s"));
                let request = request.timeout(Duration::from_secs(5));
                if client.try_send(request).await.is_ok_and(|run| run.body["state"] == "completed")
                {
                    return began.elapsed();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

fn mixed(url: &str) -> Value {
    let calls = |id: &str| with(call(id, url), "retry", quick_retry(5));
    pipeline(
        "mixed",
        [
            json!({"id": "start", "type": "trigger"}),
            json!({"id": "fork", "type": "parallel"}),
            calls("a"),
            calls("b"),
            delay("pause", "500ms"),
            condition("yes", "true"),
            calls("end"),
        ],
        [
            edge("start", "fork"),
            edge("fork", "a"),
            edge("fork", "b"),
            edge("a", "pause"),
            edge("b", "yes"),
            edge("pause", "end"),
            edge("yes", "end"),
        ],
    )
}

/// No effect without an attempt, and none missing of what completed.
async fn check_effects(fleet: &TestFleet, effects: &BTreeMap<String, usize>) {
    let query = "select run_id::text || '/' || node, attempt, state::text from node_runs
                 where node in ('a', 'b', 'end', 'call_api')";
    let rows: Vec<(String, i32, String)> =
        sqlx::query_as(query).fetch_all(fleet.database().pool()).await.expect("rows");
    let known: BTreeMap<&str, i32> =
        rows.iter().map(|(key, attempt, _)| (key.as_str(), *attempt)).collect();
    for (key, count) in effects {
        let attempts = known.get(key.as_str()).copied().unwrap_or(0);
        assert!(*count as i32 <= attempts, "{key}: {count} effects in {attempts} attempts");
    }
    for (key, _, state) in &rows {
        assert!(state != "completed" || effects.contains_key(key), "{key}: no effect");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes ten minutes"]
async fn random_faults_under_load_lose_nothing() {
    let seed = setting("GATHERING_SOAK_SEED").unwrap_or_else(rand::random);
    let time = Duration::from_secs(setting("GATHERING_SOAK_SECONDS").unwrap_or(600));
    println!("GATHERING_SOAK_SEED={seed} GATHERING_SOAK_SECONDS={}", time.as_secs());
    let mut random = SmallRng::seed_from_u64(seed);
    let target = HttpTarget::start().await;
    target.answers("/effect", [Reply::status(200).after(Duration::from_millis(20))]);
    let load = Arc::new(Load::default());
    let mut soak = Soak::start(load.clone()).await;
    load.client().create_pipeline(&mixed(&target.url("/effect"))).await;
    let clients: Vec<_> = (0..4)
        .map(|n| tokio::spawn(load.clone().go_on(seed.wrapping_add(n), target.url("/effect"))))
        .collect();

    let (began, mut table) = (Instant::now(), BTreeMap::<&str, Vec<Duration>>::new());
    while began.elapsed() < time {
        tokio::time::sleep(Duration::from_millis(random.random_range(500..3_000))).await;
        let fault = FAULTS[random.random_range(0..FAULTS.len())];
        soak.make(fault, &mut random).await;
        let took = soak.recover().await;
        println!("{:>4} s  {fault}: {}", began.elapsed().as_secs(), seconds(took));
        table.entry(fault).or_default().push(took);
        assert!(
            clients.iter().all(|client| !client.is_finished()),
            "a client met what it must not"
        );
    }
    clients.iter().for_each(tokio::task::JoinHandle::abort);
    // Requests under way are still answered, or not; what they asked for is in no list then.
    soak.fleet.ready().await;
    let healed = Instant::now();
    soak.fleet.drain(Duration::from_secs(180)).await;
    let drained = healed.elapsed();
    let accepted = load.accepted.lock().expect("sound").clone();
    soak.fleet.all_ended(&accepted).await;
    check_effects(&soak.fleet, &target.effects("/effect")).await;
    let (refused, unanswered) =
        (*load.refused.lock().expect("sound"), *load.unanswered.lock().expect("sound"));
    soak.fleet.finish().await;

    let faults: usize = table.values().map(Vec::len).sum();
    let mut worst = Vec::new();
    for (fault, times) in &table {
        let longest = times.iter().max().copied().unwrap_or_default();
        worst.push(format!("{fault} {}× (longest recovery {})", times.len(), seconds(longest)));
    }
    Entry::beside("random_faults_under_load_lose_nothing").seen(format!(
        "seed {seed}, {} s, {faults} faults: {}. {} runs accepted, {refused} requests refused, {unanswered} unanswered; \
         all accepted ended, the last {} after the end of the faults",
        time.as_secs(),
        worst.join(", "),
        accepted.len(),
        seconds(drained)
    ));
}
