//! From events to the node runs that wait for them: each is answered by the first that is what it waits for.

use std::collections::HashMap;

use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use super::answer_all;
use crate::clock::Instant;
use crate::expression::{Expression, Outputs, Scope};
use crate::outbox::Row;
use crate::schedule::glob;
use crate::store::requeue;
use crate::store::schedules::events::Event;
use crate::wait::Answer;

/// How many conditions are kept compiled. Past that all are forgotten, and compiled anew as they are needed.
const KEPT: usize = 10_000;

/// The key of a wait.
pub type Key = (Uuid, String);

/// What came of a slice of those that listen.
#[derive(Debug, Default)]
pub struct Heard {
    /// Rows to publish after the commit.
    pub rows: Vec<Row>,
    /// Runs whose nodes go on.
    pub runs: Vec<Uuid>,
    /// Where the next slice begins; none at the end.
    pub next: Option<Key>,
}

/// Conditions, compiled.
#[derive(Debug, Default)]
pub struct Conditions(HashMap<String, Result<Expression, String>>);

struct Listener {
    run_id: Uuid,
    node: String,
    spec: Value,
    created_at: Instant,
}

/// Has up to `limit` node runs past `after` hear `events`. An event that came before one began to wait does not count;
/// one that comes once that is committed meets its row here, since it is not deleted before this was asked of all.
pub async fn hear(
    conn: &mut PgConnection,
    conditions: &mut Conditions,
    events: &[Event],
    after: Option<&Key>,
    limit: i64,
) -> Result<Heard, sqlx::Error> {
    let listeners = listeners(conn, events, after, limit).await?;
    let mut heard = Heard::default();
    if listeners.len() as i64 == limit {
        heard.next = listeners.last().map(|last| (last.run_id, last.node.clone()));
    }
    let (mut answers, mut notes) = (Vec::new(), Vec::new());
    for listener in listeners {
        match first(conditions, &listener, events) {
            Ok(Some(event)) => {
                heard.runs.push(listener.run_id);
                answers.push((listener.run_id, listener.node, Answer::EventCame { event }));
            }
            Ok(None) => {}
            Err(why) => notes.push((listener.run_id, listener.node, why)),
        }
    }
    if answers.is_empty() && notes.is_empty() {
        return Ok(heard);
    }
    let ids = answers.iter().map(|it| it.0).chain(notes.iter().map(|it| it.0)).collect();
    let mut runs = requeue::lock_runs(conn, ids).await?;
    heard.rows = answer_all(conn, &mut runs, &answers).await?;
    note(conn, &notes).await?;
    Ok(heard)
}

async fn listeners(
    conn: &mut PgConnection,
    events: &[Event],
    after: Option<&Key>,
    limit: i64,
) -> Result<Vec<Listener>, sqlx::Error> {
    let types: Vec<&str> = events.iter().map(|event| event.event_type.as_str()).collect();
    sqlx::query_as!(
        Listener,
        "select w.run_id, w.node, w.spec, w.created_at from waits as w
         where w.listens is not null and exists (select from unnest($1::text[]) as t (type) where t.type like w.listens)
             and ($2::uuid is null or (w.run_id, w.node) > ($2, $3::text))
         order by w.run_id, w.node limit $4",
        &types as &[&str],
        after.map(|key| key.0),
        after.map(|key| key.1.as_str()),
        limit
    )
    .fetch_all(conn)
    .await
}

/// The first event that is what is waited for; an error when none is, and a condition could not be evaluated.
fn first(
    conditions: &mut Conditions,
    listener: &Listener,
    events: &[Event],
) -> Result<Option<Value>, String> {
    let wanted = listener.spec["type"].as_str().unwrap_or_default();
    let mut wrong = None;
    for event in events {
        let is_like = event.created_at >= listener.created_at
            && glob::matches(wanted, &event.event_type)
            && holds(&event.data, &listener.spec["match"]);
        if !is_like {
            continue;
        }
        let shown = event.shown();
        match conditions.is_met(&listener.spec["condition"], &shown) {
            Ok(true) => return Ok(Some(shown)),
            Ok(false) => {}
            Err(why) => wrong = Some(format!("the event {} could not be judged: {why}", event.id)),
        }
    }
    wrong.map_or(Ok(None), Err)
}

/// Whether `data` has all that `wanted` has; null wants nothing.
fn holds(data: &Value, wanted: &Value) -> bool {
    match (data, wanted) {
        (_, Value::Null) => true,
        (Value::Object(data), Value::Object(wanted)) => wanted.iter().all(|(key, wanted)| {
            data.get(key).is_some_and(|value| match wanted {
                Value::Object(_) => holds(value, wanted),
                wanted => value == wanted,
            })
        }),
        (data, wanted) => data == wanted,
    }
}

struct NoOutputs;

impl Outputs for NoOutputs {
    fn output(&self, _: &str) -> Option<&Value> {
        None
    }
}

impl Conditions {
    fn is_met(&mut self, condition: &Value, event: &Value) -> Result<bool, String> {
        let Some(source) = condition.as_str() else { return Ok(true) };
        if self.0.len() >= KEPT && !self.0.contains_key(source) {
            self.0.clear();
        }
        let compiled = self.0.entry(source.to_owned());
        let compiled = compiled.or_insert_with(|| Expression::compile_event(source)).as_ref();
        let (input, null) = (json!({"event": event, "data": event["data"]}), Value::Null);
        let scope = Scope {
            input: &input,
            outputs: &NoOutputs,
            run: &null,
            output: None,
            secrets: None,
            item: None,
        };
        compiled.map_err(Clone::clone)?.is_true(&scope)
    }
}

/// Tells people why an event was not taken; the next one may be.
async fn note(
    conn: &mut PgConnection,
    notes: &[(Uuid, String, String)],
) -> Result<(), sqlx::Error> {
    if notes.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "update waits as w set spec = jsonb_set(w.spec, '{note}', to_jsonb(n.why))
         from unnest($1::uuid[], $2::text[], $3::text[]) as n (run_id, node, why)
         where w.run_id = n.run_id and w.node = n.node and w.answer is null",
        &notes.iter().map(|it| it.0).collect::<Vec<_>>(),
        &notes.iter().map(|it| it.1.as_str()).collect::<Vec<_>>() as &[&str],
        &notes.iter().map(|it| it.2.as_str()).collect::<Vec<_>>() as &[&str],
    )
    .execute(conn)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_holds_what_is_wanted_at_any_depth() {
        let data = json!({"id": 7, "by": {"name": "a", "team": "x"}, "list": [1, 2]});
        assert!(holds(&data, &Value::Null));
        assert!(holds(&data, &json!({"id": 7, "by": {"team": "x"}})));
        assert!(holds(&data, &json!({"list": [1, 2]})));
        assert!(!holds(&data, &json!({"list": [1]})));
        assert!(!holds(&data, &json!({"by": {"team": "y"}})));
        assert!(!holds(&json!([]), &json!({"id": 7})));
    }
}
