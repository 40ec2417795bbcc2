//! A job as an AMQP message, written for those who read it in the console, and back.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use serde::Serialize;
use std::time::{SystemTime, UNIX_EPOCH};
use thiserror::Error;
use uuid::Uuid;

use crate::job::{Job, Task};

/// Why a message is no job. Its text becomes the `reason` header in the dead queue.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct Garbage(String);

impl Garbage {
    pub(super) fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

/// The body: flat, and without what the headers carry.
#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    job: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    probe: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    child: Option<Uuid>,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pipeline: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<i32>,
}

/// Body and properties of a job sent by the process `app`.
pub(super) fn encode(job: &Job, app: &ShortString) -> (Vec<u8>, BasicProperties) {
    let (node, attempt) = match &job.task {
        Task::NodeExecute { node, attempt, .. } => (Some(node.as_str()), Some(*attempt)),
        // A call of a tool has a body of its own: see `call`.
        _ => (None, None),
    };
    let (probe, child) = match &job.task {
        Task::Probe { probe } => (Some(*probe), None),
        Task::ChildEnded { child, .. } => (None, Some(*child)),
        _ => (None, None),
    };
    let body = Body {
        kind: job.task.name(),
        job: job.id,
        run: job.task.run(),
        node,
        attempt,
        probe,
        child,
        reason: job.reason.name(),
        pipeline: job.pipeline.as_deref(),
        version: job.version,
    };
    let body = serde_json::to_vec(&body).expect("ids, numbers and strings always serialize");
    (body, properties(job, app, now()))
}

fn properties(job: &Job, app: &ShortString, timestamp: u64) -> BasicProperties {
    let message_id = match &job.task {
        Task::RunStart { run } => run.to_string(),
        Task::NodeExecute { run, node, attempt } => format!("{run}/{node}/{attempt}"),
        Task::ChildEnded { run, child } => format!("{run}/{child}"),
        Task::ChildrenStop { run } => format!("{run}/stop"),
        Task::Probe { probe } => probe.to_string(),
        Task::ToolCall { run, node, attempt, .. } => format!("{run}/{node}/{attempt}"),
    };
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_content_encoding("utf-8".into())
        .with_delivery_mode(2)
        .with_message_id(message_id.into())
        .with_type(job.task.name().into())
        .with_timestamp(timestamp)
        .with_app_id(app.clone())
        .with_headers(headers(job));
    match job.task.run() {
        Some(run) => properties.with_correlation_id(run.to_string().into()),
        None => properties,
    }
}

fn headers(job: &Job) -> FieldTable {
    let mut headers = FieldTable::default();
    let mut text = |name: &str, value: &str| {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    };
    text("reason", job.reason.name());
    if let Some(pipeline) = &job.pipeline {
        text("pipeline", pipeline);
    }
    if let Task::NodeExecute { node, .. } = &job.task {
        text("node", node);
    }
    if let Some(traceparent) = &job.traceparent {
        text("traceparent", traceparent);
    }
    if let Some(version) = job.version {
        headers.insert("version".into(), AMQPValue::LongInt(version));
    }
    headers
}

/// The job in a message, or what is wrong with it.
pub(super) fn decode(body: &[u8], properties: &BasicProperties) -> Result<Job, Garbage> {
    let mut job: Job = serde_json::from_slice(body)
        .map_err(|error| Garbage(format!("the body is no job: {error}")))?;
    job.traceparent = header(properties, "traceparent");
    Ok(job)
}

/// The outbox row whose job this body holds.
pub(super) fn job_id(body: &[u8]) -> Option<Uuid> {
    #[derive(serde::Deserialize)]
    struct Id {
        job: Uuid,
    }
    serde_json::from_slice::<Id>(body).ok().map(|id| id.job)
}

/// A header that holds text.
pub(super) fn header(properties: &BasicProperties, name: &str) -> Option<String> {
    match properties.headers().as_ref()?.inner().get(name)? {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok().map(str::to_owned),
        _ => None,
    }
}

/// The longest reason, and the most that is kept of headers, by their length as text: a message's headers travel in one
/// frame, and anybody may have sent it.
const LONGEST_REASON: usize = 1024;
const MOST_HEADERS: usize = 8 * 1024;

/// The properties of a message on its way to the dead queue: what it had, and why it is there.
pub(super) fn buried(
    properties: &BasicProperties,
    reason: &str,
    from_queue: &str,
) -> BasicProperties {
    let mut headers = properties.headers().clone().unwrap_or_default();
    if format!("{headers:?}").len() > MOST_HEADERS {
        headers = FieldTable::default();
        headers.insert("headers_left_out".into(), AMQPValue::Boolean(true));
    }
    let reason = &reason[..reason.floor_char_boundary(LONGEST_REASON)];
    headers.insert("reason".into(), AMQPValue::LongString(reason.into()));
    headers.insert("from_queue".into(), AMQPValue::LongString(from_queue.into()));
    properties.clone().with_headers(headers).with_delivery_mode(2)
}

