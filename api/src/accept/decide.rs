//! What is answered to each request of a batch, decided from what was found. Nothing here asks or writes.

use std::collections::{HashMap, HashSet};

use common::store::accept::NewRun;
use common::store::idempotency::{Given, NewKey};
use serde_json::{Value, json};

use super::known::Found;
use super::{Asked, Reply, new_runs};
use crate::error::{ApiError, Kind};
use crate::submission::Wanted;

type KeyId = (String, String, String);

/// One request's way to its answer.
#[derive(Debug)]
pub(super) enum Decision {
    Open,
    /// The same request stands before it in this batch: it gets that one's answer.
    Same(usize),
    /// These runs are to be written, and this answered.
    Accepted(Vec<NewRun>, Reply),
    /// Its key was claimed elsewhere between the look and the claim.
    Lost,
    Answered(Result<Reply, ApiError>),
}

/// A batch on its way.
pub(super) struct Round<'a> {
    asked: &'a [Asked],
    keys: Vec<Option<NewKey>>,
    decisions: Vec<Decision>,
    pipelines: HashMap<String, Found>,
}

/// The key under which the request's answer will be stored; the answer is filled in when it is known.
fn new_key(asked: &Asked) -> Option<NewKey> {
    asked.key.as_ref().map(|key| NewKey {
        principal: asked.caller.clone(),
        route: key.route.clone(),
        key: key.key.clone(),
        body_hash: key.body_hash.clone(),
        answer: Value::Null,
    })
}

fn id_of(key: &NewKey) -> KeyId {
    (key.principal.clone(), key.route.clone(), key.key.clone())
}

impl<'a> Round<'a> {
    pub(super) fn of(asked: &'a [Asked]) -> Self {
        let keys: Vec<Option<NewKey>> = asked.iter().map(new_key).collect();
        let mut first: HashMap<KeyId, usize> = HashMap::new();
        let decisions = keys.iter().enumerate().map(|(at, key)| {
            let Some(key) = key else { return Decision::Open };
            match *first.entry(id_of(key)).or_insert(at) {
                earlier if earlier == at => Decision::Open,
                earlier => match &keys[earlier] {
                    Some(same) if same.body_hash == key.body_hash => Decision::Same(earlier),
                    _ => Decision::Answered(Err(reused())),
                },
            }
        });
        let decisions = decisions.collect();
        Self { asked, keys, decisions, pipelines: HashMap::new() }
    }

    /// Whether an answer that is still to be given is to be stored.
    pub(super) fn has_keys(&self) -> bool {
        self.keys().next().is_some()
    }

    /// The keys of the requests that are not answered yet.
    pub(super) fn keys(&self) -> impl Iterator<Item = &NewKey> {
        self.keys.iter().zip(&self.decisions).filter_map(|(key, decision)| match decision {
            Decision::Open | Decision::Accepted(..) | Decision::Lost => key.as_ref(),
            Decision::Same(_) | Decision::Answered(_) => None,
        })
    }

    /// Answers what was answered before.
    pub(super) fn answer_given(&mut self, given: &[Given]) {
        for (key, decision) in self.keys.iter().zip(&mut self.decisions) {
            let (Some(key), Decision::Open | Decision::Lost) = (key, &decision) else { continue };
            let same = |given: &&Given| {
                given.principal == key.principal && given.route == key.route && given.key == key.key
            };
            if let Some(given) = given.iter().find(same) {
                *decision = Decision::Answered(match given.body_hash == key.body_hash {
                    true => serde_json::from_value(given.answer.clone())
                        .map_err(|error| ApiError::internal(format!("a stored answer: {error}"))),
                    false => Err(reused()),
                });
            }
        }
    }

    /// The pipelines that are asked for.
    pub(super) fn names(&self) -> Vec<String> {
        let open = self.open().flat_map(|(_, asked)| asked.wanted.iter().flatten());
        let names: HashSet<&String> = open
            .filter_map(|submission| match &submission.subject {
                Wanted::Newest { name } => Some(name),
                _ => None,
            })
            .collect();
        names.into_iter().cloned().collect()
    }

