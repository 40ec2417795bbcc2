//! Checking definitions.

use std::collections::HashMap;

use axum::Json;
use axum::extract::State;
use common::graph::{Graph, NodeIx};
use common::pipeline::{self, Checked, Refused};
use common::problem::Pointed;
use common::store::pipelines;
use common::tool::Catalogue;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::pipelines::start_lane;
use crate::app::App;
use crate::error::{ApiError, Problem};
use crate::extract::DefinitionBody;

/// What is right and wrong with a definition.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Validation {
    valid: bool,
    #[schema(value_type = Vec<super::openapi::Warning>)]
    errors: Vec<Pointed>,
    #[schema(value_type = Vec<super::openapi::Warning>)]
    warnings: Vec<Pointed>,
    /// The nodes, each after all that lead to it; empty when it is not valid.
    order: Vec<String>,
}

/// Check a definition, and store nothing
#[utoipa::path(post, path = "/v1/pipelines/validate", tag = "pipelines",
    request_body(content((Value = "application/json"), (String = "application/yaml"))),
    responses((status = 200, body = Validation), (status = 400, body = Problem)))]
pub(super) async fn validate(
    State(app): State<App>,
    DefinitionBody(body): DefinitionBody,
) -> Result<Json<Validation>, ApiError> {
    let tools = app.toolbox.all().await?;
    let found = off_thread(move || {
        check(&body, &tools).map(|(graph, warnings)| {
            let id = |ix: &u32| graph.node(*ix).node.id.clone();
            let order: Vec<String> = graph.order().iter().map(id).collect();
            (graph.name().to_owned(), warnings, order, graph.calls())
        })
    });
    let invalid =
        |errors, warnings| Validation { valid: false, errors, warnings, order: Vec::new() };
    Ok(Json(match found.await? {
        Err(Refused { errors, warnings }) => invalid(errors, warnings),
        Ok((name, warnings, order, calls)) => match circle(&app, &name, &calls).await? {
            Some(error) => invalid(vec![error], warnings),
            None => Validation { valid: true, errors: Vec::new(), warnings, order },
        },
    }))
}

/// What is stored beside a definition.
pub(super) struct Start {
    /// The lane where its runs start.
    pub(super) lane: String,
    /// The pipelines that they start whatever happens.
    pub(super) calls: Vec<String>,
}

/// The definition, as it was read, and what is stored beside it; or all that is wrong with it.
pub(super) async fn checked(app: &App, body: Value) -> Result<(Value, Checked, Start), ApiError> {
    let tools = app.toolbox.all().await?;
    let found = off_thread(move || match check(&body, &tools) {
        Ok((graph, warnings)) => {
            let (lane, calls) = (start_lane(&graph), graph.calls());
            Ok((body, Checked { definition: graph.into_definition(), warnings }, lane, calls))
        }
        Err(refused) => Err(ApiError::pointed(refused.errors)),
    });
    let (body, checked, lane, calls) = found.await??;
    if let Some(error) = circle(app, &checked.definition.name, &calls).await? {
        return Err(ApiError::pointed(vec![error]));
    }
    let mut calls: Vec<String> = calls.into_iter().map(|(name, _)| name).collect();
    calls.sort_unstable();
    calls.dedup();
    Ok((body, checked, Start { lane, calls }))
}

/// How many pipelines are looked at for a way back. A way that is longer ends at the runs' depth.
const MOST_LOOKED_AT: usize = 2_000;

/// Whether a chain of stored pipelines that start one another whatever happens leads back to `name`.
async fn circle(
    app: &App,
    name: &str,
    calls: &[(String, NodeIx)],
) -> Result<Option<Pointed>, ApiError> {
    // Each pipeline with the one that starts it; those of the definition itself with none.
    let mut by: HashMap<String, Option<String>> =
        calls.iter().map(|(called, _)| (called.clone(), None)).collect();
    let mut next: Vec<String> = by.keys().cloned().collect();
    while !next.is_empty() && by.len() < MOST_LOOKED_AT {
        let mut conn = app.pool.acquire().await?;
        let found = pipelines::calls(&mut conn, &next).await?;
        next.clear();
        for (caller, called) in found {
            if called.iter().any(|called| called == name) {
                return Ok(Some(way_back(&by, caller, calls)));
            }
            for called in called {
                if !by.contains_key(&called) {
                    by.insert(called.clone(), Some(caller.clone()));
                    next.push(called);
                }
            }
        }
    }
    Ok(None)
}

/// The way by which `last` is reached, which starts the pipeline itself.
fn way_back(
    by: &HashMap<String, Option<String>>,
    last: String,
    calls: &[(String, NodeIx)],
) -> Pointed {
    let mut way = vec![last];
    while let Some(Some(before)) = way.last().and_then(|name| by.get(name)) {
        way.push(before.clone());
    }
    way.reverse();
    let node = calls.iter().find(|(called, _)| way.first() == Some(called)).map_or(0, |it| it.1);
    Pointed::new(format!("/nodes/{node}/config/pipeline"), pipeline::circle(&way))
}

/// Also what only the api refuses: a name that its own addresses take.
fn check(body: &Value, tools: &Catalogue) -> Result<(Graph, Vec<Pointed>), Refused> {
    let checked = pipeline::check_graph(body, tools);
    if body.get("name").is_none_or(|name| name != "validate") {
        return checked;
    }
    let taken =
        Pointed::new("/name", "is taken by the address /v1/pipelines/validate; choose another");
    Err(match checked {
        Ok((_, warnings)) => Refused { errors: vec![taken], warnings },
        Err(mut refused) => {
            refused.errors.insert(0, taken);
            refused
        }
    })
}

/// Checking a large definition takes a while, in which the threads that serve requests have better to do.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| ApiError::internal(format!("checking a definition: {error}")))
}