/// Seconds since 1970: AMQP knows no finer instants.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::job::Reason;

    #[test]
    fn what_is_buried_fits_into_one_frame() {
        let headers = |text: &str| {
            let mut headers = FieldTable::default();
            headers.insert("theirs".into(), AMQPValue::LongString(text.into()));
            BasicProperties::default().with_headers(headers)
        };
        let small = buried(&headers("kept"), "why", "lane");
        assert_eq!(header(&small, "theirs").as_deref(), Some("kept"));
        assert_eq!(header(&small, "reason").as_deref(), Some("why"));
        let large = buried(&headers(&"x".repeat(100_000)), &"ä".repeat(10_000), "lane");
        assert_eq!(header(&large, "theirs"), None);
        assert_eq!(header(&large, "reason").map(|reason| reason.len()), Some(LONGEST_REASON));
        assert_eq!(header(&large, "from_queue").as_deref(), Some("lane"));
    }

    const ROW: Uuid = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001);
    const RUN: Uuid = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0002);

    fn execute(node: &str) -> Job {
        Job {
            id: ROW,
            task: Task::NodeExecute { run: RUN, node: node.into(), attempt: 2 },
            reason: Reason::Retry,
            pipeline: Some("nightly".into()),
            version: Some(3),
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        }
    }

    fn body(job: &Job) -> String {
        String::from_utf8(encode(job, &"gathering-worker".into()).0).unwrap()
    }

    #[test]
    fn a_body_reads_well_and_carries_no_trace() {
        assert_eq!(
            body(&execute("b")),
            r#"{"type":"node.execute","job":"01900000-0000-7000-8000-000000000001","run":"01900000-0000-7000-8000-000000000002","node":"b","attempt":2,"reason":"retry","pipeline":"nightly","version":3}"#
        );
        let start = Job {
            task: Task::RunStart { run: RUN },
            reason: Reason::Submitted,
            pipeline: None,
            version: None,
            ..execute("")
        };
        assert_eq!(
            body(&start),
            r#"{"type":"run.start","job":"01900000-0000-7000-8000-000000000001","run":"01900000-0000-7000-8000-000000000002","reason":"submitted"}"#
        );
        let probe = Job { task: Task::Probe { probe: RUN }, reason: Reason::Probe, ..start };
        assert_eq!(
            body(&probe),
            r#"{"type":"probe","job":"01900000-0000-7000-8000-000000000001","probe":"01900000-0000-7000-8000-000000000002","reason":"probe"}"#
        );
    }

    #[test]
    fn properties_say_it_all_in_the_console() {
        let properties = properties(&execute("b"), &"gathering-worker".into(), 1_700_000_000);
        let text = |value: &Option<ShortString>| {
            value.as_ref().map(ToString::to_string).unwrap_or_default()
        };
        assert_eq!(text(properties.content_type()), "application/json");
        assert_eq!(text(properties.content_encoding()), "utf-8");
        assert_eq!(text(properties.message_id()), "01900000-0000-7000-8000-000000000002/b/2");
        assert_eq!(text(properties.correlation_id()), "01900000-0000-7000-8000-000000000002");
        assert_eq!(text(properties.kind()), "node.execute");
        assert_eq!(text(properties.app_id()), "gathering-worker");
        assert_eq!(*properties.delivery_mode(), Some(2));
        assert_eq!(*properties.timestamp(), Some(1_700_000_000));
        let names: Vec<_> = properties
            .headers()
            .as_ref()
            .unwrap()
            .inner()
            .keys()
            .map(|name| name.as_str().to_owned())
            .collect();
        assert_eq!(names, ["node", "pipeline", "reason", "traceparent", "version"]);
        assert_eq!(header(&properties, "reason").as_deref(), Some("retry"));
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        for task in [
            Task::RunStart { run: RUN },
            Task::NodeExecute { run: RUN, node: "b".into(), attempt: 7 },
            Task::Probe { probe: RUN },
        ] {
            let job = Job { task, ..execute("") };
            let (body, properties) = encode(&job, &"x".into());
            assert_eq!(decode(&body, &properties).unwrap(), job);
            assert_eq!(job_id(&body), Some(ROW));
        }
    }

    #[test]
    fn garbage_is_named() {
        let why = |body: &[u8]| decode(body, &BasicProperties::default()).unwrap_err().to_string();
        assert_eq!(why(b"hello"), "the body is no job: expected value at line 1 column 1");
        assert!(why(b"").contains("EOF"));
        assert!(why(b"\xff\xfe").contains("expected value"));
        assert!(why(br#"{"type":"run.stop"}"#).contains("the body is no job"));
        let unknown = format!(r#"{{"type":"run.stop","job":"{ROW}","reason":"retry"}}"#);
        assert!(
            why(unknown.as_bytes()).contains("unknown variant `run.stop`"),
            "{}",
            why(unknown.as_bytes())
        );
        let no_run = format!(r#"{{"type":"run.start","job":"{ROW}","reason":"retry"}}"#);
        assert!(
            why(no_run.as_bytes()).contains("missing field `run`"),
            "{}",
            why(no_run.as_bytes())
        );
    }

    #[test]
    fn the_longest_names_stay_below_one_kibibyte() {
        let long = "n".repeat(128);
        let job = Job { pipeline: Some(long.clone()), version: Some(i32::MAX), ..execute(&long) };
        let job =
            Job { task: Task::NodeExecute { run: RUN, node: long, attempt: i32::MAX }, ..job };
        let (body, properties) = encode(&job, &"gathering-scheduler".into());
        assert!(body.len() < 1024, "{}", body.len());
        assert!(properties.message_id().as_ref().unwrap().as_str().len() <= 255);
    }

    #[test]
    fn the_dead_queue_tells_why_and_keeps_the_rest() {
        let (_, properties) = encode(&execute("b"), &"x".into());
        let properties = buried(&properties, "the body is no job", "gathering.work.default");
        assert_eq!(header(&properties, "reason").as_deref(), Some("the body is no job"));
        assert_eq!(header(&properties, "from_queue").as_deref(), Some("gathering.work.default"));
        assert_eq!(header(&properties, "pipeline").as_deref(), Some("nightly"));
    }
}
