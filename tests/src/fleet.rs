//! A fleet of real processes with a database and a prefix of its own.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::future::join_all;

use crate::aside::aside;
use crate::broker::Broker;
use crate::client::{Client, http};
use crate::database::Database;
use crate::leftovers::{drained, under_way, wrongs};
use crate::ports::Port;
use crate::process::{Process, binary, command};
use crate::proxy::Proxy;
use crate::servers::Servers;
use crate::wait::eventually;

/// What every test's api signs with.
pub const SECRET: &str = "a secret of the tests, long enough to sign with";

/// What every test's secrets are sealed with.
pub const SECRETS_KEY: &str = "dGhlIHNlY3JldHMgb2YgdGVzdHMsIDMyIGJ5dGVzISE=";

/// How long a fleet may take to come to rest, or to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A kind of process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `gathering-api serve`
    Api,
    /// `gathering-worker`
    Worker,
    /// `gathering-scheduler`
    Scheduler,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Worker => "worker",
            Self::Scheduler => "scheduler",
        }
    }
}

/// How a fleet is made.
#[derive(Debug, Clone)]
pub struct FleetOptions {
    /// How many apis.
    pub apis: usize,
    /// How many workers.
    pub workers: usize,
    /// How many schedulers.
    pub schedulers: usize,
    /// Slots of each worker.
    pub concurrency: usize,
    /// Lanes of each worker, as in `GATHERING_LANES`.
    pub lanes: String,
    /// Environment of some processes, beyond the usual.
    pub environment: Vec<(Role, String, String)>,
    /// Servers to use instead of the shared ones.
    pub servers: Option<Servers>,
}

impl Default for FleetOptions {
    fn default() -> Self {
        Self {
            apis: 1,
            workers: 1,
            schedulers: 1,
            concurrency: 16,
            lanes: "default".to_owned(),
            environment: Vec::new(),
            servers: None,
        }
    }
}

impl FleetOptions {
    /// With a variable for the processes of one role.
    #[must_use]
    pub fn with(mut self, role: Role, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((role, name.to_owned(), value.into()));
        self
    }

    /// With a proxy between the processes of one role and the broker.
    #[must_use]
    pub fn with_broker_via(self, role: Role, proxy: &Proxy, servers: &Servers) -> Self {
        self.with(role, "AMQP_URL", proxy.url(&servers.amqp_url))
    }
}

/// A running fleet. Its processes are killed, and its database and queues removed, at drop.
#[derive(Debug)]
pub struct TestFleet {
    options: FleetOptions,
    prefix: String,
    servers: Servers,
    broker: Broker,
    members: Vec<Member>,
    folder: PathBuf,
    database: Database,
    /// For variables whose value is only known once the database is there.
    direct: Vec<(Role, String)>,
    spawned: usize,
}

/// One process and where it listens.
#[derive(Debug)]
struct Member {
    role: Role,
    port: Port,
    process: Process,
    /// Ended on purpose: `finish` does not ask how.
    dismissed: bool,
}

impl TestFleet {
    /// Starts one, and waits until all its processes are ready.
    pub async fn start(options: FleetOptions) -> Self {
        let fleet = Self::spawn(options).await;
        fleet.ready().await;
        fleet
    }

    /// Starts one without waiting.
    pub async fn spawn(options: FleetOptions) -> Self {
        let mut fleet = Self::prepare(options).await;
        for (role, count) in [
            (Role::Api, fleet.options.apis),
            (Role::Worker, fleet.options.workers),
            (Role::Scheduler, fleet.options.schedulers),
        ] {
            for _ in 0..count {
                fleet.add(role, &[]);
            }
        }
        fleet
    }

