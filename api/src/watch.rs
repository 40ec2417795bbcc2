//! Waiting for runs: one registry for all long-polls and streams.
//!
//! A hint wakes those who wait for its runs. Hints can be lost, so once a second one query looks at all that is
//! waited for. Whoever is woken reads the run itself: what it is told is only to look.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::broker::{Hint, HintKind, Status};
use common::store::{self, Pool, events};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How often what is waited for is looked at without a hint.
const LOOK: Duration = Duration::from_secs(1);

/// What somebody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum For {
    /// The run's end.
    End,
    /// Any change of it.
    Change,
}

/// For so long after its acceptance a run of which no hint said that it ended is taken for under way: who waits for it
/// at once, as most do, needs no look first.
const FRESH: Duration = Duration::from_millis(100);

/// The runs that are waited for.
#[derive(Clone)]
pub(crate) struct Watch {
    runs: Arc<Mutex<Runs>>,
    /// Whether hints come.
    listening: watch::Receiver<Status>,
}

#[derive(Default)]
struct Runs {
    watched: HashMap<Uuid, Watched>,
    fresh: Fresh,
}

/// Runs that have just been accepted here, and have not ended as far as is known.
#[derive(Default)]
struct Fresh {
    open: HashSet<Uuid>,
    since: VecDeque<(Instant, Uuid)>,
}

impl Fresh {
    fn add(&mut self, run: Uuid, now: Instant) {
        self.forget_old(now);
        self.open.insert(run);
        self.since.push_back((now, run));
    }

    fn has(&mut self, run: Uuid, now: Instant) -> bool {
        self.forget_old(now);
        self.open.contains(&run)
    }

    fn forget_old(&mut self, now: Instant) {
        while let Some((_, run)) = self.since.pop_front_if(|(since, _)| *since + FRESH <= now) {
            self.open.remove(&run);
        }
    }
}

#[derive(Default)]
struct Watched {
    waiters: Vec<(For, Arc<Notify>)>,
    /// The run's count when it was last looked at without a hint.
    seq: i64,
}

impl Watch {
    pub(crate) fn new(listening: watch::Receiver<Status>) -> Self {
        Self { runs: Arc::default(), listening }
    }

    fn lock(&self) -> MutexGuard<'_, Runs> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes runs that are committed, before anybody else can know of them.
    pub(crate) fn accepted(&self, runs: impl Iterator<Item = Uuid>) {
        let (mut all, now) = (self.lock(), Instant::now());
        runs.for_each(|run| all.fresh.add(run, now));
    }

    /// Whether the run was accepted here a moment ago, and has not ended since, as far as hints tell: a waiter that was
    /// registered before this was asked is woken by its end.
    pub(crate) fn is_fresh(&self, run: Uuid) -> bool {
        let heard = *self.listening.borrow() == Status::Connected;
        heard && self.lock().fresh.has(run, Instant::now())
    }

    /// Registers a waiter; what happens from now on wakes it. It is forgotten when it is dropped.
    pub(crate) fn wait_for(&self, run: Uuid, what: For) -> Waiter {
        let woken = Arc::new(Notify::new());
        self.lock().watched.entry(run).or_default().waiters.push((what, woken.clone()));
        Waiter { watch: self.clone(), run, woken }
    }

    /// Wakes those to whom it matters.
    fn wake(&self, run: Uuid, ended: bool) {
        let mut all = self.lock();
        if ended {
            all.fresh.open.remove(&run);
        }
        if let Some(watched) = all.watched.get(&run) {
            for (what, woken) in &watched.waiters {
                if ended || *what == For::Change {
                    woken.notify_one();
                }
            }
        }
    }

