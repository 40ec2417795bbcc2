//! Starts and records of one statement, which most are. What the rows do not confirm goes the longer way.

use std::marker::PhantomData;
use std::sync::Arc;

use common::breakpoint;
use common::own::Taken;
use common::run::RunState;
use common::store;
use common::store::follow::Keeping;
use common::store::record::Record;
use common::store::record::arrival::{self, Arrival};
use common::store::record::direct::{self as record, Known, Recorded};
use common::store::start::Start;
use common::store::start::direct as start;
use uuid::Uuid;

use super::{Assigned, Begun, Ways, over};
use crate::core::Core;

/// Starts runs whose rows are known beforehand; none when they have to be looked at.
pub(crate) struct DirectStarts {
    pub(super) core: Arc<Core>,
    pub(super) ways: Arc<Ways>,
}

/// Records completions whose consequences are known beforehand; none when rows have to be looked at.
pub(crate) struct DirectRecords<Item> {
    core: Arc<Core>,
    ways: Arc<Ways>,
    items: PhantomData<fn(Item)>,
}

impl<Item> DirectRecords<Item> {
    pub(super) fn new(core: &Arc<Core>, ways: &Arc<Ways>) -> Self {
        Self { core: core.clone(), ways: ways.clone(), items: PhantomData }
    }
}

/// A record that one statement writes.
pub(crate) trait Direct: Send + Sync + Sized + 'static {
    fn record(&self) -> &Record;

    /// Records all of them, and says what came of it.
    fn write(
        conn: &mut store::Connection,
        items: &[Self],
        keeping: Keeping<'_>,
        spare: usize,
    ) -> impl Future<Output = Result<Recorded, store::Error>> + Send;
}

impl Direct for Known {
    fn record(&self) -> &Record {
        self.record()
    }

    async fn write(
        conn: &mut store::Connection,
        items: &[Self],
        keeping: Keeping<'_>,
        spare: usize,
    ) -> Result<Recorded, store::Error> {
        record::record(conn, items, keeping, spare).await
    }
}

impl Direct for Arrival {
    fn record(&self) -> &Record {
        self.record()
    }

    async fn write(
        conn: &mut store::Connection,
        items: &[Self],
        keeping: Keeping<'_>,
        _spare: usize,
    ) -> Result<Recorded, store::Error> {
        arrival::record(conn, items, keeping).await
    }
}

impl DirectStarts {
    async fn try_commit(
        &self,
        mut conn: Taken,
        starts: &[Start],
    ) -> Result<Vec<Option<Begun>>, store::Error> {
        let core = &self.core;
        if core.draining.is_cancelled() {
            conn.keep();
            return Ok(starts.iter().map(|_| None).collect());
        }
        let quick = |context: &_, node| core.quickness.is_quick(context, node);
        let serves = |lane: &str| core.serves(lane);
        let keeping = Keeping { owner: Some(core.id), serves: &serves, quick: &quick };
        let started =
            start::start(&mut conn, starts, keeping, core.spare(), &core.definitions).await?;
        conn.keep();
        if started.answers.iter().any(|answer| matches!(answer, start::Answer::Started(_))) {
            breakpoint::committed("start").await;
        }
        let mut runs: Vec<(Uuid, RunState)> = Vec::with_capacity(starts.len());
        let begun = starts.iter().zip(started.answers).map(|(item, answer)| match answer {
            start::Answer::Started(claimed) => {
                runs.push((item.run, RunState::Running));
                Some(Begun::Assigned(core.assign(claimed)))
            }
            start::Answer::Unreadable(why) => Some(Begun::Unreadable(why)),
            start::Answer::Look => None,
        });
        let begun = begun.collect();
        core.announce(started.jobs, runs);
        Ok(begun)
    }
}

impl common::batch::Work for DirectStarts {
    type Item = Start;
    type Answer = Option<Begun>;
    const RETRY_OUTAGES: bool = true;

    async fn commit(&mut self, starts: &[Start]) -> Result<Vec<Option<Begun>>, store::Error> {
        let _turn = self.ways.turn.lock().await;
        let conn = self.core.presence.held_with(&self.core.own).await;
        let result = over(conn, |conn| self.try_commit(conn, starts)).await;
        self.ways.doubt.settle(result)
    }
}

impl<Item: Direct> DirectRecords<Item> {
    async fn try_commit(
        &self,
        mut conn: Taken,
        items: &[Item],
    ) -> Result<Vec<Option<Vec<Assigned>>>, store::Error> {
        let core = &self.core;
        let quick = |context: &_, node| core.quickness.is_quick(context, node);
        let serves = |lane: &str| core.serves(lane);
        let owner = core.presence.is_held().then_some(core.id);
        let keeping = Keeping { owner, serves: &serves, quick: &quick };
        let recorded = Item::write(&mut conn, items, keeping, core.spare()).await?;
        conn.keep();
        if recorded.answers.iter().any(Option::is_some) {
            breakpoint::committed("record").await;
        }
        let settled = recorded.answers.into_iter().map(|kept| Some(core.assign(kept?)));
        let settled = settled.collect();
        core.announce(recorded.jobs, recorded.runs);
        Ok(settled)
    }
}

impl<Item: Direct> common::batch::Work for DirectRecords<Item> {
    type Item = Item;
    type Answer = Option<Vec<Assigned>>;
    const RETRY_OUTAGES: bool = true;

    fn weight(item: &Item) -> usize {
        item.record().weight()
    }

    async fn commit(&mut self, items: &[Item]) -> Result<Vec<Option<Vec<Assigned>>>, store::Error> {
        let _turn = self.ways.turn.lock().await;
        let result = over(self.core.own.take().await, |conn| self.try_commit(conn, items)).await;
        self.ways.doubt.settle(result)
    }
}
