//! The call of a remote tool as a message, and the reply to it: the only messages that hold more than pointers, since
//! the programs at their other ends reach nothing else.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::message::{Garbage, now};
use crate::job::{Job, Task};
use crate::remote::{CallId, Reply, Said};

#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    job: Uuid,
    tool: &'a str,
    run: Uuid,
    node: &'a str,
    attempt: i32,
    idempotency_key: String,
    timeout_ms: i64,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pipeline: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<i32>,
    input: &'a Value,
}

/// Body and properties of a call, to which replies go into the queue `replies`; none for other jobs.
pub(super) fn encode(
    job: &Job,
    app: &ShortString,
    replies: &ShortString,
) -> Option<(Vec<u8>, BasicProperties)> {
    let Task::ToolCall { run, node, attempt, tool, input, timeout_ms } = &job.task else {
        return None;
    };
    let body = Body {
        kind: job.task.name(),
        job: job.id,
        tool,
        run: *run,
        node,
        attempt: *attempt,
        idempotency_key: format!("{run}/{node}"),
        timeout_ms: *timeout_ms,
        reason: job.reason.name(),
        pipeline: job.pipeline.as_deref(),
        version: job.version,
        input,
    };
    let body = serde_json::to_vec(&body).expect("ids, numbers, strings and JSON always serialize");
    let id: ShortString = format!("{run}/{node}/{attempt}").into();
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_content_encoding("utf-8".into())
        .with_delivery_mode(2)
        .with_message_id(id.clone())
        .with_correlation_id(id)
        .with_reply_to(replies.clone())
        // Nobody waits for what is taken later.
        .with_expiration(timeout_ms.to_string().into())
        .with_type(job.task.name().into())
        .with_timestamp(now())
        .with_app_id(app.clone())
        .with_headers(headers(job, tool, node));
    Some((body, properties))
}

fn headers(job: &Job, tool: &str, node: &str) -> FieldTable {
    let mut headers = FieldTable::default();
    let texts = [
        ("tool", Some(tool)),
        ("node", Some(node)),
        ("reason", Some(job.reason.name())),
        ("pipeline", job.pipeline.as_deref()),
        ("traceparent", job.traceparent.as_deref()),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            headers.insert(name.into(), AMQPValue::LongString(text.into()));
        }
    }
    if let Some(version) = job.version {
        headers.insert("version".into(), AMQPValue::LongInt(version));
    }
    headers
}

/// The reply in a message, or what is wrong with it.
pub(super) fn reply(body: &[u8], properties: &BasicProperties) -> Result<Reply, Garbage> {
    let id = properties.correlation_id().as_ref().map(ShortString::as_str);
    let call = id.and_then(CallId::parse).ok_or_else(|| {
        Garbage::new("the correlation_id is none of a call: send back what came with it")
    })?;
    let said = Said::read(body).map_err(Garbage::new)?;
    Ok(Reply { call, said, weight: body.len() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use serde_json::json;

    use super::*;
    use crate::job::Reason;

    fn job() -> Job {
        let task = Task::ToolCall {
            run: Uuid::from_u128(2),
            node: "count".into(),
            attempt: 3,
            tool: "count-words".into(),
            input: json!({"text": "a b"}),
            timeout_ms: 60_000,
        };
        let (pipeline, version) = (Some("nightly".into()), Some(3));
        Job {
            id: Uuid::from_u128(1),
            task,
            reason: Reason::Called,
            pipeline,
            version,
            traceparent: None,
        }
    }

    #[test]
    fn a_call_holds_all_that_a_program_needs() {
        let (body, properties) = encode(&job(), &"w".into(), &"g.replies".into()).unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let run = Uuid::from_u128(2);
        assert_eq!(
            body,
            json!({"type": "tool.call", "job": Uuid::from_u128(1), "tool": "count-words", "run": run,
                "node": "count", "attempt": 3, "idempotency_key": format!("{run}/count"), "timeout_ms": 60_000,
                "reason": "called", "pipeline": "nightly", "version": 3, "input": {"text": "a b"}})
        );
        let text = |value: &Option<ShortString>| value.as_ref().map(ToString::to_string);
        assert_eq!(text(properties.correlation_id()), Some(format!("{run}/count/3")));
        assert_eq!(text(properties.reply_to()).as_deref(), Some("g.replies"));
        assert_eq!(text(properties.expiration()).as_deref(), Some("60000"));
    }

    #[test]
    fn a_job_with_a_call_is_read_back_from_its_row() {
        let row = serde_json::to_value(job()).unwrap();
        assert_eq!(serde_json::from_value::<Job>(row).unwrap(), job());
    }

    #[test]
    fn a_reply_names_its_call_by_the_correlation_id() {
        let (_, call) = encode(&job(), &"w".into(), &"r".into()).unwrap();
        let properties =
            BasicProperties::default().with_correlation_id(call.correlation_id().clone().unwrap());
        let read = reply(br#"{"output": 2}"#, &properties).unwrap();
        assert_eq!((read.call.node.as_str(), read.call.attempt), ("count", 3));
        assert_eq!(read.said, Said::Output(json!(2)));
        let why = |body: &[u8], properties| reply(body, &properties).unwrap_err().to_string();
        assert!(why(br#"{"output": 2}"#, BasicProperties::default()).contains("correlation_id"));
        assert!(why(b"x", properties).contains("no JSON"));
    }
}
