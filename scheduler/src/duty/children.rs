//! Runs that other runs have started, where a message was lost: ends that nobody has counted, and runs that nobody
//! waits for.

use std::time::{Duration, Instant};

use common::run::StopReason;
use common::store::leader::LeaderError;
use common::store::stop::{self, Stopped};
use common::store::waits::children::{self, End, Open};
use futures::FutureExt;
use futures::future::BoxFuture;
use uuid::Uuid;

use super::slice::Slice;
use super::{Desk, Duty};

/// Between two walks.
const REST: Duration = Duration::from_secs(2);
/// Between two slices of a walk.
const BREATH: Duration = Duration::from_millis(50);
/// Runs stopped in one slice: stopping one can be long.
const STOPPED: usize = 16;
/// Ends counted in one transaction.
const COUNTED: usize = 100;

/// Walks the children whose end is not counted, again and again.
pub struct Children {
    slice: Slice,
    after: Uuid,
}

impl Default for Children {
    fn default() -> Self {
        Self { slice: Slice::up_to(1_000), after: Uuid::nil() }
    }
}

impl Duty for Children {
    fn name(&self) -> &'static str {
        "children"
    }

    fn step<'a>(
        &'a mut self,
        desk: &'a mut Desk<'_>,
    ) -> BoxFuture<'a, Result<Duration, LeaderError>> {
        async move {
            let started = Instant::now();
            let limit = self.slice.limit();
            let open = children::open(desk.session.reader(), self.after, limit).await?;
            self.after = open
                .last()
                .filter(|_| open.len() as i64 == limit)
                .map_or(Uuid::nil(), |it| it.child);
            let ended: Vec<End> = open.iter().filter(|it| it.is_ended).map(end).collect();
            for ends in ended.chunks(COUNTED) {
                count(desk, ends).await?;
            }
            let unwanted = open.iter().filter(|it| it.is_unwanted && !it.is_ended).take(STOPPED);
            for child in unwanted {
                stop(desk, child.child).await?;
            }
            self.slice.took(open.len() as i64, started.elapsed());
            Ok(if self.after.is_nil() { REST } else { BREATH })
        }
        .boxed()
    }
}

fn end(open: &Open) -> End {
    End { parent: open.parent, child: open.child }
}

/// When they cannot be counted together, each is counted alone; what fails alone is left to the next walk.
async fn count(desk: &mut Desk<'_>, ends: &[End]) -> Result<(), LeaderError> {
    match together(desk, ends).await {
        Err(error) if error.is_refusal() && ends.len() > 1 => {
            for end in ends {
                match together(desk, std::slice::from_ref(end)).await {
                    Err(error) if error.is_refusal() => {
                        tracing::error!(child = %end.child, %error, "the end of a child run cannot be counted");
                    }
                    done => done?,
                }
            }
            Ok(())
        }
        done => done,
    }
}

async fn together(desk: &mut Desk<'_>, ends: &[End]) -> Result<(), LeaderError> {
    let mut tx = desk.session.begin().await?;
    let rows = children::count(&mut tx, ends).await?;
    tx.commit().await?;
    tracing::warn!(kind = "count_child", count = ends.len(), first = ?ends.first(), "repaired");
    metrics::counter!("gathering_repairs_total", "kind" => "count_child")
        .increment(ends.len() as u64);
    let changed = ends.iter().map(|end| end.parent).collect();
    desk.post.send(rows);
    desk.post.hint(changed, vec![], vec![]);
    Ok(())
}

async fn stop(desk: &mut Desk<'_>, child: Uuid) -> Result<(), LeaderError> {
    let mut tx = desk.session.begin().await?;
    let stopped = stop::stop(&mut tx, child, StopReason::Cancel).await?;
    tx.commit().await?;
    match stopped {
        Stopped::Stopping => desk.post.hint(vec![], vec![child], vec![]),
        Stopped::Stopped(_) => desk.post.hint(vec![], vec![], vec![child]),
        Stopped::Unknown | Stopped::Ended(_) => return Ok(()),
    }
    tracing::warn!(kind = "stop_child", run_id = %child, "repaired");
    metrics::counter!("gathering_repairs_total", "kind" => "stop_child").increment(1);
    Ok(())
}
