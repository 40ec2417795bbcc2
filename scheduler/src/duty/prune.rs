//! Forgets what has served long enough.

use std::time::{Duration, Instant};

use common::store::leader::LeaderError;
use common::store::{audit, dead_letters, probes, prune};
use futures::FutureExt;
use futures::future::BoxFuture;
use uuid::Uuid;

use super::audit::looks::Looks;
use super::slice::Slice;
use super::{Desk, Duty};

const REST: Duration = Duration::from_secs(60);
/// So that a long clean-up leaves room to the other duties, and to the fleet.
const BREATH: Duration = Duration::from_millis(20);

/// What is next.
#[derive(Clone, Copy)]
enum Stage {
    Runs,
    Fires,
    Answers,
    Tokens,
    AuditEvents,
    Workers,
}

/// Once a minute, goes through all that is kept for a time.
pub struct Prune {
    retention: Duration,
    audit_retention: Duration,
    stage: Stage,
    /// The next slice of runs begins after this one.
    after: Uuid,
    slice: Slice,
    unlocked: Looks<Uuid>,
}

impl Prune {
    /// Keeps runs for `retention` after their end, and security events for `audit_retention`.
    pub fn new(retention: Duration, audit_retention: Duration) -> Self {
        let slice = Slice::up_to(2_000);
        Self {
            retention,
            audit_retention,
            stage: Stage::Runs,
            after: Uuid::nil(),
            slice,
            unlocked: Looks::default(),
        }
    }
}

impl Duty for Prune {
    fn name(&self) -> &'static str {
        "prune"
    }

    fn step<'a>(
        &'a mut self,
        desk: &'a mut Desk<'_>,
    ) -> BoxFuture<'a, Result<Duration, LeaderError>> {
        async move {
            match self.stage {
                Stage::Runs => self.runs(desk).await,
                Stage::Fires => self.fires(desk).await,
                Stage::Answers => self.answers(desk).await,
                Stage::Tokens => self.tokens(desk).await,
                Stage::AuditEvents => self.audit_events(desk).await,
                Stage::Workers => self.workers(desk).await,
            }
        }
        .boxed()
    }
}

impl Prune {
    async fn runs(&mut self, desk: &mut Desk<'_>) -> Result<Duration, LeaderError> {
        let started = Instant::now();
        let mut tx = desk.session.begin().await?;
        let retention = self.retention.as_secs_f64();
        let pruned = prune::runs(&mut tx, retention, self.slice.limit(), self.after).await?;
        tx.commit().await?;
        metrics::counter!("gathering_pruned_runs_total").increment(pruned.runs);
        if pruned.next.is_none() {
            self.stage = Stage::Fires;
        } else {
            self.slice.took(self.slice.limit(), started.elapsed());
        }
        self.after = pruned.next.unwrap_or_default();
        Ok(BREATH)
    }

    async fn fires(&mut self, desk: &mut Desk<'_>) -> Result<Duration, LeaderError> {
        let started = Instant::now();
        let mut tx = desk.session.begin().await?;
        let is_all =
            prune::fires(&mut tx, self.retention.as_secs_f64(), self.slice.limit()).await?;
        tx.commit().await?;
        if is_all {
            self.stage = Stage::Answers;
        } else {
            self.slice.took(self.slice.limit(), started.elapsed());
        }
        Ok(BREATH)
    }

    async fn answers(&mut self, desk: &mut Desk<'_>) -> Result<Duration, LeaderError> {
        let mut tx = desk.session.begin().await?;
        let is_all = prune::idempotency_keys(&mut tx).await?;
        tx.commit().await?;
        if is_all {
            self.stage = Stage::Tokens;
        }
        Ok(BREATH)
    }

    async fn tokens(&mut self, desk: &mut Desk<'_>) -> Result<Duration, LeaderError> {
        let mut tx = desk.session.begin().await?;
        let is_all = prune::tokens(&mut tx).await?;
        tx.commit().await?;
        if is_all {
            self.stage = Stage::AuditEvents;
        }
        Ok(BREATH)
    }

    async fn audit_events(&mut self, desk: &mut Desk<'_>) -> Result<Duration, LeaderError> {
        let mut tx = desk.session.begin().await?;
        let is_all = prune::audit_events(&mut tx, self.audit_retention.as_secs_f64()).await?;
        tx.commit().await?;
        if is_all {
            self.stage = Stage::Workers;
        }
        Ok(BREATH)
    }

    /// A worker whose lock was free at two of these is taken for dead; it is forgotten a day later.
    async fn workers(&mut self, desk: &mut Desk<'_>) -> Result<Duration, LeaderError> {
        let now = Instant::now();
        let workers = audit::workers(desk.session.reader()).await?;
        let unlocked = workers.iter().filter(|worker| !worker.is_locked);
        let dead: Vec<Uuid> = unlocked
            .filter(|worker| self.unlocked.doubt(&worker.id, now))
            .map(|worker| worker.id)
            .collect();
        self.unlocked.end();
        let mut tx = desk.session.begin().await?;
        prune::mark_dead(&mut tx, &dead).await?;
        prune::workers(&mut tx).await?;
        probes::prune(&mut tx).await?;
        let letters = dead_letters::open(&mut tx).await?;
        tx.commit().await?;
        metrics::gauge!("gathering_dead_letters_open").set(letters as f64);
        self.stage = Stage::Runs;
        Ok(REST)
    }
}
