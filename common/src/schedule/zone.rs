//! Local times and instants: what becomes of a cron's times when clocks are changed.

use chrono::{DateTime, LocalResult, NaiveDateTime, Offset, TimeDelta, TimeZone, Timelike, Utc};
use chrono_tz::Tz;

use super::cron::Cron;
use crate::clock::Instant;

/// No zone is further from UTC, nor has any ever been shifted by more.
const FURTHEST: TimeDelta = TimeDelta::hours(36);

/// Reads the name of an IANA time zone. The error is one sentence.
pub fn parse(name: &str) -> Result<Tz, String> {
    let unknown = || {
        let shown = crate::problem::quoted(name);
        format!("{shown} is not the name of an IANA time zone, such as Europe/Berlin or UTC")
    };
    name.parse().map_err(|_| unknown())
}

/// The first instant after `after` at which `cron` fires in `zone`.
///
/// A cron at fixed hours fires once for each local time: where it does not exist, at the first instant after the gap;
/// where it exists twice, the first time. One that names every hour fires whenever the clock shows such a time, and so
/// goes on with elapsed time.
pub(super) fn next(cron: &Cron, zone: Tz, after: Instant) -> Option<Instant> {
    let after = whole_second(after);
    let local = after.with_timezone(&zone).naive_local();
    if cron.is_every_hour() {
        elapsing(cron, zone, after, local)
    } else {
        fixed(cron, zone, after, local)
    }
}

/// Seconds are the finest that a cron names: a part of one before the next belongs to it.
fn whole_second(at: Instant) -> Instant {
    at.with_nanosecond(0).unwrap_or(at)
}

/// Local times in order come in the order of their instants, so the first that is later is the next.
fn fixed(cron: &Cron, zone: Tz, after: Instant, local: NaiveDateTime) -> Option<Instant> {
    let mut local = local;
    // In the second pass of an hour, all of it has been.
    if let LocalResult::Ambiguous(early, late) = zone.from_local_datetime(&local)
        && late.to_utc() == after
    {
        let change = change_between(zone, early.to_utc(), late.to_utc());
        local = local_before(zone, change) - TimeDelta::seconds(1);
    }
    loop {
        local = cron.next_local(local)?;
        let at = match zone.from_local_datetime(&local) {
            LocalResult::Single(at) | LocalResult::Ambiguous(at, _) => at.to_utc(),
            LocalResult::None => end_of_gap(zone, local),
        };
        if at > after {
            return Some(at);
        }
    }
}

fn elapsing(cron: &Cron, zone: Tz, after: Instant, local: NaiveDateTime) -> Option<Instant> {
    let next = cron.next_local(local)?;
    if let LocalResult::Ambiguous(early, late) = zone.from_local_datetime(&local)
        && early.to_utc() == after
    {
        // Between here and what follows, the clock is set back: what it shows then comes first.
        let change = change_between(zone, early.to_utc(), late.to_utc());
        if next >= local_before(zone, change) {
            let again = cron.next_local_from(change.with_timezone(&zone).naive_local())?;
            if let LocalResult::Ambiguous(_, late) = zone.from_local_datetime(&again) {
                return Some(late.to_utc());
            }
        }
    }
    let mut local = next;
    loop {
        match zone.from_local_datetime(&local) {
            LocalResult::Single(at) => return Some(at.to_utc()),
            LocalResult::Ambiguous(early, late) => {
                let early = early.to_utc();
                return Some(if early > after { early } else { late.to_utc() });
            }
            LocalResult::None => {
                let end = end_of_gap(zone, local).with_timezone(&zone).naive_local();
                local = cron.next_local_from(end)?;
            }
        }
    }
}

/// The first instant after the gap in which a local time lies.
fn end_of_gap(zone: Tz, local: NaiveDateTime) -> Instant {
    let reads = |at: Instant| at.with_timezone(&zone).naive_local();
    let (before, after) = (local.and_utc() - FURTHEST, local.and_utc() + FURTHEST);
    first_second(before, after, |at| reads(at) >= local)
}

/// The instant in (`early`, `late`] at which the offset changes.
fn change_between(zone: Tz, early: Instant, late: Instant) -> Instant {
    let offset = |at: Instant| zone.offset_from_utc_datetime(&at.naive_utc()).fix();
    first_second(early, late, |at| offset(at) != offset(early))
}

/// What the clock would show at a change, had it not been changed.
fn local_before(zone: Tz, change: Instant) -> NaiveDateTime {
    let before: DateTime<Utc> = change - TimeDelta::seconds(1);
    before.with_timezone(&zone).naive_local() + TimeDelta::seconds(1)
}

/// The first second in (`before`, `last`] of which `holds` is true, when it is of `last` and all between.
fn first_second(before: Instant, last: Instant, holds: impl Fn(Instant) -> bool) -> Instant {
    let (mut low, mut high) = (before.timestamp(), last.timestamp());
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        let at = DateTime::from_timestamp(middle, 0).unwrap_or(last);
        if holds(at) { high = middle } else { low = middle }
    }
    DateTime::from_timestamp(high, 0).unwrap_or(last)
}
