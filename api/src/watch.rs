//! Waiting for runs: one registry for all long-polls and streams.
//!
//! A hint wakes those who wait for its runs. Hints can be lost, so once a second one query looks at all that is
//! waited for. Whoever is woken reads the run itself: what it is told is only to look.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::broker::{Hint, HintKind};
use common::store::{self, Pool, events};
use tokio::sync::{Notify, mpsc};
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

/// The runs that are waited for.
#[derive(Clone, Default)]
pub(crate) struct Watch(Arc<Mutex<HashMap<Uuid, Watched>>>);

#[derive(Default)]
struct Watched {
    waiters: Vec<(For, Arc<Notify>)>,
    /// The run's count when it was last looked at without a hint.
    seq: i64,
}

impl Watch {
    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Watched>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a waiter; what happens from now on wakes it. It is forgotten when it is dropped.
    pub(crate) fn wait_for(&self, run: Uuid, what: For) -> Waiter {
        let woken = Arc::new(Notify::new());
        self.lock().entry(run).or_default().waiters.push((what, woken.clone()));
        Waiter { watch: self.clone(), run, woken }
    }

    /// Wakes those to whom it matters.
    fn wake(&self, run: Uuid, ended: bool) {
        if let Some(watched) = self.lock().get(&run) {
            for (what, woken) in &watched.waiters {
                if ended || *what == For::Change {
                    woken.notify_one();
                }
            }
        }
    }

    /// Wakes everybody whose run has moved since the last look.
    async fn look(&self, pool: &Pool) -> Result<(), store::Error> {
        let runs: Vec<Uuid> = self.lock().keys().copied().collect();
        if runs.is_empty() {
            return Ok(());
        }
        for progress in events::progress(pool, &runs).await? {
            let moved = self.lock().get_mut(&progress.id).is_some_and(|watched| {
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
        let mut watched = self.watch.lock();
        if let Some(run) = watched.get_mut(&self.run) {
            run.waiters.retain(|(_, woken)| !Arc::ptr_eq(woken, &self.woken));
            if run.waiters.is_empty() {
                watched.remove(&self.run);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn is_woken(waiter: &Waiter) -> bool {
        waiter.woken().now_or_never().is_some()
    }

    #[test]
    fn who_waits_for_the_end_sleeps_through_changes() {
        let watch = Watch::default();
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
        let watch = Watch::default();
        let run = Uuid::from_u128(1);
        let one = watch.wait_for(run, For::End);
        let two = watch.wait_for(run, For::End);
        drop(one);
        watch.wake(run, true);
        assert!(is_woken(&two));
        drop(two);
        assert!(watch.lock().is_empty());
    }
}
