//! What is due: pure, over a given moment.

use std::time::Duration;

use chrono::TimeDelta;
use uuid::Uuid;

use super::at;
use crate::clock::{Instant, text};
use crate::schedule::Misfire;
use crate::schedule::plan::{Lateness, MOST_AT_ONCE, Plan, Planner};
use crate::schedule::rule::{Bounds, Rule, jitter};

const START: &str = "2026-01-01T00:00:00Z";

fn bounds() -> Bounds {
    Bounds { anchor: at(START), start_at: None, end_at: None }
}

fn every(seconds: i64) -> Rule {
    Rule::Interval(TimeDelta::seconds(seconds))
}

fn lateness(misfire: Misfire, grace: u64) -> Lateness {
    Lateness { misfire, grace: Duration::from_secs(grace), max_catch_up: 5, jitter: Duration::ZERO }
}

fn plan(rule: &Rule, lateness: Lateness, first: i64, now: i64) -> Plan {
    let planner = Planner { schedule: Uuid::nil(), rule, bounds: bounds(), lateness };
    planner.plan(second(first), second(now))
}

fn second(n: i64) -> Instant {
    at(START) + TimeDelta::seconds(n)
}

/// `(second, missed, whether it fires)` of each moment.
fn told(plan: &Plan) -> Vec<(i64, usize, bool)> {
    let second = |at: Instant| (at - self::second(0)).num_seconds();
    plan.moments.iter().map(|m| (second(m.fire_at), m.missed, m.skip.is_none())).collect()
}

fn next(plan: &Plan) -> Option<i64> {
    plan.next.map(|next| (next.fire_at - second(0)).num_seconds())
}

#[test]
fn what_is_due_fires_and_what_is_not_waits() {
    let rule = every(10);
    let plan = plan(&rule, lateness(Misfire::FireOnce, 60), 10, 9);
    assert_eq!((told(&plan), next(&plan)), (vec![], Some(10)));
    let plan = super::plan::plan(&rule, lateness(Misfire::FireOnce, 60), 10, 10);
    assert_eq!((told(&plan), next(&plan)), (vec![(10, 0, true)], Some(20)));
}

#[test]
fn within_the_grace_all_fire_whatever_the_rule() {
    for misfire in [Misfire::Skip, Misfire::FireOnce, Misfire::FireAll] {
        let plan = plan(&every(10), lateness(misfire, 60), 10, 45);
        assert_eq!(
            told(&plan),
            [(10, 0, true), (20, 0, true), (30, 0, true), (40, 0, true)],
            "{misfire:?}"
        );
        assert_eq!(next(&plan), Some(50));
    }
}

#[test]
fn misfires_are_skipped_fired_once_or_all() {
    // Missed are those of more than 15 s ago: 10 to 80. On time are 90 and 100.
    let skip = plan(&every(10), lateness(Misfire::Skip, 15), 10, 100);
    assert_eq!(told(&skip), [(80, 7, false), (90, 0, true), (100, 0, true)]);
    assert_eq!(skip.moments[0].skip.as_deref(), Some("misfire: 8 moments were missed"));
    let once = plan(&every(10), lateness(Misfire::FireOnce, 15), 10, 100);
    assert_eq!(told(&once), [(80, 7, true), (90, 0, true), (100, 0, true)]);
    let all = plan(&every(10), lateness(Misfire::FireAll, 15), 10, 100);
    assert_eq!(
        told(&all),
        [
            (10, 0, true),
            (20, 0, true),
            (30, 0, true),
            (40, 0, true),
            (50, 0, true),
            (80, 2, false),
            (90, 0, true),
            (100, 0, true)
        ],
        "the oldest five first, and what became of the rest"
    );
    for plan in [skip, once, all] {
        assert_eq!(next(&plan), Some(110));
    }
}

#[test]
fn a_single_moment_that_was_missed() {
    let rule = Rule::Once(second(10));
    let once = |misfire| plan(&rule, lateness(misfire, 5), 10, 100);
    assert_eq!(told(&once(Misfire::FireOnce)), [(10, 0, true)]);
    assert_eq!(told(&once(Misfire::FireAll)), [(10, 0, true)]);
    assert_eq!(told(&once(Misfire::Skip)), [(10, 0, false)]);
    assert_eq!(next(&once(Misfire::Skip)), None);
}

