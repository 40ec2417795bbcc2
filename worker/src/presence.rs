//! The worker is alive as long as its Postgres session is: it holds an advisory lock on its own id, over a connection
//! of its own, and claims only while it holds it.

use std::time::Duration;

use common::retry::Reconnect;
use common::store::{self, workers};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The session is dropped by the server after 10 s of silence: each ping is a sign of life.
const PING: Duration = Duration::from_secs(2);
/// A server that does not answer for this long is taken for gone.
const PATIENCE: Duration = Duration::from_secs(4);

/// Whether the lock is held.
#[derive(Debug, Clone)]
pub(crate) struct Presence {
    held: watch::Receiver<bool>,
}

impl Presence {
    /// Whether the lock is held right now, as far as is known.
    pub(crate) fn is_held(&self) -> bool {
        *self.held.borrow()
    }

    /// Waits until it is held.
    pub(crate) async fn held(&self) {
        // The sender lives as long as the process claims anything.
        let _ = self.held.clone().wait_for(|held| *held).await;
    }
}

/// Keeps the lock until `gone`, taking it anew whenever the session is lost.
pub(crate) fn keep(
    options: PgConnectOptions,
    who: workers::Presence,
    gone: CancellationToken,
) -> (Presence, tokio::task::JoinHandle<()>) {
    let (held, receiver) = watch::channel(false);
    let task = tokio::spawn(async move {
        let mut reconnect = Reconnect::new();
        while !gone.is_cancelled() {
            match hold(&options, &who, &held, &gone).await {
                Ok(()) => break,
                Err(error) => {
                    if held.send_replace(false) {
                        tracing::warn!(%error, "the worker's lock is lost; it claims nothing until it has it again");
                        reconnect.reset();
                    } else {
                        tracing::info!(%error, "waiting for Postgres, to take the worker's lock");
                    }
                    tokio::time::sleep(reconnect.wait()).await;
                }
            }
        }
        held.send_replace(false);
    });
    (Presence { held: receiver }, task)
}

async fn hold(
    options: &PgConnectOptions,
    who: &workers::Presence,
    held: &watch::Sender<bool>,
    gone: &CancellationToken,
) -> anyhow::Result<()> {
    let options = store::lock_session(options.clone());
    let mut conn = tokio::time::timeout(PATIENCE, options.connect()).await??;
    let lost = loop {
        let taken = tokio::time::timeout(PATIENCE, workers::appear(&mut conn, who)).await;
        match taken {
            Ok(Ok(true)) => break None,
            // The old session is about to be ended by the server.
            Ok(Ok(false)) => tokio::time::sleep(Duration::from_millis(200)).await,
            Ok(Err(error)) => break Some(anyhow::Error::from(error)),
            Err(elapsed) => break Some(elapsed.into()),
        }
    };
    if let Some(error) = lost {
        drop_hard(conn).await;
        return Err(error);
    }
    held.send_replace(true);
    loop {
        tokio::select! {
            () = tokio::time::sleep(PING) => {}
            () = gone.cancelled() => {
                workers::leave(&mut conn, who.id).await?;
                conn.close().await?;
                return Ok(());
            }
        }
        let pong = tokio::time::timeout(PATIENCE, conn.ping()).await;
        let lost = match pong {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => anyhow::Error::from(error),
            Err(elapsed) => elapsed.into(),
        };
        drop_hard(conn).await;
        return Err(lost);
    }
}

/// Without a good-bye that could hang.
async fn drop_hard(conn: PgConnection) {
    let _ = tokio::time::timeout(Duration::from_millis(100), conn.close_hard()).await;
}
