//! What one transaction decides of the schedules that are due.

use std::sync::Arc;

use uuid::Uuid;

use super::fate;
use crate::clock::Instant;
use crate::schedule::overlap::UnderWay;
use crate::schedule::plan::{MOST_AT_ONCE, Moment};
use crate::schedule::{Cause, Kind, State};
use crate::store::schedules::catalogue::{Known, Loaded};
use crate::store::schedules::clocks::{Clock, Ending};
use crate::store::schedules::write::{Fate, Fire};

/// How many moments one transaction computes, or so: after a long outage there are very many.
const MOST_LOOKED_AT: usize = 10_000;

/// One transaction's worth of decisions.
pub(super) struct Batch {
    pub(super) now: Instant,
    /// Moments that were computed.
    pub(super) looked_at: usize,
    pub(super) fires: Vec<Fire>,
    /// Schedules whose runs so far are to be cancelled.
    pub(super) replaced: Vec<Uuid>,
    pub(super) endings: Vec<Ending>,
}

impl Batch {
    /// Decides what of a schedule is due.
    pub(super) fn schedule(
        &mut self,
        clock: &mut Clock,
        loaded: &Loaded,
        under_way: &mut UnderWay,
    ) {
        if loaded.state != State::Active {
            return clock.stop();
        }
        let known = match &loaded.known {
            Ok(known) => known,
            Err(why) => {
                clock.stop();
                return self.end(clock.schedule_id, State::Disabled, why.clone());
            }
        };
        if known.spec.kind == Kind::Event {
            clock.stop();
            return self.end(clock.schedule_id, State::Expired, "end_at has passed".to_owned());
        }
        // What is beyond one transaction's worth is as due for the next.
        if self.fires.len() >= MOST_AT_ONCE || self.looked_at >= MOST_LOOKED_AT {
            return;
        }
        let Some(first) = clock.next_fire_at else { return clock.stop() };
        let plan = known.planner(clock.schedule_id, clock.anchor_at).plan(first, self.now);
        self.looked_at += plan.looked_at;
        clock.set_next(&known.spec, plan.next);
        for moment in plan.moments {
            if clock.is_used_up(&known.spec) {
                break;
            }
            self.moment(clock, known, moment, under_way);
        }
        let over = match (clock.is_used_up(&known.spec), plan.next) {
            (true, _) => "max_fires is reached",
            (false, None) => "no moment is left at which it could fire",
            (false, Some(_)) => return,
        };
        clock.stop();
        self.end(clock.schedule_id, State::Expired, over.to_owned());
    }

    fn moment(
        &mut self,
        clock: &mut Clock,
        known: &Arc<Known>,
        moment: Moment,
        under_way: &mut UnderWay,
    ) {
        let fate = match moment.skip {
            Some(why) => Fate::Skip(why),
            None => {
                let (fate, replaces) = fate(known.spec.overlap, under_way);
                if replaces {
                    self.replaced.push(clock.schedule_id);
                }
                fate
            }
        };
        if !matches!(fate, Fate::Skip(_)) {
            clock.fired(moment.fire_at);
        }
        self.fires.push(Fire {
            schedule: clock.schedule_id,
            known: known.clone(),
            cause: Cause::Schedule,
            fire_at: moment.fire_at,
            due_at: moment.due_at,
            missed: moment.missed,
            event: None,
            backfill: None,
            by: None,
            fate,
        });
    }

    fn end(&mut self, schedule: Uuid, state: State, reason: String) {
        self.endings.push(Ending { schedule, state, reason });
    }
}
