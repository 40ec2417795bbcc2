//! A connection of its own, never from a pool, that holds an advisory lock: who holds it lives as long as it does.

use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};

/// A server that does not answer for this long is taken for gone.
const PATIENCE: Duration = Duration::from_secs(4);

/// Settings by which the server ends a session, and frees its locks, soon after it has lost the one who held it.
pub(super) const BOUNDS: [(&str, &str); 7] = [
    ("idle_session_timeout", "10s"),
    ("idle_in_transaction_session_timeout", "5s"),
    ("statement_timeout", "5s"),
    ("tcp_keepalives_idle", "3"),
    ("tcp_keepalives_interval", "1"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "6000"),
];

/// How a session was lost.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// The server said so, or the connection broke.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// The server did not answer.
    #[error("the server did not answer within {} s", PATIENCE.as_secs())]
    Silent(#[from] tokio::time::error::Elapsed),
}

/// The session.
#[derive(Debug)]
pub struct Session {
    conn: PgConnection,
}

impl Session {
    /// Connects with settings by which the server ends the session when this process hangs or is cut off, within 10 s
    /// or so.
    pub async fn open(options: &PgConnectOptions) -> Result<Self, Lost> {
        let options = options.clone().options(BOUNDS);
        let conn = tokio::time::timeout(PATIENCE, options.connect()).await??;
        Ok(Self { conn })
    }

    /// The connection.
    pub fn conn(&mut self) -> &mut PgConnection {
        &mut self.conn
    }

    /// A sign of life; any statement is one, too. It has to come every 2 s or so.
    pub async fn ping(&mut self) -> Result<(), Lost> {
        Ok(tokio::time::timeout(PATIENCE, self.conn.ping()).await??)
    }

    /// Says good-bye: the locks are free when this returns.
    pub async fn close(self) -> Result<(), Lost> {
        Ok(tokio::time::timeout(PATIENCE, self.conn.close()).await??)
    }

    /// Drops the socket, without a good-bye that could hang.
    pub async fn drop_hard(self) {
        let _ = tokio::time::timeout(Duration::from_millis(100), self.conn.close_hard()).await;
    }
}
