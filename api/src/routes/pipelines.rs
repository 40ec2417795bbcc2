//! Pipelines and their versions.

mod shown;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use common::pipeline::{Checked, DEFAULT_LANE};
use common::problem::Pointed;
use common::store::pipelines::{self, NewVersion};
use serde_json::{Value, json};
use uuid::Uuid;

use self::shown::PipelineView;
use super::validate;
use crate::app::App;
use crate::audit::{self, Trail};
use crate::auth::Caller;
use crate::error::{ApiError, Kind, Problem};
use crate::extract::{DefinitionBody, Name, Nothing};
use crate::page::{Page, Parameters};

/// What is stored of a definition.
fn new_version<'a>(
    definition: &'a Value,
    checked: &'a Checked,
    by: &'a str,
    lane: &'a str,
) -> NewVersion<'a> {
    NewVersion {
        name: &checked.definition.name,
        definition,
        lane,
        input_schema: checked.definition.input_schema.as_ref(),
        by,
    }
}

/// Create a pipeline
#[utoipa::path(post, path = "/v1/pipelines", tag = "pipelines",
    request_body(content((Value = "application/json"), (String = "application/yaml"))),
    responses((status = 201, body = PipelineView, headers(("Location" = String))), (status = 409, body = Problem),
        (status = 422, body = Problem)))]
pub(super) async fn create(
    State(app): State<App>,
    caller: Caller,
    trail: Trail,
    DefinitionBody(body): DefinitionBody,
) -> Result<Response, ApiError> {
    let (definition, checked, lane) = validate::checked(&app, body).await?;
    let new = new_version(&definition, &checked, &caller.sub, &lane);
    let mut conn = app.pool.acquire().await?;
    let pipeline = pipelines::create(&mut conn, Uuid::now_v7(), &new).await?;
    changed(&trail, &pipeline.name, json!({"change": "created", "version": pipeline.version}));
    let location = HeaderValue::try_from(format!("/v1/pipelines/{}", pipeline.name));
    let view = PipelineView::new(pipeline).stored(definition, checked.warnings);
    let mut response = view.answer(StatusCode::CREATED);
    if let Ok(location) = location {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// List pipelines by name
#[utoipa::path(get, path = "/v1/pipelines", tag = "pipelines",
    params(
        ("limit" = Option<i64>, Query, description = "1 to 200, usually 50"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, body = Page<PipelineView>), (status = 422, body = Problem)))]
pub(super) async fn list(
    State(app): State<App>,
    mut query: Parameters,
) -> Result<Json<Page<PipelineView>>, ApiError> {
    let after = query.cursor(|key| Some(key.to_owned())).unwrap_or_default();
    let limit = query.limit();
    query.finish(())?;
    let rows = pipelines::list(&app.pool, &after, limit + 1).await?;
    Ok(Json(Page::new(rows, limit, |pipeline| pipeline.name.clone(), PipelineView::new)))
}

/// Read a pipeline, in its newest version or another
#[utoipa::path(get, path = "/v1/pipelines/{name}", tag = "pipelines",
    params(("name" = String, Path), ("version" = Option<i32>, Query)),
    responses((status = 200, body = PipelineView), (status = 404, body = Problem)))]
pub(super) async fn read(
    State(app): State<App>,
    Name(name): Name,
    mut query: Parameters,
) -> Result<Response, ApiError> {
    let wanted = query.number::<i32>("version");
    query.finish(())?;
    let found = pipelines::find(&app.pool, &name).await?;
    let pipeline = found.ok_or_else(|| ApiError::no_pipeline(&name))?;
    let number = wanted.unwrap_or(pipeline.version);
    let version = pipelines::version(&app.pool, pipeline.id, number).await?.ok_or_else(|| {
        ApiError::new(Kind::Unknown, format!("The pipeline {name:?} has no version {number}."))
    })?;
    Ok(PipelineView::new(pipeline).at(version).answer(StatusCode::OK))
}

/// Replace a pipeline
///
/// Makes a new version; runs stay pinned to theirs. With `If-Match`, only if the newest version has that tag.
#[utoipa::path(put, path = "/v1/pipelines/{name}", tag = "pipelines",
    params(("name" = String, Path), ("If-Match" = Option<String>, Header)),
    request_body(content((Value = "application/json"), (String = "application/yaml"))),
    responses((status = 200, body = PipelineView), (status = 404, body = Problem), (status = 412, body = Problem),
        (status = 422, body = Problem)))]
pub(super) async fn replace(
    State(app): State<App>,
    caller: Caller,
    trail: Trail,
    Name(name): Name,
    headers: HeaderMap,
    DefinitionBody(body): DefinitionBody,
) -> Result<Response, ApiError> {
    let expected = if_match(&headers)?;
    let (definition, checked, lane) = validate::checked(&app, named(body, &name)?).await?;
    let new = new_version(&definition, &checked, &caller.sub, &lane);
    let mut conn = app.pool.acquire().await?;
    let Some(pipeline) = pipelines::replace(&mut conn, &new, expected).await? else {
        return Err(not_this_one(&app, &name).await);
    };
    changed(&trail, &name, json!({"change": "replaced", "version": pipeline.version}));
    let view = PipelineView::new(pipeline).stored(definition, checked.warnings);
    Ok(view.answer(StatusCode::OK))
}

