//! A migrated database for each test.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::Url;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection, PgPool};

use crate::aside::aside;
use crate::process::{binary, command};
use crate::servers::workspace;

/// A database of one test, dropped at the end.
#[derive(Debug)]
pub struct Database {
    server: String,
    name: String,
    url: String,
    pool: PgPool,
}

impl Database {
    /// Creates one on a server, from a template that is migrated once for each state of `migrations/`.
    pub async fn create(server: &str) -> Self {
        let mut connection = connect(server).await;
        let template = template(&mut connection, server).await;
        let name = format!("gathering_test_{}_{:08x}", seconds(), rand::random::<u32>());
        run(&mut connection, format!("create database {name} template {template}")).await;
        let url = renamed(server, &name);
        let options: PgConnectOptions = url.parse().expect("a database's URL is one");
        let pool = PgPoolOptions::new().max_connections(4).acquire_timeout(Duration::from_secs(10));
        Self { server: server.to_owned(), name, pool: pool.connect_lazy_with(options), url }
    }

    /// Its `DATABASE_URL`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Connections to look into it.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// The only number that a query returns.
    pub async fn count(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query)
            .fetch_one(&self.pool)
            .await
            .unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    /// Moves the acceptance and the end of runs into the past, `by` an interval, where `which` holds.
    pub async fn age_runs(&self, by: &str, which: &str) -> u64 {
        let times =
            ["created_at", "finished_at"].map(|time| format!("{time} = {time} - interval '{by}'"));
        self.execute(&format!("update runs set {} where {which}", times.join(", "))).await
    }

    /// Runs one statement, and says how many rows it touched.
    pub async fn execute(&self, statement: &str) -> u64 {
        let done = sqlx::query(AssertSqlSafe(statement.to_owned())).execute(&self.pool).await;
        done.unwrap_or_else(|error| panic!("{statement}: {error}")).rows_affected()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        aside(async move {
            // A server that the test has broken for good takes its databases along.
            let mut connection = options(&server).connect().await.ok()?;
            let drop = AssertSqlSafe(format!("drop database if exists {name} with (force)"));
            sqlx::query(drop).execute(&mut connection).await.ok()
        });
    }
}

/// The name of the migrated template; made now if it is missing.
async fn template(connection: &mut PgConnection, server: &str) -> String {
    let hash = hash_of_migrations();
    let name = format!("gathering_template_{hash:016x}");
    sqlx::query("select pg_advisory_lock($1)")
        .bind(hash.cast_signed())
        .execute(&mut *connection)
        .await
        .expect("locked");
    let exists = sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
        .bind(&name);
    let exists: bool = exists.fetch_one(&mut *connection).await.expect("catalogues can be read");
    if !exists {
        sweep(connection).await;
        let new = format!("{name}_new");
        run(connection, format!("drop database if exists {new} with (force)")).await;
        run(connection, format!("create database {new}")).await;
        migrate(&renamed(server, &new)).await;
        run(connection, format!("alter database {new} rename to {name}")).await;
    }
    sqlx::query("select pg_advisory_unlock($1)")
        .bind(hash.cast_signed())
        .execute(connection)
        .await
        .expect("unlocked");
    name
}

/// Applies the migrations as an operator does.
async fn migrate(url: &str) {
    let mut migrate = command(&binary("gathering-api"));
    migrate.arg("migrate").env("DATABASE_URL", url);
    let output = tokio::process::Command::from(migrate).output().await;
    let output = output.unwrap_or_else(|error| {
        panic!("gathering-api does not start ({error}); build the binaries")
    });
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`gathering-api migrate` failed:\n{said}");
    // A template that is empty would spoil all tests to come.
    let migrated = sqlx::query("select from runs").execute(&mut connect(url).await).await;
    assert!(migrated.is_ok(), "`gathering-api migrate` has laid nothing down:\n{said}");
}

/// Drops what tests that were killed have left: databases older than an hour.
async fn sweep(connection: &mut PgConnection) {
    let names: Vec<String> =
        sqlx::query_scalar("select datname from pg_database where datname like 'gathering_test_%'")
            .fetch_all(&mut *connection)
            .await
            .expect("catalogues can be read");
    for name in names {
        let made_at = name
            .strip_prefix("gathering_test_")
            .and_then(|rest| rest.split('_').next()?.parse().ok());
        if made_at.is_some_and(|made_at: u64| made_at + 3600 < seconds()) {
            // Someone else may be dropping or using it.
            let drop = AssertSqlSafe(format!("drop database if exists {name}"));
            let _ = sqlx::query(drop).execute(&mut *connection).await;
        }
    }
}

fn hash_of_migrations() -> u64 {
    let mut files: Vec<_> = std::fs::read_dir(workspace().join("migrations"))
        .expect("there are migrations")
        .map(|entry| entry.expect("the folder can be read").path())
        .collect();
    files.sort();
    let mut hasher = DefaultHasher::new();
    for file in files {
        file.file_name().hash(&mut hasher);
        std::fs::read(file).expect("a migration can be read").hash(&mut hasher);
    }
    hasher.finish()
}

fn options(url: &str) -> PgConnectOptions {
    url.parse().expect("DATABASE_URL is a URL of PostgreSQL")
}

/// A session with a server that is there.
async fn connect(url: &str) -> PgConnection {
    options(url)
        .connect()
        .await
        .unwrap_or_else(|error| panic!("no session with the test's PostgreSQL: {error}"))
}

async fn run(connection: &mut PgConnection, statement: String) {
    let said = statement.clone();
    let done = sqlx::query(AssertSqlSafe(statement)).execute(connection).await;
    done.unwrap_or_else(|error| panic!("{said}: {error}"));
}

/// The same server, another database.
fn renamed(url: &str, database: &str) -> String {
    let mut url = Url::parse(url).expect("DATABASE_URL is a URL");
    url.set_path(database);
    url.into()
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map(|age| age.as_secs()).unwrap_or_default()
}
