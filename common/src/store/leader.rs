//! Leadership: a session that holds an advisory lock, and an epoch that each of the leader's transactions checks.

use std::borrow::Cow;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection, Postgres, Transaction};

use super::session::BOUNDS;

/// The key of the lock that the leader's session holds.
const LOCK_KEY: i64 = 0x6761_7468_6572_0001;

/// Why a session cannot lead, or a duty's transaction did not happen.
#[derive(Debug, thiserror::Error)]
pub enum LeaderError {
    /// The connection does not keep one session.
    #[error(
        "DATABASE_DIRECT_URL does not keep a session: it seems to lead through a pooler in transaction mode \
         (PgBouncer, for example). Name the address of PostgreSQL itself, or of a pool in session mode"
    )]
    Pooled,
    /// The epoch is another's.
    #[error("another leader has been elected")]
    Superseded,
    /// The database failed, or refused a statement.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
}

impl LeaderError {
    /// Whether only the statement failed, while the session, and the lock with it, lives on.
    pub fn is_refusal(&self) -> bool {
        let Self::Sql(sqlx::Error::Database(refusal)) = self else {
            return matches!(self, Self::Sql(error) if is_about_rows(error));
        };
        refusal.code().is_some_and(|code| {
            // Connection exceptions; operator intervention and ended sessions (57014, a cancelled statement, is
            // none of them); a transaction that idled too long; a server that only reads.
            !code.starts_with("08")
                && (!code.starts_with("57") || code == "57014")
                && code != "25P03"
                && code != "25006"
        })
    }

    /// Whether two transactions met in a way that the next try resolves: a deadlock, or a serialisation failure.
    pub fn is_conflict(&self) -> bool {
        self.code().is_some_and(|code| code == "40P01" || code == "40001")
    }

    fn code(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Sql(error) => error.as_database_error().and_then(|refusal| refusal.code()),
            Self::Pooled | Self::Superseded => None,
        }
    }

    /// Whether the schema is not there yet.
    pub fn is_unmigrated(&self) -> bool {
        self.code().is_some_and(|code| code == "42P01" || code == "42703")
    }
}

/// Errors of what was read, not of the connection that it was read from.
fn is_about_rows(error: &sqlx::Error) -> bool {
    matches!(
        error,
        sqlx::Error::RowNotFound
            | sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::Decode(_)
            | sqlx::Error::Encode(_)
    )
}

/// PostgreSQL without a pooler in between, and the name that its views show for the session.
#[derive(Clone)]
pub struct Address(PgConnectOptions);

impl Address {
    /// Reads a `postgres://` address.
    pub fn parse(url: &str, application_name: &str) -> Result<Self, sqlx::Error> {
        let options: PgConnectOptions = url.parse()?;
        Ok(Self(options.application_name(application_name).disable_statement_logging()))
    }
}

/// A connection of its own, never a pool's. Dropping it closes the socket at once, without a farewell that may hang.
#[derive(Debug)]
pub struct Session {
    conn: PgConnection,
    backend: i32,
    epoch: i64,
}

impl Session {
    /// Connects, and makes sure that the connection keeps its session.
    pub async fn open(address: &Address) -> Result<Self, LeaderError> {
        let mut conn = PgConnection::connect_with(&address.0).await?;
        let backend = keeps_session(&mut conn, &address.0).await?;
        bound(&mut conn).await?;
        Ok(Self { conn, backend, epoch: 0 })
    }

    /// Asks for the lock, and raises the epoch when it is won: the answer is the new epoch.
    pub async fn campaign(&mut self, holder: &str) -> Result<Option<i64>, LeaderError> {
        self.ping().await?;
        let won = sqlx::query_scalar!(r#"select pg_try_advisory_lock($1) as "won!""#, LOCK_KEY)
            .fetch_one(&mut self.conn)
            .await?;
        if !won {
            return Ok(None);
        }
        self.epoch = sqlx::query_scalar!(
            "update leader set epoch = epoch + 1, holder = $1, elected_at = clock_timestamp() returning epoch",
            holder
        )
        .fetch_one(&mut self.conn)
        .await?;
        Ok(Some(self.epoch))
    }

    /// Keeps the session from idling, and notices when the connection has come to lead to another.
    pub async fn ping(&mut self) -> Result<(), LeaderError> {
        match backend(&mut self.conn).await? {
            backend if backend == self.backend => Ok(()),
            _ => Err(LeaderError::Pooled),
        }
    }

    /// A transaction of the leader: no other can be elected before it ends.
    pub async fn begin(&mut self) -> Result<Transaction<'_, Postgres>, LeaderError> {
        let mut tx = self.conn.begin().await?;
        sqlx::query_scalar!(
            r#"select true as "mine!" from leader where epoch = $1 and pg_backend_pid() = $2 for share"#,
            self.epoch,
            self.backend
        )
        .fetch_optional(&mut *tx)
        .await?
        .ok_or(LeaderError::Superseded)?;
        Ok(tx)
    }

    /// For reading outside of a transaction.
    pub fn reader(&mut self) -> &mut PgConnection {
        &mut self.conn
    }
}

/// A pooler in transaction mode hands the same backend to two connections, or several to one.
async fn keeps_session(
    conn: &mut PgConnection,
    options: &PgConnectOptions,
) -> Result<i32, LeaderError> {
    let mine = backend(conn).await?;
    let again = backend(conn).await?;
    let mut other = PgConnection::connect_with(options).await?;
    let theirs = backend(&mut other).await?;
    let still = backend(conn).await?;
    drop(other);
    if mine == again && mine == still && mine != theirs {
        Ok(mine)
    } else {
        Err(LeaderError::Pooled)
    }
}

async fn backend(conn: &mut PgConnection) -> Result<i32, sqlx::Error> {
    sqlx::query_scalar!(r#"select pg_backend_pid() as "backend!""#).fetch_one(conn).await
}

/// Not as options of the connection, which a pooler refuses with less to say.
async fn bound(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    let (names, settings): (Vec<String>, Vec<String>) =
        BOUNDS.iter().map(|(name, setting)| ((*name).to_owned(), (*setting).to_owned())).unzip();
    sqlx::query_scalar!(
        r#"select set_config(name, setting, false) as "set!"
           from unnest($1::text[], $2::text[]) as bounds (name, setting)"#,
        &names,
        &settings
    )
    .fetch_all(conn)
    .await?;
    Ok(())
}
