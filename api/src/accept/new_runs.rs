//! What becomes of a request's submissions: runs to be written, or problems.

use std::collections::HashMap;

use common::store::accept::{NewRun, Subject};
use serde_json::{Value, json};
use uuid::Uuid;

use super::known::Found;
use super::{Asked, Reply};
use crate::error::{ApiError, Kind, Problem};
use crate::submission::{Submission, Wanted};

/// The runs that the request is to get, and what is answered once they are committed.
pub(super) fn of(
    asked: &Asked,
    pipelines: &HashMap<String, Found>,
) -> Result<(Vec<NewRun>, Reply), ApiError> {
    let run = |submission: &Submission| {
        let (subject, lane) = subject(submission, pipelines)?;
        Ok(new_run(asked, submission, subject, lane))
    };
    if !asked.is_list {
        return match asked.wanted.first() {
            Some(Ok(submission)) => run(submission).map(|run| {
                let location = Some(format!("/v1/runs/{}", run.id));
                let reply = Reply { status: 202, location, body: accepted(&run) };
                (vec![run], reply)
            }),
            _ => Err(ApiError::internal("a request for one run came without it")),
        };
    }
    let mut runs = Vec::with_capacity(asked.wanted.len());
    let mut items = Vec::with_capacity(asked.wanted.len());
    for wanted in &asked.wanted {
        let outcome = match wanted {
            Ok(submission) => run(submission).map_err(ApiError::problem),
            Err(problem) => Err(problem.clone()),
        };
        items.push(item(outcome.as_ref().map(accepted)));
        runs.extend(outcome.ok());
    }
    Ok((runs, Reply { status: 200, location: None, body: json!({"items": items}) }))
}

/// What to run, and in which lane it starts.
fn subject(
    submission: &Submission,
    pipelines: &HashMap<String, Found>,
) -> Result<(Subject, String), ApiError> {
    match &submission.subject {
        Wanted::Action { node, lane } => Ok((Subject::Action { node: node.clone() }, lane.clone())),
        Wanted::Version { id, name, version, lane } => {
            let subject = Subject::Pipeline { id: *id, name: name.clone(), version: *version };
            Ok((subject, lane.clone()))
        }
        Wanted::Newest { name } => {
            let found = pipelines.get(name).ok_or_else(|| ApiError::no_pipeline(name))?;
            let (id, version) = found.version();
            if found.pipeline.paused {
                let detail = format!("The pipeline {name:?} is paused: resume it, then submit.");
                return Err(ApiError::new(Kind::Paused, detail));
            }
            let faults = found.faults(submission);
            if !faults.is_empty() {
                return Err(ApiError::pointed(faults));
            }
            Ok((Subject::Pipeline { id, name: name.clone(), version }, found.pipeline.lane.clone()))
        }
    }
}

fn new_run(asked: &Asked, submission: &Submission, subject: Subject, lane: String) -> NewRun {
    NewRun {
        id: Uuid::now_v7(),
        subject,
        lane,
        input: submission.input.clone(),
        trigger: json!({"kind": if submission.rerun_of.is_some() { "rerun" } else { "api" }}),
        tags: submission.tags.clone(),
        created_by: asked.caller.clone(),
        rerun_of: submission.rerun_of,
        keep_completed: submission.keep_completed,
        traceparent: Some(asked.traceparent.clone()),
        delay: submission.delay,
    }
}

/// What is said of a run that was accepted: as much as is known before it is written.
pub(crate) fn accepted(run: &NewRun) -> Value {
    let (kind, pipeline, version) = match &run.subject {
        Subject::Pipeline { name, version, .. } => ("pipeline", Some(name), Some(version)),
        Subject::Action { .. } => ("action", None, None),
    };
    json!({"id": run.id, "kind": kind, "pipeline": pipeline, "version": version, "state": "queued"})
}

fn item(outcome: Result<Value, &Problem>) -> Value {
    match outcome {
        Ok(run) => json!({"status": 202, "run": run}),
        Err(problem) => json!({"status": problem.status, "problem": problem}),
    }
}
