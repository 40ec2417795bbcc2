//! The table of all routes: method, path, what it needs, and what it does.

mod api_keys;
mod audit_events;
mod auth;
mod batch;
mod dead_letters;
mod docs;
mod events;
mod lanes;
mod nodes;
mod openapi;
mod pipelines;
mod runs;
mod schedules;
mod secrets;
mod submit;
mod tools;
mod users;
mod validate;
mod workers;

use axum::Router;
use axum::handler::Handler;
use axum::http::{HeaderValue, Method};
use axum::middleware;
use axum::routing::{MethodFilter, MethodRouter, on};
use common::access::Role;

use crate::app::App;
use crate::auth::{Needs, admit};
use crate::limit::Tier;
use crate::{hygiene, request};

/// One row of the table.
struct Route {
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
    const NOBODY: Needs = Needs::Nobody;
    const VIEWER: Needs = Needs::Role(Role::Viewer);
    const OPERATOR: Needs = Needs::Role(Role::Operator);
    const ADMIN: Needs = Needs::Role(Role::Admin);
    vec![
        route(POST, "/v1/auth/register", NOBODY, auth::register),
        route(POST, "/v1/auth/token", NOBODY, auth::token),
        route(POST, "/v1/auth/refresh", NOBODY, auth::refresh),
        route(POST, "/v1/auth/logout", VIEWER, auth::logout),
        route(POST, "/v1/auth/password", VIEWER, auth::password),
        route(GET, "/v1/auth/me", VIEWER, auth::me),
        route(POST, "/v1/api-keys", VIEWER, api_keys::create),
        route(GET, "/v1/api-keys", VIEWER, api_keys::list),
        route(DELETE, "/v1/api-keys/{id}", VIEWER, api_keys::revoke),
        route(POST, "/v1/users", ADMIN, users::create),
        route(GET, "/v1/users", ADMIN, users::list),
        route(GET, "/v1/users/{id}", ADMIN, users::read),
        route(PATCH, "/v1/users/{id}", ADMIN, users::change),
        route(GET, "/v1/audit-events", ADMIN, audit_events::list),
        route(POST, "/v1/secrets", OPERATOR, secrets::put),
        route(GET, "/v1/secrets", VIEWER, secrets::list),
        route(DELETE, "/v1/secrets/{name}", OPERATOR, secrets::delete),
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
        route(GET, "/v1/tools", VIEWER, self::tools::list),
        route(GET, "/v1/workers", VIEWER, workers::list),
        route(GET, "/v1/lanes", VIEWER, lanes::list),
        route(GET, "/v1/dead-letters", VIEWER, dead_letters::list),
        route(GET, "/v1/dead-letters/{id}", VIEWER, dead_letters::read),
        route(POST, "/v1/dead-letters/{id}/redrive", OPERATOR, dead_letters::redrive),
        route(DELETE, "/v1/dead-letters/{id}", OPERATOR, dead_letters::dismiss),
        route(GET, "/openapi.json", NOBODY, openapi::document),
        route(GET, "/docs", NOBODY, docs::page),
    ]
}

/// The api as a service; `ops` answers what operators ask of every process, and pages of `origins` may call it.
pub(crate) fn router(app: App, ops: Router, origins: Vec<HeaderValue>) -> Router {
    let mut router = Router::new();
    for Route { method, path, needs, handler } in table() {
        let tier = Tier::of(&method, path);
        let guard = middleware::from_fn_with_state((app.clone(), needs, tier), admit);
        router = router.route(path, handler.route_layer(guard));
    }
    let mut router = router.with_state(app.clone()).merge(ops);
    if !origins.is_empty() {
        router = router.layer(hygiene::cors(origins));
    }
    router.layer(middleware::from_fn_with_state(app, request::handle))
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

    /// Whoever reads the document knows what each route asks for.
    #[test]
    fn the_document_says_what_each_route_needs() {
        let document = serde_json::to_value(openapi::built()).expect("the document is JSON");
        for route in table() {
            let method = route.method.as_str().to_lowercase();
            let said = &document["paths"][route.path][method]["x-needs"];
            assert_eq!(said, route.needs.name(), "{} {}", route.method, route.path);
        }
    }

    #[test]
    fn only_signing_in_and_the_documentation_are_for_everybody() {
        let open: Vec<&str> = table()
            .iter()
            .filter(|route| route.needs == Needs::Nobody)
            .map(|route| route.path)
            .collect();
        let expected =
            ["/v1/auth/register", "/v1/auth/token", "/v1/auth/refresh", "/openapi.json", "/docs"];
        assert_eq!(open, expected);
    }

    /// Reading is for viewers and changing is not, but for what is one's own and what is an admin's.
    #[test]
    fn each_role_may_do_what_it_is_for() {
        let own = ["/v1/auth/logout", "/v1/auth/password", "/v1/api-keys", "/v1/api-keys/{id}"];
        let admins = ["/v1/users", "/v1/users/{id}", "/v1/audit-events"];
        for route in table() {
            let Needs::Role(role) = route.needs else { continue };
            let asks = ["/v1/pipelines/validate", "/v1/schedules/preview"];
            let reads = route.method == Method::GET || asks.contains(&route.path);
            let expected = match route.path {
                path if admins.contains(&path) => Role::Admin,
                path if own.contains(&path) || reads => Role::Viewer,
                _ => Role::Operator,
            };
            assert_eq!(role, expected, "{} {}", route.method, route.path);
        }
    }
}
