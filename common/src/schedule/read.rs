//! From JSON to a schedule: all that is wrong with it, each with its place.

mod times;

use std::time::Duration;

use serde_json::{Map, Value, json};

pub use self::times::{Preview, preview};
use super::rule::Rule;
use super::start::Starter;
use super::{Kind, Misfire, Overlap, Spec, Start};
use crate::duration;
use crate::expression::Expression;
use crate::pipeline::findings::{Fields, Findings};
use crate::pipeline::read;
use crate::problem::{Pointed, quoted, unstorable};
use crate::tool::Catalogue;

/// The longest name.
const LONGEST_NAME: usize = 128;
/// The longest type of an event, and the longest pattern of one.
const LONGEST_TYPE: usize = 200;
/// How late a fire may be that says nothing about it: as long as it takes a standby to take over, and then some.
const GRACE: Duration = Duration::from_secs(60);
/// The longest jitter and the longest grace.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);
/// How many missed moments `fire_all` fires that says nothing about it.
const CATCH_UP: u32 = 100;

const FIELDS: [&str; 20] = [
    "name",
    "kind",
    "cron",
    "timezone",
    "interval",
    "at",
    "event_type",
    "condition",
    "start",
    "misfire",
    "misfire_grace",
    "max_catch_up",
    "overlap",
    "start_at",
    "end_at",
    "max_fires",
    "jitter",
    "retry",
    "tags",
    "max_consecutive_failures",
];

/// Reads and checks a schedule, also what it gives to one of `tools`.
pub fn check(body: &Value, tools: &Catalogue) -> Result<Spec, Vec<Pointed>> {
    let mut findings = Findings::default();
    if let Some(pointer) = unstorable(body) {
        findings
            .error(pointer, "has a character U+0000, which the database cannot hold; leave it out");
    }
    let spec = spec(body, &mut findings);
    if let Some(spec) = &spec
        && findings.errors.is_empty()
        && let Err(errors) = compile(spec, Some(tools))
    {
        findings.errors.extend(errors);
    }
    match spec {
        Some(spec) if findings.errors.is_empty() => Ok(spec),
        _ => Err(findings.errors),
    }
}

/// The parts of a schedule that are compiled: when it fires, on which condition, and what it starts. Without `tools`,
/// what an action is given is taken on trust: whoever defined it has checked it, and the worker will.
pub fn compile(
    spec: &Spec,
    tools: Option<&Catalogue>,
) -> Result<(Rule, Option<Expression>, Starter), Vec<Pointed>> {
    let mut errors = Vec::new();
    let rule = times::rule(spec).map_err(|error| errors.push(error)).ok();
    let condition = spec.condition.as_deref().and_then(|source| {
        let compiled = Expression::compile_condition(source);
        compiled.map_err(|error| errors.push(Pointed::new("/condition", error))).ok()
    });
    let starter = Starter::compile(spec, tools).map_err(|found| errors.extend(found)).ok();
    match (rule, starter) {
        (Some(rule), Some(starter)) if errors.is_empty() => Ok((rule, condition, starter)),
        _ => Err(errors),
    }
}

fn spec(body: &Value, findings: &mut Findings) -> Option<Spec> {
    let mut fields = findings.fields(body, String::new())?;
    fields.only(&FIELDS);
    if fields.get("name").is_none() {
        fields.missing("name", "the name of the schedule");
    }
    let name = fields.name("name", LONGEST_NAME).unwrap_or_default().to_owned();
    if fields.get("kind").is_none() {
        fields.missing("kind", "one of `cron`, `interval`, `once`, `event`");
    }
    let kind = fields.word("kind", &Kind::ALL.map(|kind| (kind.name(), kind)));
    let start = start(&mut fields);
    let retry = fields.get("retry").is_some().then(|| read::retry(&mut fields));
    let misfires =
        [("skip", Misfire::Skip), ("fire_once", Misfire::FireOnce), ("fire_all", Misfire::FireAll)];
    let overlaps = [
        ("skip", Overlap::Skip),
        ("allow", Overlap::Allow),
        ("queue", Overlap::Queue),
        ("cancel_previous", Overlap::CancelPrevious),
    ];
    let usual = if kind == Some(Kind::Event) { Overlap::Allow } else { Overlap::Skip };
    let spec = Spec {
        name,
        kind: kind.unwrap_or(Kind::Event),
        cron: fields.text("cron").map(str::to_owned),
        timezone: fields.text("timezone").map(str::to_owned),
        interval: fields.duration("interval"),
        at: times::instant(&mut fields, "at"),
        event_type: fields.text("event_type").map(str::to_owned),
        condition: fields.text("condition").map(str::to_owned),
        start: start
            .unwrap_or_else(|| Start::Pipeline { pipeline: String::new(), input: json!({}) }),
        misfire: fields.word("misfire", &misfires).unwrap_or_default(),
        misfire_grace: wait(&mut fields, "misfire_grace").unwrap_or(GRACE),
        max_catch_up: fields.integer("max_catch_up", 1..=1_000).unwrap_or(CATCH_UP),
        overlap: fields.word("overlap", &overlaps).unwrap_or(usual),
        start_at: times::instant(&mut fields, "start_at"),
        end_at: times::instant(&mut fields, "end_at"),
        max_fires: fields.integer("max_fires", 1..=1_000_000_000),
        jitter: wait(&mut fields, "jitter").unwrap_or_default(),
        retry,
        tags: tags(&mut fields),
        max_consecutive_failures: fields.integer("max_consecutive_failures", 1..=1_000_000),
    };
    if let Some(kind) = kind {
        fits(&mut fields, kind);
        if kind == Kind::Event {
            event_type(&mut fields, spec.event_type.as_deref().unwrap_or_default());
        }
    }
    if spec.start_at.zip(spec.end_at).is_some_and(|(start, end)| end < start) {
        fields.error("end_at", "must not be before `start_at`");
    }
    Some(spec)
}