#[test]
fn a_month_of_missed_seconds_is_decided_at_once() {
    let month = 30 * 24 * 3600;
    let began = std::time::Instant::now();
    for misfire in [Misfire::Skip, Misfire::FireOnce, Misfire::FireAll] {
        let plan = plan(&every(1), lateness(misfire, 3), 1, month);
        let last = month - 4;
        assert_eq!(
            plan.moments.iter().filter(|m| m.fire_at == second(last)).count(),
            1,
            "{misfire:?}"
        );
        let on_time: Vec<i64> = told(&plan).iter().rev().take(4).map(|told| told.0).collect();
        assert_eq!(on_time, [month, month - 1, month - 2, month - 3]);
        assert_eq!(next(&plan), Some(month + 1));
        assert!(
            plan.moments.iter().any(|m| m.skip.as_ref().is_some_and(|s| s.contains("over 1000 ")))
                || misfire == Misfire::FireOnce
        );
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn a_long_grace_fires_in_portions() {
    let rule = every(1);
    let first = plan(&rule, lateness(Misfire::FireOnce, 7200), 1, 3000);
    assert_eq!(first.moments.len(), MOST_AT_ONCE);
    assert_eq!(next(&first), Some(1001), "and the rest is as due as before");
    let rest = plan(&rule, lateness(Misfire::FireOnce, 7200), 1001, 3000);
    assert_eq!(told(&rest)[0], (1001, 0, true));
}

#[test]
fn intervals_keep_to_their_anchor() {
    let rule = every(60);
    let next = |bounds: Bounds, after: &str| rule.next(&bounds, at(after)).map(|at| text(&at));
    assert_eq!(next(bounds(), START).as_deref(), Some("2026-01-01T00:01:00.000000Z"));
    assert_eq!(
        next(bounds(), "2026-01-01T00:05:59.9Z").as_deref(),
        Some("2026-01-01T00:06:00.000000Z")
    );
    assert_eq!(
        next(bounds(), "2025-12-31T23:00:00Z").as_deref(),
        Some("2026-01-01T00:01:00.000000Z")
    );
    let started = Bounds { start_at: Some(at(START)), ..bounds() };
    assert_eq!(
        next(started, "2025-12-31T23:00:00Z").as_deref(),
        Some("2026-01-01T00:00:00.000000Z")
    );
    let ended = Bounds { end_at: Some(at("2026-01-01T00:02:00Z")), ..bounds() };
    assert_eq!(next(ended, "2026-01-01T00:01:30Z").as_deref(), Some("2026-01-01T00:02:00.000000Z"));
    assert_eq!(next(ended, "2026-01-01T00:02:00Z"), None);
}

#[test]
fn jitter_is_the_same_for_the_same_fire_and_spread_over_others() {
    let (most, schedule) = (Duration::from_secs(30), Uuid::from_u128(7));
    let drawn: Vec<i64> =
        (0..1000).map(|n| jitter(most, schedule, second(n)).num_milliseconds()).collect();
    let again: Vec<i64> =
        (0..1000).map(|n| jitter(most, schedule, second(n)).num_milliseconds()).collect();
    assert_eq!(drawn, again);
    assert!(drawn.iter().all(|ms| (0..=30_000).contains(ms)));
    let mean = drawn.iter().sum::<i64>() / 1000;
    assert!((13_000..17_000).contains(&mean), "{mean}");
    assert_ne!(jitter(most, Uuid::from_u128(8), second(0)), jitter(most, schedule, second(0)));
    assert!(jitter(Duration::ZERO, schedule, second(0)).is_zero());
}

#[test]
fn a_fire_with_jitter_is_due_later_and_missed_later() {
    let rule = every(60);
    let lateness = Lateness { jitter: Duration::from_secs(30), ..lateness(Misfire::Skip, 5) };
    let planner = Planner { schedule: Uuid::from_u128(1), rule: &rule, bounds: bounds(), lateness };
    let due = planner.next(second(0)).unwrap().due_at;
    assert!(due > second(60), "{due}");
    let tick = TimeDelta::microseconds(1);
    assert!(planner.plan(second(60), due - tick).moments.is_empty());
    assert!(planner.plan(second(60), due).moments[0].skip.is_none());
    assert!(planner.plan(second(60), due + TimeDelta::seconds(5)).moments[0].skip.is_none());
    assert!(planner.plan(second(60), due + TimeDelta::seconds(5) + tick).moments[0].skip.is_some());
}
