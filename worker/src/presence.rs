//! The worker is alive as long as its Postgres session is: it holds an advisory lock on its own id, over a connection
//! of its own, and claims only while it holds it.

use std::time::Duration;

use common::own::{Own, Taken};
use common::retry::Reconnect;
use common::store::session::{Lost, Session};
use common::store::{self, workers};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The server ends the session after 10 s of silence: each ping is a sign of life.
const PING: Duration = Duration::from_secs(2);

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

    /// A connection to claim over, taken while the lock is held.
    pub(crate) async fn held_with(&self, own: &Own) -> Result<Taken, store::Error> {
        loop {
            // The sender lives as long as the process claims anything.
            let _ = self.held.clone().wait_for(|held| *held).await;
            let conn = own.take().await?;
            // Connecting may have taken a while.
            if self.is_held() {
                return Ok(conn);
            }
            conn.keep();
        }
    }
}

/// Keeps the lock until `gone`, taking it anew whenever the session is lost.
pub(crate) fn keep(
    options: store::Options,
    who: workers::Presence,
    gone: CancellationToken,
) -> (Presence, JoinHandle<()>) {
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
    options: &store::Options,
    who: &workers::Presence,
    held: &watch::Sender<bool>,
    gone: &CancellationToken,
) -> Result<(), Lost> {
    let mut session = Session::open(options).await?;
    match stay(&mut session, who, held, gone).await {
        Ok(()) => session.close().await,
        Err(lost) => {
            session.drop_hard().await;
            Err(lost)
        }
    }
}

async fn stay(
    session: &mut Session,
    who: &workers::Presence,
    held: &watch::Sender<bool>,
    gone: &CancellationToken,
) -> Result<(), Lost> {
    // An old session of this process may hold the lock still: the server is about to end it.
    while !workers::appear(session.conn(), who).await? {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    held.send_replace(true);
    loop {
        tokio::select! {
            () = tokio::time::sleep(PING) => session.ping().await?,
            () = gone.cancelled() => return Ok(workers::leave(session.conn(), who.id).await?),
        }
    }
}
