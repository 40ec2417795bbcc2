//! The audit: every run ends, because what nothing moves on is found, and mended.
//!
//! It walks the runs that have not ended, a slice at a time. A repair carries a fence, so that it does nothing when
//! what was seen is out of date.

pub mod lanes;
pub mod looks;
pub mod owners;
mod repair;
pub mod verdict;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use common::run::RunState;
use common::store::audit;
use common::store::definitions::Definitions;
use common::store::leader::LeaderError;
use common::store::open_runs::{self, Look, OpenRun};
use common::store::probes;
use futures::FutureExt;
use futures::future::BoxFuture;
use uuid::Uuid;

use self::lanes::Lanes;
use self::looks::Looks;
use self::owners::Owners;
use self::verdict::{Repair, Verdict};
use super::slice::Slice;
use super::{Desk, Duty};

/// Between two looks at the workers' locks, and at the probes.
const LOOK: Duration = Duration::from_secs(2);
/// Between two slices of a long walk, so that a backlog costs little.
const BREATH: Duration = Duration::from_millis(250);
/// From the start of one walk to the next, at the least.
const WALK: Duration = Duration::from_secs(3);

/// What the leader remembers of what it has seen.
pub struct Audit {
    slice: Slice,
    lanes: Lanes,
    owners: Owners,
    stuck: Looks<(Uuid, i64)>,
    after: Uuid,
    walk: Walk,
    repairs: VecDeque<Repair>,
    definitions: Definitions,
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            slice: Slice::up_to(2_000),
            lanes: Lanes::default(),
            owners: Owners::default(),
            stuck: Looks::default(),
            after: Uuid::nil(),
            walk: Walk::new(Instant::now()),
            repairs: VecDeque::new(),
            definitions: Definitions::default(),
        }
    }
}

/// One way through all runs that have not ended.
struct Walk {
    started_at: Instant,
    runs: usize,
}

impl Walk {
    fn new(started_at: Instant) -> Self {
        Self { started_at, runs: 0 }
    }
}

impl Duty for Audit {
    fn name(&self) -> &'static str {
        "audit"
    }

    fn step<'a>(
        &'a mut self,
        desk: &'a mut Desk<'_>,
    ) -> BoxFuture<'a, Result<Duration, LeaderError>> {
        async move {
            let now = Instant::now();
            if !self.repairs.is_empty() {
                self.look_again(desk, now).await?;
                repair::some(desk, &mut self.repairs, &self.definitions).await?;
                return Ok(Duration::ZERO);
            }
            if self.owners.looked_at().is_none_or(|at| now.duration_since(at) >= LOOK) {
                self.owners.looked(audit::workers(desk.session.reader()).await?, now);
                self.lanes.proved(probes::proofs(desk.session.reader()).await?);
            }
            let rest = self.look(desk, now).await?;
            self.probe(desk, now).await?;
            Ok(rest)
        }
        .boxed()
    }
}

impl Audit {
    /// A worker that was away for long may just have come back, and claimed: right before a take-over, its lock is
    /// asked once more.
    async fn look_again(&mut self, desk: &mut Desk<'_>, now: Instant) -> Result<(), LeaderError> {
        if matches!(self.repairs.front(), Some(Repair::Recover(..))) {
            self.owners.looked(audit::workers(desk.session.reader()).await?, now);
            self.repairs.retain(|repair| match repair {
                Repair::Recover(_, lost) => self.owners.is_dead(lost.owner),
                _ => true,
            });
        }
        Ok(())
    }

    /// Looks at a slice of the runs, and notes what it needs.
    async fn look(&mut self, desk: &mut Desk<'_>, now: Instant) -> Result<Duration, LeaderError> {
        let limit = self.slice.limit();
        let Look { runs, ended, next } =
            open_runs::look(desk.session.reader(), self.after, limit).await?;
        let started: Vec<Uuid> =
            runs.iter().filter(|run| run.state != RunState::Queued).map(|run| run.id).collect();
        let nodes = if started.is_empty() {
            Vec::new()
        } else {
            let alive = self.owners.alive();
            audit::doubtful_nodes(desk.session.reader(), &started, &alive).await?
        };
        for run in &runs {
            let verdict = verdict::of_run(run, &self.lanes);
            self.note(verdict, &run.lane, Some(run), now);
        }
        for node in &nodes {
            if let Some(owner) = node.owner {
                self.owners.doubt(owner, now);
            }
            let verdict = verdict::of_node(node, &self.lanes, &self.owners);
            self.note(verdict, &node.lane, None, now);
        }
        self.walk.runs += runs.len();
        self.slice.took((runs.len() + ended.len()) as i64, now.elapsed());
        if !ended.is_empty() {
            let mut tx = desk.session.begin().await?;
            open_runs::forget(&mut tx, &ended).await?;
            tx.commit().await?;
        }
        let Some(next) = next else { return Ok(self.end_walk(now)) };
        self.after = next;
        // What is to be mended is mended without a pause. Runs end as fast as the fleet is: it must not be faster.
        let is_urgent = !self.repairs.is_empty() || ended.len() >= runs.len();
        Ok(if is_urgent { Duration::ZERO } else { BREATH })
    }

    fn note(&mut self, verdict: Verdict, lane: &str, run: Option<&OpenRun>, now: Instant) {
        match (verdict, run) {
            (Verdict::Needs(repair), _) => self.repairs.push_back(repair),
            (Verdict::NeedsProof, _) => self.lanes.doubt(lane),
            (Verdict::SeemsStuck, Some(run)) => {
                if self.stuck.doubt(&(run.id, run.seq), now) {
                    self.repairs.push_back(Repair::FailStuck(run.id, run.seq));
                }
            }
            (Verdict::SeemsStuck, None) | (Verdict::Fine, _) => {}
        }
    }

    fn end_walk(&mut self, now: Instant) -> Duration {
        self.stuck.end();
        self.after = Uuid::nil();
        let walk = std::mem::replace(&mut self.walk, Walk::new(now));
        let time = now.duration_since(walk.started_at);
        metrics::gauge!("gathering_open_runs").set(walk.runs as f64);
        metrics::gauge!("gathering_audit_walk_seconds").set(time.as_secs_f64());
        let rest = WALK.saturating_sub(time).max(BREATH);
        self.walk.started_at = now + rest;
        rest
    }

    async fn probe(&mut self, desk: &mut Desk<'_>, now: Instant) -> Result<(), LeaderError> {
        let lanes = self.lanes.to_probe(|lane| self.owners.serve(lane), now);
        if lanes.is_empty() {
            return Ok(());
        }
        let mut tx = desk.session.begin().await?;
        let rows = probes::send(&mut tx, &lanes).await?;
        tx.commit().await?;
        for row in &rows {
            metrics::counter!("gathering_probes_sent_total", "lane" => row.lane.clone())
                .increment(1);
        }
        desk.post.send(rows);
        Ok(())
    }
}
