//! Cron as crontab(5) means it, in all sorts of zones. `cron.txt` was made by a program that goes through the calendar
//! minute by minute, with another library for zones.

use chrono::{SecondsFormat, TimeDelta};
use chrono_tz::Tz;
use proptest::prelude::*;

use super::at;
use crate::clock::Instant;
use crate::schedule::cron::Cron;
use crate::schedule::rule::{Bounds, Rule};
use crate::schedule::zone;

fn rule(cron: &str, zone: &str) -> Rule {
    let cron = Cron::parse(cron).unwrap_or_else(|error| panic!("{cron}: {error}"));
    Rule::Cron { cron: Box::new(cron), zone: zone::parse(zone).unwrap() }
}

fn next(rule: &Rule, after: Instant) -> Option<Instant> {
    rule.next(&Bounds { anchor: after, start_at: None, end_at: None }, after)
}

#[test]
fn a_hundred_cases_and_more() {
    let cases = include_str!("cron.txt").lines().filter(|line| !line.starts_with('#'));
    let mut count = 0;
    let mut wrong = Vec::new();
    for line in cases {
        let parts: Vec<&str> = line.split('|').map(str::trim).collect();
        let [cron, zone, after, fires] = parts.as_slice() else { panic!("{line}") };
        let rule = rule(cron, zone);
        let zone: Tz = zone.parse().unwrap();
        let mut last = at(after);
        let mut found = Vec::new();
        for _ in fires.split(',') {
            let Some(fire) = next(&rule, last) else { break };
            found.push(fire.with_timezone(&zone).to_rfc3339_opts(SecondsFormat::Secs, false));
            last = fire;
        }
        if found.join(", ") != *fires {
            wrong.push(format!(
                "{cron} | {zone} | {after}\n  wanted {fires}\n  found  {}",
                found.join(", ")
            ));
        }
        count += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count >= 100, "only {count} cases");
}

#[test]
fn what_is_not_cron_is_refused_with_a_sentence() {
    for (cron, says) in [
        ("", "has 5 fields"),
        ("* * * *", "this has 4"),
        ("* * * * * * *", "this has 7"),
        ("60 * * * *", "`60` in the field minutes is not a number from 0 to 59"),
        ("* 24 * * *", "in the field hours"),
        ("* * 0 * *", "in the field day of month"),
        ("* * * 13 *", "or a name from jan to dec"),
        ("* * * * 8", "is not a number from 0 to 7, or a name from sun to sat"),
        ("* * * * monday", "in the field weekday"),
        ("-1 * * * *", "in the field minutes"),
        ("*/0 * * * *", "the step `0`"),
        ("*/61 * * * *", "the step `61`"),
        ("5/15 * * * *", "a step wants a range in the field minutes: `5-59/15`"),
        ("* 22-2 * * *", "write two: `22-23,0-2`"),
        ("1,,2 * * * *", "in the field minutes"),
        ("* * ? * *", "`?` in the field day of month"),
        ("* * L * *", "`L` in the field day of month"),
        ("* * L-3 * *", "`L` in the field day of month"),
        ("* * LW * *", "`W` in the field day of month"),
        ("* * 15W * *", "`W` in the field day of month"),
        ("* * * * 5L", "`L` in the field weekday"),
        ("* * * * friL", "`L` in the field weekday"),
        ("* * * * 5#3", "`#` in the field weekday"),
        ("0 0 30 2 *", "it can never fire"),
        ("0 0 31 4,6,9,11 *", "it can never fire"),
        ("0 0 31 2 */2", "it can never fire"),
        ("@reboot", "names no time"),
        ("@every 5m", "use the kind `interval`"),
        ("@often", "there are the nicknames @hourly"),
        ("* * * * \u{0663}", "in the field weekday"),
        ("99999999999999999999 * * * *", "in the field minutes"),
    ] {
        let error = Cron::parse(cron).unwrap_err();
        assert!(error.contains(says), "{cron}: {error}");
    }
}

#[test]
fn a_zone_is_an_iana_name() {
    for name in ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Asia/Kathmandu"] {
        assert!(zone::parse(name).is_ok(), "{name}");
    }
    for name in ["", "Berlin", "UTC+1", "europe/atlantis"] {
        assert!(zone::parse(name).unwrap_err().contains("IANA time zone"), "{name}");
    }
}

const CRONS: [&str; 10] = [
    "* * * * *",
    "*/7 * * * *",
    "0 * * * *",
    "30 * * * *",
    "30 2 * * *",
    "*/20 1-3 * * *",
    "0 0 * * *",
    "15,45 */2 13 * fri",
    "59 23 28-31 * *",
    "*/13 */10 0 * * *",
];
const ZONES: [&str; 8] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Africa/Casablanca",
    "Antarctica/Troll",
    "Africa/Cairo",
    "Asia/Kathmandu",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Wherever one begins to look between two fires, the second is found: so a leader that was away misses nothing,
    /// and fires nothing twice.
    #[test]
    fn it_does_not_matter_where_one_begins(
        cron in 0..CRONS.len(), zone in 0..ZONES.len(), start in 1_700_000_000i64..1_900_000_000, part in 0.0..1.0f64,
    ) {
        let rule = rule(CRONS[cron], ZONES[zone]);
        let start = chrono::DateTime::from_timestamp(start, 0).unwrap();
        let first = next(&rule, start).unwrap();
        let second = next(&rule, first).unwrap();
        prop_assert!(start < first && first < second);
        let gap = (second - first).num_microseconds().unwrap();
        let between = first + TimeDelta::microseconds((gap as f64 * part) as i64);
        if between < second {
            prop_assert_eq!(next(&rule, between), Some(second));
        }
        prop_assert_eq!(next(&rule, second - TimeDelta::microseconds(1)), Some(second));
    }
}