    /// Whether the inputs of all that is open were checked, and found right, for what was found.
    pub(super) fn is_checked(&self) -> bool {
        let mut asked = self.open().flat_map(|(_, asked)| asked.wanted.iter().flatten());
        asked.all(|submission| match &submission.subject {
            Wanted::Newest { name } => {
                let found = self.pipelines.get(name).map(Found::version);
                found.is_some() && submission.checked_for == found
            }
            Wanted::Version { .. } | Wanted::Action { .. } => true,
        })
    }

    fn open(&self) -> impl Iterator<Item = (usize, &'a Asked)> {
        let open = |at: &usize| matches!(self.decisions[*at], Decision::Open);
        (0..self.asked.len()).filter(open).map(|at| (at, &self.asked[at]))
    }

    pub(super) fn found(&mut self, pipelines: Vec<Found>) {
        let named = |found: Found| (found.pipeline.name.clone(), found);
        self.pipelines = pipelines.into_iter().map(named).collect();
    }

    /// Accepts or refuses what is open.
    pub(super) fn decide(&mut self) {
        let open: Vec<_> = self.open().collect();
        for (at, asked) in open {
            self.decisions[at] = match new_runs::of(asked, &self.pipelines) {
                Ok((runs, reply)) => {
                    if let Some(key) = &mut self.keys[at] {
                        key.answer = json!(reply);
                    }
                    Decision::Accepted(runs, reply)
                }
                Err(error) => Decision::Answered(Err(error)),
            };
        }
    }

    /// The keys that are to be stored with their answers.
    pub(super) fn new_keys(&self) -> Vec<&NewKey> {
        let pairs = self.keys.iter().zip(&self.decisions);
        let accepted = pairs.filter(|(_, decision)| matches!(decision, Decision::Accepted(..)));
        accepted.filter_map(|(key, _)| key.as_ref()).collect()
    }

    /// Drops the runs of those whose keys were claimed elsewhere.
    pub(super) fn keep_claimed(&mut self, claimed: &HashSet<KeyId>) {
        for (key, decision) in self.keys.iter().zip(&mut self.decisions) {
            if let (Some(key), Decision::Accepted(..)) = (key, &decision)
                && !claimed.contains(&id_of(key))
            {
                *decision = Decision::Lost;
            }
        }
    }

    /// Whether somebody else's answers are to be read.
    pub(super) fn lost_any(&self) -> bool {
        self.decisions.iter().any(|decision| matches!(decision, Decision::Lost))
    }

    /// The runs to be written.
    pub(super) fn runs(&mut self) -> Vec<NewRun> {
        let mut runs = Vec::new();
        for decision in &mut self.decisions {
            if let Decision::Accepted(accepted, _) = decision {
                runs.append(accepted);
            }
        }
        runs
    }

    /// One answer for each request, in order.
    pub(super) fn into_answers(self) -> Vec<Result<Reply, ApiError>> {
        let mut answers: Vec<Result<Reply, ApiError>> = Vec::with_capacity(self.decisions.len());
        for decision in self.decisions {
            let answer = match decision {
                Decision::Accepted(_, reply) => Ok(reply),
                Decision::Answered(answer) => answer,
                Decision::Same(earlier) => answers[earlier].clone(),
                // Its key has an answer, which could not be read.
                Decision::Lost => Err(ApiError::unavailable("The database is away; try again.")),
                Decision::Open => Err(ApiError::internal("a request was left without an answer")),
            };
            answers.push(answer);
        }
        answers
    }
}

fn reused() -> ApiError {
    ApiError::new(
        Kind::KeyReused,
        "This Idempotency-Key was sent before with another body; take a new one for another request.",
    )
}

#[cfg(test)]
mod tests;
