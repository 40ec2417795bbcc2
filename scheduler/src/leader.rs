//! Election: one scheduler leads, the others stand by.
//!
//! The leader holds a session advisory lock over a connection of its own. Whatever goes wrong on that connection ends
//! its leadership: it drops the socket and stands by again. It never waits for a farewell, which might hang.

use std::future::Future;
use std::time::{Duration, Instant};

use common::retry::Reconnect;
use common::store::leader::{Address, LeaderError, Session};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::agenda::Agenda;
use crate::duty::{Desk, Duty};
use crate::post::Post;

/// What a statement, or a duty's slice, may take.
const PATIENCE: Duration = Duration::from_secs(4);
/// How often a leader makes itself heard, whatever its duties do: the server ends a session that idles for 10 s.
const PING: Duration = Duration::from_secs(2);
/// How often a standby asks for the lock.
const TRY: Duration = Duration::from_secs(1);

/// A scheduler that wants to lead.
pub struct Candidate<D> {
    /// PostgreSQL, directly.
    pub address: Address,
    /// What the `leader` row calls it.
    pub name: String,
    /// The way to the broker.
    pub post: Post,
    /// When the database last answered.
    pub heard: watch::Sender<Option<Instant>>,
    /// The duties, as a new leader takes them up.
    pub duties: D,
}

/// Why a leader is one no longer, or a candidate not yet.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Session(#[from] LeaderError),
    #[error("the database did not answer within {} s", PATIENCE.as_secs())]
    Silence,
}

async fn patiently<T>(answer: impl Future<Output = Result<T, LeaderError>>) -> Result<T, Ended> {
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Ended::Silence),
    }
}

impl<D: Fn() -> Vec<Box<dyn Duty>>> Candidate<D> {
    /// Stands by, leads, and stands by again, until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.run_forever()).await;
        metrics::gauge!("gathering_leader").set(0.0);
    }

    async fn run_forever(&mut self) {
        let mut reconnect = Reconnect::new();
        let mut complaint = String::new();
        loop {
            metrics::gauge!("gathering_leader").set(0.0);
            match self.stand_by(&mut reconnect, &mut complaint).await {
                Ok((mut session, epoch)) => {
                    tracing::info!(epoch, name = self.name, "elected: leading");
                    metrics::gauge!("gathering_leader").set(1.0);
                    metrics::counter!("gathering_elections_total").increment(1);
                    let ended = self.lead(&mut session).await;
                    tracing::warn!(epoch, name = self.name, why = %ended, "stepped down: standing by");
                }
                Err(ended) => complain(&mut complaint, &ended),
            }
            tokio::time::sleep(reconnect.wait()).await;
        }
    }

    /// Asks for the lock until it is won.
    async fn stand_by(
        &self,
        reconnect: &mut Reconnect,
        complaint: &mut String,
    ) -> Result<(Session, i64), Ended> {
        let mut session = patiently(Session::open(&self.address)).await?;
        loop {
            let won = patiently(session.campaign(&self.name)).await?;
            self.heard.send_replace(Some(Instant::now()));
            reconnect.reset();
            complaint.clear();
            if let Some(epoch) = won {
                return Ok((session, epoch));
            }
            tokio::time::sleep(TRY).await;
        }
    }

    /// Does one duty after the other, the one that is longest due first, until the session fails.
    async fn lead(&mut self, session: &mut Session) -> Ended {
        self.post.clear();
        let mut agenda = Agenda::new((self.duties)(), Instant::now());
        let mut pinged_at = Instant::now();
        let mut pulse = None;
        loop {
            let turn = agenda.next();
            tokio::time::sleep_until(turn.due_at().min(pinged_at + PING).into()).await;
            if pinged_at.elapsed() >= PING {
                if let Err(ended) = patiently(session.ping()).await {
                    return ended;
                }
                pinged_at = Instant::now();
                self.heard.send_replace(Some(pinged_at));
                continue;
            }
            let started = Instant::now();
            metrics::histogram!("gathering_leader_lag_seconds", "duty" => turn.name())
                .record(started.duration_since(turn.due_at()).as_secs_f64());
            let post = &mut self.post;
            let mut desk = Desk { session: &mut *session, post, pulse: &mut pulse };
            match patiently(turn.duty().step(&mut desk)).await {
                Ok(rest) => turn.done(Instant::now() + rest),
                Err(Ended::Session(error)) if error.is_refusal() => {
                    tracing::error!(duty = turn.name(), %error, "a duty failed; it is tried again");
                    metrics::counter!("gathering_duty_failures_total", "duty" => turn.name())
                        .increment(1);
                    turn.failed(Instant::now());
                }
                Err(ended) => return ended,
            }
            metrics::histogram!("gathering_duty_seconds", "duty" => turn.name())
                .record(started.elapsed().as_secs_f64());
        }
    }
}

/// Says what is waited for, once, and again when it changes.
fn complain(complaint: &mut String, ended: &Ended) {
    let text = ended.to_string();
    if *complaint == text {
        return;
    }
    match ended {
        Ended::Session(LeaderError::Pooled) => tracing::error!("{text}"),
        Ended::Session(error) if error.is_unmigrated() => {
            tracing::warn!(%error, "waiting for the schema: `gathering-api migrate` lays it down");
        }
        _ => tracing::warn!(error = text, "waiting for the database"),
    }
    *complaint = text;
}
