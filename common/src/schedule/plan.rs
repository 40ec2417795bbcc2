//! What is due by now: which moments fire, which were missed, and which comes next.

use std::time::Duration;

use chrono::TimeDelta;
use uuid::Uuid;

use super::Misfire;
use super::rule::{Bounds, Rule, jitter};
use crate::clock::Instant;

/// The most moments that one look lets fire; those beyond it are as due at the next.
pub const MOST_AT_ONCE: usize = 1_000;
/// How many missed moments are counted one by one. More of them are looked for from the other end.
const MOST_COUNTED: usize = 1_000;

/// What a schedule does with moments that nobody was there for.
#[derive(Debug, Clone, Copy)]
pub struct Lateness {
    /// What becomes of them.
    pub misfire: Misfire,
    /// How late a fire may be without being a misfire.
    pub grace: Duration,
    /// The most that `fire_all` fires.
    pub max_catch_up: usize,
    /// By how much each fire may be put off.
    pub jitter: Duration,
}

/// A moment, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// When it was to fire.
    pub fire_at: Instant,
    /// The same, with its jitter.
    pub due_at: Instant,
    /// How many missed moments it stands for besides itself.
    pub missed: usize,
    /// Why it does not fire.
    pub skip: Option<String>,
}

/// What is due.
#[derive(Debug, Default)]
pub struct Plan {
    /// Oldest first.
    pub moments: Vec<Moment>,
    /// What comes next; none when nothing does.
    pub next: Option<Next>,
    /// How many moments were looked at.
    pub looked_at: usize,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Next {
    /// The moment.
    pub fire_at: Instant,
    /// The same, with its jitter.
    pub due_at: Instant,
}

/// A rule with all that a plan depends on.
#[derive(Debug, Clone, Copy)]
pub struct Planner<'a> {
    /// The schedule, for its jitter.
    pub schedule: Uuid,
    /// When it fires.
    pub rule: &'a Rule,
    /// Between which moments.
    pub bounds: Bounds,
    /// What becomes of what is late.
    pub lateness: Lateness,
}

impl Planner<'_> {
    /// The first moment after `after`.
    pub fn next(&self, after: Instant) -> Option<Next> {
        self.rule.next(&self.bounds, after).map(|fire_at| self.at(fire_at))
    }

    fn at(&self, fire_at: Instant) -> Next {
        Next { fire_at, due_at: fire_at + jitter(self.lateness.jitter, self.schedule, fire_at) }
    }

    /// What is due at `now`, of all moments from `first` on.
    pub fn plan(&self, first: Instant, now: Instant) -> Plan {
        let grace = TimeDelta::from_std(self.lateness.grace).unwrap_or(TimeDelta::MAX);
        let is_missed = |next: &Next| now - next.due_at > grace;
        let mut plan = Plan { moments: Vec::new(), next: Some(self.at(first)), looked_at: 1 };
        let mut missed = Missed::default();
        while let Some(next) = plan.next.filter(is_missed) {
            missed.add(next);
            plan.next = self.next(next.fire_at);
            if missed.count >= MOST_COUNTED {
                self.jump(&mut plan, &mut missed, now - grace);
            }
        }
        plan.looked_at += missed.count;
        self.settle(missed, &mut plan.moments);
        while let Some(next) = plan.next.filter(|next| next.due_at <= now) {
            if plan.moments.len() >= MOST_AT_ONCE {
                break;
            }
            plan.moments.push(Moment::fires(next));
            plan.next = self.next(next.fire_at);
            plan.looked_at += 1;
        }
        plan
    }

    /// What becomes of what was missed.
    fn settle(&self, missed: Missed, moments: &mut Vec<Moment>) {
        let Some(last) = missed.last else { return };
        let others = missed.count - 1;
        match self.lateness.misfire {
            Misfire::Skip => {
                moments.push(Moment {
                    missed: others,
                    skip: Some(missed.reason()),
                    ..Moment::fires(last)
                });
            }
            Misfire::FireOnce => moments.push(Moment { missed: others, ..Moment::fires(last) }),
            Misfire::FireAll => {
                let most = self.lateness.max_catch_up.min(MOST_AT_ONCE);
                moments.extend(missed.first.iter().take(most).copied().map(Moment::fires));
                if missed.count > most {
                    let left = missed.count - most;
                    let reason = format!(
                        "{} were missed, of which max_catch_up lets {most} fire",
                        missed.amount(missed.count)
                    );
                    moments.push(Moment {
                        missed: left - 1,
                        skip: Some(reason),
                        ..Moment::fires(last)
                    });
                }
            }
        }
    }

    /// So many were missed that they are not counted any more: finds the last one before `horizon`.
    fn jump(&self, plan: &mut Plan, missed: &mut Missed, horizon: Instant) {
        missed.is_more = true;
        let mut back = TimeDelta::seconds(1);
        loop {
            let from = horizon - back;
            if plan.next.is_none_or(|next| next.fire_at > from) {
                // Few enough to be gone through; they are not many, since the step before found none.
                let Some(next) = plan.next else { return };
                self.walk(next, plan, missed, horizon);
                return;
            }
            if let Some(next) = self.next(from).filter(|next| next.due_at < horizon) {
                self.walk(next, plan, missed, horizon);
                return;
            }
            back = back * 2;
        }
    }

    fn walk(&self, from: Next, plan: &mut Plan, missed: &mut Missed, horizon: Instant) {
        let mut next = Some(from);
        while let Some(at) = next.filter(|next| next.due_at < horizon) {
            missed.last = Some(at);
            next = self.next(at.fire_at);
        }
        plan.next = next;
    }
}

impl Moment {
    fn fires(next: Next) -> Self {
        Self { fire_at: next.fire_at, due_at: next.due_at, missed: 0, skip: None }
    }
}

/// Moments that were missed.
#[derive(Debug, Default)]
struct Missed {
    count: usize,
    /// Whether there were more than were counted.
    is_more: bool,
    first: Vec<Next>,
    last: Option<Next>,
}

impl Missed {
    fn add(&mut self, next: Next) {
        self.count += 1;
        if self.first.len() < MOST_AT_ONCE {
            self.first.push(next);
        }
        self.last = Some(next);
    }

    fn amount(&self, count: usize) -> String {
        let over = if self.is_more { "over " } else { "" };
        if count == 1 { format!("{over}1 moment") } else { format!("{over}{count} moments") }
    }

    fn reason(&self) -> String {
        let were = if self.count == 1 { "was" } else { "were" };
        format!("misfire: {} {were} missed", self.amount(self.count))
    }
}
