//! Starts and records of one statement, which most are. What the rows do not confirm goes the longer way.

use std::sync::Arc;

use common::breakpoint;
use common::own::Taken;
use common::run::RunState;
use common::store;
use common::store::follow::Keeping;
use common::store::record::direct::{self as record, Known};
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
pub(crate) struct DirectRecords {
    pub(super) core: Arc<Core>,
    pub(super) ways: Arc<Ways>,
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

impl DirectRecords {
    async fn try_commit(
        &self,
        mut conn: Taken,
        items: &[Known],
    ) -> Result<Vec<Option<Vec<Assigned>>>, store::Error> {
        let core = &self.core;
        let quick = |context: &_, node| core.quickness.is_quick(context, node);
        let serves = |lane: &str| core.serves(lane);
        let owner = core.presence.is_held().then_some(core.id);
        let keeping = Keeping { owner, serves: &serves, quick: &quick };
        let recorded = record::record(&mut conn, items, keeping, core.spare()).await?;
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

impl common::batch::Work for DirectRecords {
    type Item = Known;
    type Answer = Option<Vec<Assigned>>;
    const RETRY_OUTAGES: bool = true;

    fn weight(item: &Known) -> usize {
        item.record().weight()
    }

    async fn commit(
        &mut self,
        items: &[Known],
    ) -> Result<Vec<Option<Vec<Assigned>>>, store::Error> {
        let _turn = self.ways.turn.lock().await;
        let result = over(self.core.own.take().await, |conn| self.try_commit(conn, items)).await;
        self.ways.doubt.settle(result)
    }
}
