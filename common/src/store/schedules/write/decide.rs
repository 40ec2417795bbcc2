//! What becomes of a fire: a run to be written, or why there is none.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Done, Fate, Fire};
use crate::clock;
use crate::pipeline::InputSchema;
use crate::schedule::{Occasion, Outcome, Started, said};
use crate::store::accept::{NewRun, Subject};
use crate::store::pipelines::Submittable;
use crate::store::schedules::catalogue::Catalogue;

/// How a fire stands, and the run to be written for it.
pub(super) struct Decided {
    pub(super) done: Done,
    pub(super) run: Option<NewRun>,
}

impl Decided {
    fn without_run(outcome: Outcome, reason: Option<String>) -> Self {
        Self { done: Done { outcome, reason, run: None }, run: None }
    }
}

type Pipelines = HashMap<String, (Submittable, Option<Arc<InputSchema>>)>;

/// What becomes of each fire.
pub(super) async fn decide(
    conn: &mut PgConnection,
    catalogue: &mut Catalogue,
    fires: &[Fire],
) -> Result<Vec<Decided>, sqlx::Error> {
    let mut started = Vec::with_capacity(fires.len());
    let mut names = HashSet::new();
    for fire in fires {
        let found = match fire.fate {
            Fate::Start => Some(start(fire)),
            _ => None,
        };
        if let Some(Ok(Started::Pipeline { name, .. })) = &found {
            names.insert(name.clone());
        }
        started.push(found);
    }
    let names: Vec<String> = names.into_iter().collect();
    let pipelines = catalogue.pipelines(conn, &names).await?;
    let decided = fires.iter().zip(started).map(|(fire, started)| match (&fire.fate, started) {
        (Fate::Skip(why), _) => Decided::without_run(Outcome::Skipped, Some(why.clone())),
        (Fate::Refuse(why), _) => Decided::without_run(Outcome::Refused, Some(why.clone())),
        (Fate::Wait, _) | (Fate::Start, None) => Decided::without_run(Outcome::Waiting, None),
        (Fate::Start, Some(started)) => {
            match started.and_then(|started| subject(started, &pipelines)) {
                Ok((subject, lane, input)) => {
                    let run = new_run(fire, subject, lane, input);
                    let done = Done { outcome: Outcome::Started, reason: None, run: Some(run.id) };
                    Decided { done, run: Some(run) }
                }
                Err(why) => Decided::without_run(Outcome::Refused, Some(why)),
            }
        }
    });
    Ok(decided.collect())
}

fn start(fire: &Fire) -> Result<Started, String> {
    let event = fire.event.as_ref().map_or(&Value::Null, |event| &event.shown);
    let occasion = Occasion { schedule: fire.schedule, fire_at: fire.fire_at, event };
    fire.known.starter.start(&fire.known.spec, occasion)
}

/// What to run, in which lane it starts, and its input; or why not.
fn subject(started: Started, pipelines: &Pipelines) -> Result<(Subject, String, Value), String> {
    match started {
        Started::Action { node, input } => {
            let lane = node.lane.clone();
            let node = serde_json::to_value(node).map_err(|error| error.to_string())?;
            Ok((Subject::Action { node }, lane, input))
        }
        Started::Pipeline { name, input } => {
            let Some((pipeline, schema)) = pipelines.get(&name) else {
                return Err(format!("there is no pipeline {name:?}"));
            };
            if pipeline.paused {
                return Err(format!("the pipeline {name:?} is paused"));
            }
            let faults = schema.as_ref().map(|schema| schema.check(&input)).unwrap_or_default();
            if !faults.is_empty() {
                return Err(format!(
                    "the input does not fit the pipeline's input_schema: {}",
                    said(&faults)
                ));
            }
            let (id, version) = (pipeline.id, pipeline.version);
            Ok((Subject::Pipeline { id, name, version }, pipeline.lane.clone(), input))
        }
    }
}

fn new_run(fire: &Fire, subject: Subject, lane: String, input: Value) -> NewRun {
    let spec = &fire.known.spec;
    let mut trigger = json!({
        "kind": "schedule",
        "cause": fire.cause,
        "schedule_id": fire.schedule,
        "schedule": spec.name,
        "fire_at": clock::text(&fire.fire_at),
    });
    if let Some(event) = &fire.event {
        trigger["event"] = json!({"id": event.id, "type": event.shown["type"]});
        trigger["depth"] = json!(event.depth + 1);
    }
    // An action's node has it already.
    if let (Subject::Pipeline { .. }, Some(retry)) = (&subject, &spec.retry) {
        trigger["retry"] = json!(retry);
    }
    NewRun {
        id: Uuid::now_v7(),
        subject,
        lane,
        input,
        trigger,
        tags: spec.tags.clone(),
        created_by: fire.by.clone().unwrap_or_else(|| fire.known.created_by.clone()),
        rerun_of: None,
        keep_completed: false,
        traceparent: None,
        delay: None,
    }
}