/// Delete a pipeline
///
/// Its runs stay, and those that are under way go on.
#[utoipa::path(delete, path = "/v1/pipelines/{name}", tag = "pipelines",
    params(("name" = String, Path), ("If-Match" = Option<String>, Header)),
    responses((status = 204), (status = 404, body = Problem), (status = 412, body = Problem)))]
pub(super) async fn delete(
    State(app): State<App>,
    trail: Trail,
    Name(name): Name,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    let expected = if_match(&headers)?;
    let mut conn = app.pool.acquire().await?;
    if !pipelines::delete(&mut conn, &name, expected).await? {
        return Err(not_this_one(&app, &name).await);
    }
    changed(&trail, &name, json!({"change": "deleted"}));
    Ok(StatusCode::NO_CONTENT)
}

/// Pause a pipeline: submitting is refused, runs go on
#[utoipa::path(post, path = "/v1/pipelines/{name}/pause", tag = "pipelines",
    params(("name" = String, Path)),
    responses((status = 200, body = PipelineView), (status = 404, body = Problem)))]
pub(super) async fn pause(
    State(app): State<App>,
    trail: Trail,
    Name(name): Name,
    _: Nothing,
) -> Result<Response, ApiError> {
    set_paused(&app, &trail, &name, true).await
}

/// Resume a pipeline
#[utoipa::path(post, path = "/v1/pipelines/{name}/resume", tag = "pipelines",
    params(("name" = String, Path)),
    responses((status = 200, body = PipelineView), (status = 404, body = Problem)))]
pub(super) async fn resume(
    State(app): State<App>,
    trail: Trail,
    Name(name): Name,
    _: Nothing,
) -> Result<Response, ApiError> {
    set_paused(&app, &trail, &name, false).await
}

async fn set_paused(
    app: &App,
    trail: &Trail,
    name: &str,
    paused: bool,
) -> Result<Response, ApiError> {
    let mut conn = app.pool.acquire().await?;
    let pipeline = pipelines::set_paused(&mut conn, name, paused).await?;
    let pipeline = pipeline.ok_or_else(|| ApiError::no_pipeline(name))?;
    changed(trail, name, json!({"change": if paused { "paused" } else { "resumed" }}));
    Ok(PipelineView::new(pipeline).answer(StatusCode::OK))
}

fn changed(trail: &Trail, name: &str, detail: Value) {
    trail.record(audit::Kind::PipelineChanged, name, detail);
}

/// Why nothing was changed.
async fn not_this_one(app: &App, name: &str) -> ApiError {
    match pipelines::find(&app.pool, name).await {
        Ok(None) => ApiError::no_pipeline(name),
        Ok(Some(found)) => {
            let detail = format!(
                "The newest version of {name:?} is {}, not the one that `If-Match` names.",
                found.version
            );
            ApiError::new(Kind::VersionMismatch, detail)
        }
        Err(error) => error.into(),
    }
}

/// The version that `If-Match` names.
fn if_match(headers: &HeaderMap) -> Result<Option<i32>, ApiError> {
    let Some(given) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let text = given.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let version = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')?.parse().ok());
    let detail = "If-Match must be one tag as `ETag` gives it, such as \"3\".";
    version.map(Some).ok_or_else(|| ApiError::malformed(detail))
}

/// The definition under the name of its address, which it may leave out.
fn named(mut body: Value, name: &str) -> Result<Value, ApiError> {
    let Some(fields) = body.as_object_mut() else { return Ok(body) };
    match fields.get("name") {
        None => {
            fields.insert("name".to_owned(), Value::String(name.to_owned()));
        }
        Some(given) if given == name => {}
        Some(_) => {
            let detail =
                format!("must be {name:?}, as in the address; a pipeline cannot be renamed");
            return Err(ApiError::pointed(vec![Pointed::new("/name", detail)]));
        }
    }
    Ok(body)
}

/// The lane of the first root: where a run's start is sent.
pub(super) fn start_lane(graph: &common::graph::Graph) -> String {
    let first = graph.order().iter().find(|ix| graph.incoming(**ix).is_empty());
    first.map_or_else(|| DEFAULT_LANE.to_owned(), |ix| graph.node(*ix).node.lane.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_is_named_by_its_address() {
        assert_eq!(
            named(json!({"nodes": []}), "a").expect("it is"),
            json!({"name": "a", "nodes": []})
        );
        assert!(named(json!({"name": "a"}), "a").is_ok());
        let problem = named(json!({"name": "b"}), "a").expect_err("another name").problem();
        assert_eq!(problem.errors[0].pointer.as_deref(), Some("/name"));
    }

    #[test]
    fn if_match_names_a_version() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers
                .insert(header::IF_MATCH, HeaderValue::from_str(text).expect("a header's value"));
            if_match(&headers).map_err(|error| error.kind)
        };
        assert_eq!(if_match(&HeaderMap::new()).expect("nothing is wrong"), None);
        assert_eq!(read("*"), Ok(None));
        assert_eq!(read("\"3\""), Ok(Some(3)));
        assert_eq!(read("3"), Err(Kind::Malformed));
        assert_eq!(read("W/\"3\""), Err(Kind::Malformed));
    }
}