    /// Wakes everybody whose run has moved since the last look.
    async fn look(&self, pool: &Pool) -> Result<(), store::Error> {
        let runs: Vec<Uuid> = self.lock().watched.keys().copied().collect();
        if runs.is_empty() {
            return Ok(());
        }
        for progress in events::progress(pool, &runs).await? {
            let moved = self.lock().watched.get_mut(&progress.id).is_some_and(|watched| {
                std::mem::replace(&mut watched.seq, progress.seq) != progress.seq
            });
            if moved || progress.state.is_terminal() {
                self.wake(progress.id, progress.state.is_terminal());
            }
        }
        Ok(())
    }

    /// Passes hints on, and looks once a second, until `stop`.
    pub(crate) async fn run(
        self,
        pool: Pool,
        mut hints: mpsc::Receiver<Hint>,
        stop: CancellationToken,
    ) {
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut listening = true;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                hint = hints.recv(), if listening => match hint {
                    Some(hint) => {
                        for (run, kind) in hint.runs {
                            self.wake(run, kind == HintKind::Ended);
                        }
                    }
                    None => listening = false,
                },
                _ = tick.tick() => {
                    if let Err(error) = self.look(&pool).await {
                        tracing::debug!(%error, "could not look at what is waited for");
                    }
                }
            }
        }
    }
}

/// Somebody who waits for a run.
pub(crate) struct Waiter {
    watch: Watch,
    run: Uuid,
    woken: Arc<Notify>,
}

impl Waiter {
    /// Returns when there may be something new since this was last called, or since it was registered.
    pub(crate) async fn woken(&self) {
        self.woken.notified().await;
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut all = self.watch.lock();
        if let Some(run) = all.watched.get_mut(&self.run) {
            run.waiters.retain(|(_, woken)| !Arc::ptr_eq(woken, &self.woken));
            if run.waiters.is_empty() {
                all.watched.remove(&self.run);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn watch() -> (watch::Sender<Status>, Watch) {
        let (sender, listening) = watch::channel(Status::Connected);
        (sender, Watch::new(listening))
    }

    fn is_woken(waiter: &Waiter) -> bool {
        waiter.woken().now_or_never().is_some()
    }

    #[test]
    fn who_waits_for_the_end_sleeps_through_changes() {
        let (_, watch) = watch();
        let (run, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let end = watch.wait_for(run, For::End);
        let change = watch.wait_for(run, For::Change);
        watch.wake(other, true);
        assert!(!is_woken(&end) && !is_woken(&change));
        watch.wake(run, false);
        assert!(!is_woken(&end) && is_woken(&change));
        watch.wake(run, true);
        assert!(is_woken(&end) && is_woken(&change));
        assert!(!is_woken(&change), "one change wakes once");
    }

    #[test]
    fn nobody_is_kept_who_no_longer_waits() {
        let (_, watch) = watch();
        let run = Uuid::from_u128(1);
        let one = watch.wait_for(run, For::End);
        let two = watch.wait_for(run, For::End);
        drop(one);
        watch.wake(run, true);
        assert!(is_woken(&two));
        drop(two);
        assert!(watch.lock().watched.is_empty());
    }

    #[test]
    fn a_run_is_fresh_until_it_ends_or_a_moment_has_passed() {
        let (mut fresh, now) = (Fresh::default(), Instant::now());
        let [a, b] = [1, 2].map(Uuid::from_u128);
        fresh.add(a, now);
        assert!(fresh.has(a, now) && !fresh.has(b, now));
        fresh.add(b, now + FRESH / 2);
        assert!(fresh.has(b, now + FRESH) && !fresh.has(a, now + FRESH));
        assert!(!fresh.has(b, now + FRESH * 2));
        assert!(fresh.open.is_empty() && fresh.since.is_empty(), "nothing is kept for long");

        let (status, watch) = watch();
        watch.accepted([a, b].into_iter());
        watch.wake(a, false);
        watch.wake(b, true);
        assert!(watch.is_fresh(a) && !watch.is_fresh(b), "a change is no end");
        status.send_replace(Status::Disconnected);
        assert!(!watch.is_fresh(a), "who hears nothing knows nothing");
    }
}