    /// The database, and no process yet.
    pub async fn prepare(options: FleetOptions) -> Self {
        let servers = match &options.servers {
            Some(servers) => servers.clone(),
            None => Servers::shared().await,
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let prefix = format!("t-{now}-{:08x}", rand::random::<u32>());
        let folder = std::env::temp_dir().join(format!("gathering-{prefix}"));
        std::fs::create_dir_all(&folder).expect("the folder for temporary files takes a folder");
        let broker = Broker::new(&servers.amqp_url, servers.management_url.as_deref(), &prefix);
        let database = Database::create(&servers.database_url).await;
        Self {
            options,
            prefix,
            servers,
            broker,
            members: vec![],
            folder,
            database,
            direct: vec![],
            spawned: 0,
        }
    }

    /// From now on, processes of a role reach the database by way of a proxy.
    pub fn database_via(&mut self, role: Role, proxy: &Proxy) {
        self.direct.push((role, proxy.url(self.database.url())));
    }

    /// Starts one more process, with variables of its own; returns its index within its role.
    pub fn add(&mut self, role: Role, environment: &[(&str, &str)]) -> usize {
        let port = Port::claim();
        let mut command = self.command(role, &port);
        command.envs(environment.iter().copied());
        self.spawned += 1;
        let process =
            Process::spawn(&format!("{}-{}", role.name(), self.spawned), command, &self.folder);
        self.members.push(Member { role, port, process, dismissed: false });
        self.count(role) - 1
    }

    fn command(&self, role: Role, port: &Port) -> Command {
        let mut command = command(&binary(&format!("gathering-{}", role.name())));
        let database = self.direct.iter().rev().find(|(of, _)| *of == role);
        command
            .env("DATABASE_URL", database.map_or(self.database.url(), |(_, url)| url))
            .env("AMQP_URL", &self.servers.amqp_url)
            .env("GATHERING_PREFIX", &self.prefix)
            .env("RUST_LOG", "info,common=debug,api=debug,worker=debug,scheduler=debug");
        let address = port.address().to_string();
        match role {
            Role::Api => {
                command
                    .arg("serve")
                    .env("GATHERING_HTTP_ADDR", address)
                    .env("GATHERING_JWT_SECRET", SECRET)
                    .env("GATHERING_SECRETS_KEY", SECRETS_KEY)
                    .env("GATHERING_RATE_LIMIT_AUTH", "off")
                    .env("GATHERING_RATE_LIMIT_WRITE", "off")
                    .env("GATHERING_RATE_LIMIT_READ", "off");
            }
            Role::Worker => {
                command
                    .env("GATHERING_OPS_ADDR", address)
                    .env("GATHERING_CONCURRENCY", self.options.concurrency.to_string())
                    .env("GATHERING_LANES", &self.options.lanes)
                    .env("GATHERING_COMMANDS", "*")
                    // Where the servers are that tests let nodes call.
                    .env("GATHERING_ALLOWED_HOSTS", "127.0.0.1,localhost")
                    .env("GATHERING_SECRETS_KEY", SECRETS_KEY);
            }
            Role::Scheduler => {
                command.env("GATHERING_OPS_ADDR", address);
            }
        }
        command.envs(
            self.options
                .environment
                .iter()
                .filter(|(of, ..)| *of == role)
                .map(|(_, name, value)| (name, value)),
        );
        command
    }

    /// Waits until every process that runs says that it is ready.
    pub async fn ready(&self) {
        let members = self.members.iter().filter(|member| !member.dismissed);
        join_all(members.map(|member| async {
            let what = format!("{} to be ready", member.process.name());
            eventually(PATIENCE, &what, async || self.health(member, "ready").await).await;
        }))
        .await;
    }

    async fn health(&self, member: &Member, check: &str) -> Result<(), String> {
        let url = format!("http://{}/health/{check}", member.port.address());
        match http().get(url).timeout(Duration::from_secs(5)).send().await {
            Ok(answer) if answer.status() == 200 => Ok(()),
            Ok(answer) => {
                Err(format!("{} {}", answer.status(), answer.text().await.unwrap_or_default()))
            }
            Err(error) => {
                Err(format!("{error:?}; it has written:\n{}", tail(&member.process.log(), 10)))
            }
        }
    }

    /// A client of the first api.
    pub fn client(&self) -> Client {
        self.client_of(0)
    }

    /// A client of one of the apis.
    pub fn client_of(&self, api: usize) -> Client {
        Client::new(self.url(Role::Api, api), SECRET)
    }

    /// Where a process listens.
    pub fn url(&self, role: Role, index: usize) -> String {
        format!("http://{}", self.member(role, index).port.address())
    }

    /// What a process says under `/metrics`.
    pub async fn metrics(&self, role: Role, index: usize) -> String {
        let url = format!("{}/metrics", self.url(role, index));
        let answer = http().get(url).send().await.expect("a process answers");
        answer.text().await.expect("a process answers to the end")
    }

    /// One of the processes, in the order in which they were started.
    pub fn process(&mut self, role: Role, index: usize) -> &mut Process {
        let mut members = self.members.iter_mut().filter(|member| member.role == role);
        &mut members.nth(index).expect("the fleet has such a process").process
    }

    /// The processes that were not stopped.
    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        self.members.iter().filter(|member| !member.dismissed).map(|member| &member.process)
    }

    /// Kills a process for good (SIGKILL).
    pub fn kill(&mut self, role: Role, index: usize) {
        self.process(role, index).kill();
        self.dismiss(role, index);
    }

    /// Stops a process in an orderly way (SIGTERM), and fails the test unless it ends well.
    pub async fn stop(&mut self, role: Role, index: usize) {
        self.process(role, index).terminate();
        self.stopped(role, index).await;
    }

    /// Waits for a process that was asked to stop, and fails the test unless it ends well.
    pub async fn stopped(&mut self, role: Role, index: usize) {
        let process = self.process(role, index);
        let status = process.exit(PATIENCE + Duration::from_secs(10)).await;
        assert!(status.success(), "{} ended with {status}", process.name());
        self.dismiss(role, index);
    }

    fn dismiss(&mut self, role: Role, index: usize) {
        let mut members = self.members.iter_mut().filter(|member| member.role == role);
        members.nth(index).expect("the fleet has such a process").dismissed = true;
    }

    fn member(&self, role: Role, index: usize) -> &Member {
        let mut members = self.members.iter().filter(|member| member.role == role);
        members.nth(index).expect("the fleet has such a process")
    }

