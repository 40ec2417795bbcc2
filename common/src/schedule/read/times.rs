//! When a schedule fires, read; and what it would do, before there is one.

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use serde_json::Value;

use crate::clock::Instant;
use crate::pipeline::findings::{Fields, Findings};
use crate::problem::Pointed;
use crate::schedule::cron::Cron;
use crate::schedule::rule::{Bounds, Rule};
use crate::schedule::{Kind, Spec, zone};

/// The shortest interval.
const SHORTEST: std::time::Duration = std::time::Duration::from_secs(1);

/// A question: when would it fire?
#[derive(Debug)]
pub struct Preview {
    rule: Rule,
    /// After which moment; now, unless it says.
    pub after: Option<Instant>,
    count: usize,
}

impl Preview {
    /// The next moments after `after`; what intervals are counted from, too.
    pub fn fires(&self, after: Instant) -> Vec<Instant> {
        let bounds = Bounds { anchor: after, start_at: None, end_at: None };
        let first = self.rule.next(&bounds, after);
        std::iter::successors(first, |last| self.rule.next(&bounds, *last))
            .take(self.count)
            .collect()
    }
}

/// Reads `{kind, cron, timezone, interval, at, after, count}`.
pub fn preview(body: &Value) -> Result<Preview, Vec<Pointed>> {
    let mut findings = Findings::default();
    let read = read_preview(body, &mut findings);
    match read {
        Some(preview) if findings.errors.is_empty() => Ok(preview),
        _ => Err(findings.errors),
    }
}

fn read_preview(body: &Value, findings: &mut Findings) -> Option<Preview> {
    let mut fields = findings.fields(body, String::new())?;
    fields.only(&["kind", "cron", "timezone", "interval", "at", "after", "count"]);
    if fields.get("kind").is_none() {
        fields.missing("kind", "one of `cron`, `interval`, `once`");
    }
    let words = [("cron", Kind::Cron), ("interval", Kind::Interval), ("once", Kind::Once)];
    let kind = fields.word("kind", &words);
    let parts = Parts {
        cron: fields.text("cron").map(str::to_owned),
        timezone: fields.text("timezone").map(str::to_owned),
        interval: fields.duration("interval"),
        at: instant(&mut fields, "at"),
    };
    let after = instant(&mut fields, "after");
    let count = fields.integer("count", 1..=1_000).unwrap_or(10) as usize;
    let kind = kind?;
    super::fits(&mut fields, kind);
    let is_there = match kind {
        Kind::Cron => parts.cron.is_some(),
        Kind::Interval => parts.interval.is_some(),
        Kind::Once | Kind::Event => parts.at.is_some(),
    };
    if !is_there {
        return None;
    }
    let rule = parts.rule(kind).map_err(|error| findings.errors.push(error)).ok()?;
    Some(Preview { rule, after, count })
}

/// The fields of which a rule is made.
struct Parts {
    cron: Option<String>,
    timezone: Option<String>,
    interval: Option<std::time::Duration>,
    at: Option<Instant>,
}

/// The rule of a schedule.
pub(super) fn rule(spec: &Spec) -> Result<Rule, Pointed> {
    let Spec { cron, timezone, interval, at, .. } = spec;
    let parts =
        Parts { cron: cron.clone(), timezone: timezone.clone(), interval: *interval, at: *at };
    parts.rule(spec.kind)
}

impl Parts {
    fn rule(&self, kind: Kind) -> Result<Rule, Pointed> {
        match kind {
            Kind::Cron => {
                let zone = zone::parse(self.timezone.as_deref().unwrap_or("UTC"))
                    .map_err(|error| Pointed::new("/timezone", error))?;
                let cron = Cron::parse(self.cron.as_deref().unwrap_or_default())
                    .map_err(|error| Pointed::new("/cron", error))?;
                Ok(Rule::Cron { cron: Box::new(cron), zone })
            }
            Kind::Interval => {
                let interval = self.interval.unwrap_or_default();
                if interval < SHORTEST {
                    return Err(Pointed::new("/interval", "must be 1s at least"));
                }
                let too_long = |_| Pointed::new("/interval", "is too long");
                TimeDelta::from_std(interval).map(Rule::Interval).map_err(too_long)
            }
            Kind::Once => {
                let missing = || Pointed::new("/at", "`at` is missing");
                self.at.map(Rule::Once).ok_or_else(missing)
            }
            Kind::Event => Ok(Rule::Event),
        }
    }
}

/// An instant, to the microsecond.
pub(super) fn instant(fields: &mut Fields<'_, '_>, key: &str) -> Option<Instant> {
    let value = fields.get(key)?;
    let read = value.as_str().and_then(|text| DateTime::parse_from_rfc3339(text).ok());
    let read = read.map(|at| at.with_timezone(&Utc).trunc_subsecs(6));
    // What the database and the calendar can hold with ease.
    let read = read.filter(|at| (0..=7_258_118_400).contains(&at.timestamp()));
    if read.is_none() {
        fields.error(
            key,
            "must be an instant between 1970 and 2200, such as \"2030-01-31T08:00:00Z\"",
        );
    }
    read
}
