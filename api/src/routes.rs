//! The table of all routes: method, path, what it needs, and what it does.

mod batch;
mod docs;
mod events;
mod nodes;
mod openapi;
mod pipelines;
mod runs;
mod schedules;
mod submit;
mod validate;
mod workers;

use axum::Router;
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware;
use axum::routing::{MethodFilter, MethodRouter, on};

use crate::app::App;
use crate::auth::{Needs, Role, admit};
use crate::request;

/// One row of the table.
struct Route {
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "the handler knows it; this is for who reads the table")
    )]
    method: Method,
    path: &'static str,
    needs: Needs,
    handler: MethodRouter<App>,
}

/// A row; the handler is reached only by those whom it is for.
fn route<H, T>(method: Method, path: &'static str, needs: Needs, handler: H) -> Route
where
    H: Handler<T, App>,
    T: 'static,
{
    let filter =
        MethodFilter::try_from(method.clone()).expect("the table has methods that HTTP has");
    Route { method, path, needs, handler: on(filter, handler) }
}

/// Every route of the api, but for what operators ask of every process.
fn table() -> Vec<Route> {
    const GET: Method = Method::GET;
    const POST: Method = Method::POST;
    const PUT: Method = Method::PUT;
    const PATCH: Method = Method::PATCH;
    const DELETE: Method = Method::DELETE;
    const VIEWER: Needs = Needs::Role(Role::Viewer);
    const OPERATOR: Needs = Needs::Role(Role::Operator);
    vec![
        route(POST, "/v1/pipelines", OPERATOR, pipelines::create),
        route(GET, "/v1/pipelines", VIEWER, pipelines::list),
        route(POST, "/v1/pipelines/validate", VIEWER, validate::validate),
        route(GET, "/v1/pipelines/{name}", VIEWER, pipelines::read),
        route(PUT, "/v1/pipelines/{name}", OPERATOR, pipelines::replace),
        route(DELETE, "/v1/pipelines/{name}", OPERATOR, pipelines::delete),
        route(POST, "/v1/pipelines/{name}/pause", OPERATOR, pipelines::pause),
        route(POST, "/v1/pipelines/{name}/resume", OPERATOR, pipelines::resume),
        route(POST, "/v1/pipelines/{name}/runs", OPERATOR, submit::pipeline),
        route(POST, "/v1/actions", OPERATOR, submit::action),
        route(POST, "/v1/runs:batch", OPERATOR, batch::submit),
        route(GET, "/v1/runs", VIEWER, runs::list),
        route(GET, "/v1/runs/{id}", VIEWER, runs::read),
        route(GET, "/v1/runs/{id}/nodes/{node}", VIEWER, nodes::read),
        route(GET, "/v1/runs/{id}/events", VIEWER, events::stream),
        route(POST, "/v1/runs/{id}/cancel", OPERATOR, runs::cancel),
        route(POST, "/v1/runs/{id}/rerun", OPERATOR, submit::rerun),
        route(POST, "/v1/schedules", OPERATOR, schedules::create),
        route(GET, "/v1/schedules", VIEWER, schedules::list),
        route(POST, "/v1/schedules/preview", VIEWER, schedules::preview),
        route(GET, "/v1/schedules/{id}", VIEWER, schedules::read),
        route(PATCH, "/v1/schedules/{id}", OPERATOR, schedules::patch),
        route(DELETE, "/v1/schedules/{id}", OPERATOR, schedules::delete),
        route(POST, "/v1/schedules/{id}/pause", OPERATOR, schedules::pause),
        route(POST, "/v1/schedules/{id}/resume", OPERATOR, schedules::resume),
        route(POST, "/v1/schedules/{id}/trigger", OPERATOR, schedules::trigger),
        route(GET, "/v1/schedules/{id}/fires", VIEWER, schedules::fires),
        route(POST, "/v1/schedules/{id}/backfills", OPERATOR, schedules::backfill),
        route(GET, "/v1/schedules/{id}/backfills", VIEWER, schedules::backfills),
        route(POST, "/v1/events", OPERATOR, schedules::post_event),
        route(GET, "/v1/workers", VIEWER, workers::list),
        route(GET, "/openapi.json", Needs::Nobody, openapi::document),
        route(GET, "/docs", Needs::Nobody, docs::page),
    ]
}

/// The api as a service; `ops` answers what operators ask of every process.
pub(crate) fn router(app: App, ops: Router) -> Router {
    let mut router = Router::new();
    for Route { path, needs, handler, .. } in table() {
        let guard = middleware::from_fn_with_state((app.clone(), needs), admit);
        router = router.route(path, handler.route_layer(guard));
    }
    router.with_state(app).merge(ops).layer(middleware::from_fn(request::handle))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The document names every route of the table, and no other.
    #[test]
    fn every_route_is_in_the_table_and_in_the_document() {
        let document = serde_json::to_value(openapi::built()).expect("the document is JSON");
        let paths = document["paths"].as_object().expect("the document has paths");
        let documented: BTreeSet<String> = paths
            .iter()
            .flat_map(|(path, methods)| {
                let methods = methods.as_object().into_iter().flat_map(|methods| methods.keys());
                methods.map(move |method| format!("{} {path}", method.to_uppercase()))
            })
            .collect();
        let table: BTreeSet<String> =
            table().iter().map(|route| format!("{} {}", route.method, route.path)).collect();
        assert_eq!(documented, table);
    }

    #[test]
    fn only_the_documentation_is_for_everybody() {
        let open: Vec<&str> = table()
            .iter()
            .filter(|route| route.needs == Needs::Nobody)
            .map(|route| route.path)
            .collect();
        assert_eq!(open, ["/openapi.json", "/docs"]);
    }

    #[test]
    fn reading_is_for_viewers_and_changing_is_not() {
        for route in table() {
            let Needs::Role(role) = route.needs else { continue };
            let asks = ["/v1/pipelines/validate", "/v1/schedules/preview"];
            let reads = route.method == Method::GET || asks.contains(&route.path);
            assert_eq!(role == Role::Viewer, reads, "{} {}", route.method, route.path);
        }
    }
}
