//! PostgreSQL and RabbitMQ: those that all tests share, and private ones that a test may break.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use tokio::process::Command;
use tokio::sync::OnceCell;

/// Where servers listen.
#[derive(Debug, Clone)]
pub struct Servers {
    /// `DATABASE_URL`: the server's maintenance database, in which tests create their own.
    pub database_url: String,
    /// `AMQP_URL`.
    pub amqp_url: String,
    /// RabbitMQ's management API, where it is known.
    pub management_url: Option<String>,
}

impl Servers {
    /// The servers that `DATABASE_URL` and `AMQP_URL` name, else the project's own, started if need be.
    pub async fn shared() -> Self {
        static SHARED: OnceCell<Servers> = OnceCell::const_new();
        SHARED.get_or_init(Self::find).await.clone()
    }

    async fn find() -> Self {
        let given = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        if let (Some(database_url), Some(amqp_url)) = (given("DATABASE_URL"), given("AMQP_URL")) {
            return Self {
                database_url,
                amqp_url,
                management_url: given("RABBITMQ_MANAGEMENT_URL"),
            };
        }
        services(None, ["up"]).await;
        let names = services(None, ["env"]).await;
        Self {
            database_url: exported(&names, "DATABASE_URL")
                .expect("`scripts/services env` names the database"),
            amqp_url: exported(&names, "AMQP_URL")
                .expect("`scripts/services env` names the broker"),
            management_url: exported(&names, "RABBITMQ_MANAGEMENT_URL"),
        }
    }

    /// The same, with another PostgreSQL.
    #[must_use]
    pub fn with_postgres(self, postgres: &PrivatePostgres) -> Self {
        Self { database_url: postgres.url(), ..self }
    }

    /// The same, with another RabbitMQ.
    #[must_use]
    pub fn with_rabbit(self, rabbit: &PrivateRabbit) -> Self {
        Self { amqp_url: rabbit.url(), management_url: Some(rabbit.management_url()), ..self }
    }
}

/// A PostgreSQL that only this test uses, so that it may be killed, frozen and restarted.
#[derive(Debug)]
pub struct PrivatePostgres(Private);

impl PrivatePostgres {
    /// Creates and starts one.
    pub async fn start() -> Self {
        Self(Private::start("postgres").await)
    }

    /// Its address.
    pub fn url(&self) -> String {
        self.0.exported("DATABASE_URL")
    }
}

impl std::ops::Deref for PrivatePostgres {
    type Target = Private;

    fn deref(&self) -> &Private {
        &self.0
    }
}

/// A RabbitMQ that only this test uses, so that it may be killed, frozen and restarted.
#[derive(Debug)]
pub struct PrivateRabbit(Private);

impl PrivateRabbit {
    /// Creates and starts one.
    pub async fn start() -> Self {
        Self(Private::start("rabbitmq").await)
    }

    /// Its address.
    pub fn url(&self) -> String {
        self.0.exported("AMQP_URL")
    }

    /// The address of its console and management API.
    pub fn management_url(&self) -> String {
        self.0.exported("RABBITMQ_MANAGEMENT_URL")
    }

    /// Runs `rabbitmqctl` against it.
    pub async fn ctl(&self, arguments: &[&str]) -> String {
        let mut words = vec!["rabbitmqctl"];
        words.extend(arguments);
        services(Some(&self.0.folder), words).await
    }
}

impl std::ops::Deref for PrivateRabbit {
    type Target = Private;

    fn deref(&self) -> &Private {
        &self.0
    }
}

/// A server in a folder of its own, removed at drop; kept when the test has failed, for its
/// log says what the fleet's cannot.
#[derive(Debug)]
pub struct Private {
    server: &'static str,
    folder: PathBuf,
    environment: String,
}

impl Private {
    async fn start(server: &'static str) -> Self {
        let folder =
            std::env::temp_dir().join(format!("gathering-{server}-{:08x}", rand::random::<u32>()));
        let mut private = Self { server, folder, environment: String::new() };
        private.run("up").await;
        private.environment = private.run("env").await;
        private
    }

    async fn run(&self, command: &str) -> String {
        services(Some(&self.folder), [command, self.server]).await
    }

    fn exported(&self, name: &str) -> String {
        exported(&self.environment, name)
            .unwrap_or_else(|| panic!("`scripts/services env` does not name {name}"))
    }

    /// Ends it as a power cut would.
    pub async fn kill(&self) {
        self.run("kill").await;
    }

    /// Halts it.
    pub async fn freeze(&self) {
        self.run("freeze").await;
    }

    /// Lets it go on.
    pub async fn thaw(&self) {
        self.run("thaw").await;
    }

    /// Stops it in an orderly way.
    pub async fn stop(&self) {
        self.run("down").await;
    }

    /// Starts it again, with its data and on its ports.
    pub async fn up(&self) {
        self.run("up").await;
    }

    /// Stops and starts it.
    pub async fn restart(&self) {
        self.run("restart").await;
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        // Killed first: nobody needs its data, and an orderly stop takes seconds.
        let commands: &[&str] = if failed { &["kill"] } else { &["kill", "reset"] };
        for command in commands {
            let _ = std::process::Command::new(script())
                .args([*command, self.server])
                .env("GATHERING_SERVICES_DIR", &self.folder)
                .output();
        }
        if failed {
            eprintln!("──── {} is kept, log and data: {}", self.server, self.folder.display());
            return;
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn script() -> PathBuf {
    workspace().join("scripts/services")
}

/// The root of the checkout.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package lies in the workspace")
}

async fn services<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(
    folder: Option<&Path>,
    arguments: I,
) -> String {
    let mut command = Command::new(script());
    command.args(arguments);
    if let Some(folder) = folder {
        command.env("GATHERING_SERVICES_DIR", folder);
    }
    let output = command.output().await.expect("scripts/services can be run");
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "scripts/services failed:\n{out}{err}");
    out.into_owned()
}

/// The value of one line `export NAME=value`.
fn exported(lines: &str, name: &str) -> Option<String> {
    let value = lines
        .lines()
        .find_map(|line| line.strip_prefix("export ")?.strip_prefix(name)?.strip_prefix('='))?;
    Some(value.trim_matches(['\'', '"']).replace('\\', ""))
}