    fn count(&self, role: Role) -> usize {
        self.members.iter().filter(|member| member.role == role).count()
    }

    /// The index of the scheduler that leads.
    pub async fn leader(&self) -> usize {
        let count = self.count(Role::Scheduler);
        eventually(PATIENCE, "a scheduler to lead", async || {
            let holder: String = sqlx::query_scalar("select holder from leader")
                .fetch_one(self.database.pool())
                .await
                .map_err(|error| error.to_string())?;
            for index in 0..count {
                let member = self.member(Role::Scheduler, index);
                if !member.dismissed && holder.contains(&member.process.pid().to_string()) {
                    return Ok(index);
                }
            }
            Err(holder)
        })
        .await
    }

    /// The fleet's database.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// The fleet's part of the broker.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// The queue of the lane `default`.
    pub fn queue(&self) -> String {
        self.broker.lane("default")
    }

    /// A folder for the test's own files.
    pub fn folder(&self) -> &PathBuf {
        &self.folder
    }

    /// All that all processes have written.
    pub fn logs(&self) -> String {
        self.members.iter().map(|member| member.process.log()).collect()
    }

    /// Waits until every run has ended and the outbox is empty.
    pub async fn drain(&self, timeout: Duration) {
        drained(&self.database, timeout).await;
    }

    /// Fails the test unless all that was accepted has ended, and no node of it ran without being asked.
    pub async fn all_ended(&self, accepted: &[String]) {
        let query = "select a from unnest($1::text[]) as a
                     where not exists (select from runs where id = a::uuid and finished_at is not null)";
        let lost: Vec<String> = sqlx::query_scalar(query)
            .bind(accepted)
            .fetch_all(self.database.pool())
            .await
            .expect("the database answers");
        assert!(lost.is_empty(), "accepted, and not ended: {lost:?}");
    }

    /// Ends the test: fails it when work is left over or was recorded twice, when a process has ended or panicked,
    /// or does not stop in an orderly way.
    pub async fn finish(mut self) {
        self.drain(PATIENCE).await;
        self.check_members();
        self.check_queues().await;
        self.terminate().await;
        let wrongs = wrongs(&self.database).await;
        assert!(wrongs.is_empty(), "left over:\n{}", wrongs.join("\n"));
    }

    fn check_members(&mut self) {
        for member in &mut self.members {
            let name = member.process.name().to_owned();
            if !member.dismissed
                && let Some(status) = member.process.ended()
            {
                panic!("{name} has ended: {status}");
            }
            let log = member.process.log();
            let panic = log
                .lines()
                .find(|line| line.contains("panicked at") && !line.contains("node panicked"));
            assert!(panic.is_none(), "{name} panicked: {panic:?}");
        }
    }

    /// Acks follow commits, so they are waited for.
    async fn check_queues(&self) {
        let queue = self.queue();
        eventually(PATIENCE, "the lane to be empty", async || {
            match self.broker.ready(&queue).await {
                Some(0) | None => Ok(()),
                Some(count) => Err(format!("{count} messages in {queue}")),
            }
        })
        .await;
    }

    async fn terminate(&mut self) {
        let running: Vec<_> = self.members.iter_mut().filter(|member| !member.dismissed).collect();
        for member in &running {
            member.process.terminate();
        }
        for member in running {
            let status = member.process.exit(PATIENCE).await;
            assert!(
                status.success(),
                "{} ended with {status} after SIGTERM",
                member.process.name()
            );
            member.dismissed = true;
        }
    }
}

impl Drop for TestFleet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_what_was_under_way();
        }
        for member in &mut self.members {
            member.process.kill();
        }
        if std::thread::panicking() {
            self.show_logs();
        } else {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
        let (broker, lanes) = (self.broker.clone(), lanes(&self.options.lanes));
        aside(async move { broker.remove_all(&lanes).await });
    }
}

impl TestFleet {
    fn show_what_was_under_way(&self) {
        let (url, broker, queue) =
            (self.database.url().to_owned(), self.broker.clone(), self.queue());
        let shown = aside(async move {
            let shown = under_way(&url).await;
            let shown = shown.unwrap_or_else(|error| format!("the database does not say: {error}"));
            format!("{shown}{queue}: {:?} messages ready", broker.ready(&queue).await)
        });
        eprintln!("──── under way ────\n{}", shown.unwrap_or_default());
    }

    fn show_logs(&self) {
        for member in &self.members {
            let (name, log) = (member.process.name(), member.process.log());
            eprintln!("──── {name} ────\n{}", tail(&log, 60));
        }
        eprintln!("──── whole logs: {}", self.folder.display());
    }
}

/// The names in `default=48,gpu=16`, and `default`.
fn lanes(setting: &str) -> Vec<String> {
    let mut lanes: Vec<_> = setting
        .split(',')
        .filter_map(|lane| lane.split('=').next())
        .map(|lane| lane.trim().to_owned())
        .collect();
    if !lanes.iter().any(|lane| lane == "default") {
        lanes.push("default".to_owned());
    }
    lanes
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
