//! All SQL: free functions named by intent, which take the caller's connection, so that the caller owns the
//! transaction. One file a table or a step of a run's life.

use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

pub mod accept;
pub mod api_keys;
pub mod audit;
pub mod audit_events;
pub mod breakers;
pub mod claim;
pub mod dead_letters;
pub mod definitions;
pub mod events;
pub mod fleet;
pub mod follow;
pub mod idempotency;
pub mod lanes;
pub mod leader;
pub mod leftover;
pub mod mine;
pub mod node_logs;
pub mod nodes;
pub mod open_runs;
pub mod outputs;
pub mod pipelines;
pub mod principals;
pub mod probes;
pub mod prune;
pub mod pulse;
pub mod reclaim;
pub mod record;
pub mod remote;
mod requeue;
pub mod rerun;
pub mod runs;
pub mod schedules;
pub mod secrets;
pub mod session;
pub mod start;
pub mod stop;
pub mod sweep;
pub mod timers;
pub mod tokens;
pub mod users;
pub mod verdict;
pub mod waits;
pub mod workers;
pub mod write;

pub use sqlx::postgres::PgConnectOptions as Options;
pub use sqlx::{Connection as Connects, Error, PgConnection as Connection};

/// The shared connections of a process.
pub type Pool = sqlx::PgPool;
/// A transaction on one of them; rolled back when it is dropped.
pub type Transaction = sqlx::Transaction<'static, sqlx::Postgres>;

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// A pool that connects when it is first asked, so that an absent server is no error yet. A connection is asked whether
/// it lives before it is used: after a restart of the server all are gone, and each would fail somebody.
pub fn connect(options: PgConnectOptions, max_connections: u32) -> Pool {
    PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(std::time::Duration::from_secs(5))
        .connect_lazy_with(options)
}

/// Applies the migrations that are missing; two at a time wait for each other.
pub async fn migrate(pool: &Pool) -> Result<(), sqlx::migrate::MigrateError> {
    MIGRATIONS.run(pool).await
}

/// Whether every migration that this program knows has been applied.
pub async fn is_migrated(pool: &Pool) -> Result<bool, sqlx::Error> {
    let wanted = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0);
    let known: bool = sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null")
        .fetch_one(pool)
        .await?;
    if !known {
        return Ok(false);
    }
    let newest: Option<i64> =
        sqlx::query_scalar("select max(version) from _sqlx_migrations where success")
            .fetch_one(pool)
            .await?;
    Ok(newest.is_some_and(|newest| newest >= wanted))
}

/// Whether the database is away, or refuses everybody, so that trying again later can help. The commit that met it
/// may or may not have happened.
pub fn is_outage(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(refusal) => refusal.code().is_some_and(|code| {
            // Connection exceptions, insufficient resources, operator intervention (57014 is a cancelled statement),
            // system errors, a read-only server (a standby).
            code.starts_with("08")
                || code.starts_with("53")
                || code.starts_with("57")
                || code.starts_with("58")
                || code == "25006"
        }),
        _ => false,
    }
}

/// Whether two transactions met in a way that the next try resolves: a deadlock, or a serialisation failure.
pub fn is_conflict(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .and_then(|refusal| refusal.code())
        .is_some_and(|code| code == "40P01" || code == "40001")
}

/// The session settings of the hot paths: every statement there finds its rows by key, and each is planned once.
pub fn keyed(options: PgConnectOptions) -> PgConnectOptions {
    options.options([
        ("plan_cache_mode", "force_generic_plan"),
        ("enable_seqscan", "off"),
        ("enable_hashjoin", "off"),
        ("enable_mergejoin", "off"),
        ("jit", "off"),
    ])
}

/// Whether the database answers.
pub async fn answers(pool: &Pool) -> Result<(), sqlx::Error> {
    sqlx::query("select 1").execute(pool).await.map(|_| ())
}

/// Waits until the database is there and its schema is the one that this program knows, with back-off, and says what
/// it waits for.
pub async fn wait_until_migrated(pool: &Pool) {
    let mut reconnect = crate::retry::Reconnect::new();
    loop {
        match is_migrated(pool).await {
            Ok(true) => return,
            Ok(false) => tracing::info!("waiting for the schema: run `gathering-api migrate`"),
            Err(error) => tracing::info!(%error, "waiting for Postgres"),
        }
        tokio::time::sleep(reconnect.wait()).await;
    }
}