/// Each kind has fields that it must have, and fields that only it has.
fn fits(fields: &mut Fields<'_, '_>, kind: Kind) {
    let own: [(&str, Kind, Option<&str>); 6] = [
        ("cron", Kind::Cron, Some("an expression such as \"0 9 * * mon-fri\"")),
        ("timezone", Kind::Cron, None),
        ("interval", Kind::Interval, Some(duration::FORM)),
        ("at", Kind::Once, Some("an instant such as \"2030-01-31T08:00:00Z\"")),
        (
            "event_type",
            Kind::Event,
            Some("the type of an event, such as `order.paid` or `order.*`"),
        ),
        ("condition", Kind::Event, None),
    ];
    for (field, of, form) in own {
        match (of == kind, fields.get(field).is_some(), form) {
            (true, false, Some(form)) => fields.missing(field, form),
            (false, true, _) => {
                let detail =
                    format!("is for the kind `{}`, and this is `{}`", of.name(), kind.name());
                fields.error(field, detail);
            }
            _ => {}
        }
    }
}

fn event_type(fields: &mut Fields<'_, '_>, pattern: &str) {
    if !pattern.is_empty() && !is_type(pattern, true) {
        fields.error("event_type", type_form(pattern));
    }
}

/// Whether a text can be the type of an event, or, with `*` and `?`, a pattern of types.
fn is_type(text: &str, is_pattern: bool) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':' | '/');
    (1..=LONGEST_TYPE).contains(&text.len())
        && text.chars().all(|c| is_plain(c) || is_pattern && matches!(c, '*' | '?'))
}

/// Whether a text can be the type of an event.
pub fn is_event_type(text: &str) -> bool {
    is_type(text, false)
}

/// What the type of an event is made of.
pub fn type_form(text: &str) -> String {
    format!(
        "must be made of letters, digits, `.`, `_`, `-`, `:` and `/`, at most {LONGEST_TYPE} (in a schedule also `*` and \
         `?`, which stand for any text and any character), and is {}",
        quoted(text)
    )
}

fn wait(fields: &mut Fields<'_, '_>, key: &str) -> Option<Duration> {
    let wait = fields.duration(key)?;
    if wait > LONGEST_WAIT {
        fields.error(key, "may be 24h at most");
        return None;
    }
    Some(wait)
}

fn tags(fields: &mut Fields<'_, '_>) -> Vec<String> {
    let items = fields.list("tags");
    if items.len() > 32 {
        fields.error("tags", "may have 32 items at most");
    }
    let mut tags = Vec::new();
    for (ix, item) in items.iter().enumerate() {
        match item.as_str() {
            Some(tag) if (1..=128).contains(&tag.len()) => {
                if !tags.iter().any(|known| known == tag) {
                    tags.push(tag.to_owned());
                }
            }
            _ => {
                let pointer = format!("{}/{ix}", fields.at("tags"));
                fields.findings.error(pointer, "must be a string of 1 to 128 bytes");
            }
        }
    }
    tags
}

fn start(fields: &mut Fields<'_, '_>) -> Option<Start> {
    const FORM: &str = "`{pipeline, input}` or `{action, input}`";
    let Some(value) = fields.get("start") else {
        fields.missing("start", FORM);
        return None;
    };
    let mut start = fields.findings.fields(value, "/start".to_owned())?;
    let input = start.get("input").cloned().unwrap_or_else(|| Value::Object(Map::new()));
    match (start.get("pipeline").is_some(), start.get("action").is_some()) {
        (true, false) => {
            start.only(&["pipeline", "input"]);
            let pipeline = start.name("pipeline", LONGEST_NAME)?.to_owned();
            Some(Start::Pipeline { pipeline, input })
        }
        (false, true) => {
            start.only(&["action", "input", "timeout", "lane"]);
            Some(Start::Action {
                action: start.text("action")?.to_owned(),
                input,
                timeout: start.text("timeout").map(str::to_owned),
                lane: start.text("lane").map(str::to_owned),
            })
        }
        _ => {
            fields.error("start", format!("must be {FORM}, and not both"));
            None
        }
    }
}
