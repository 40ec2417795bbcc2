//! The documentation as a page that needs nothing but this server.

use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};

/// Only what is in the page itself, and the document, may be loaded.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The documentation, for people
#[utoipa::path(get, path = "/docs", tag = "operations", security(()),
    responses((status = 200, content_type = "text/html", body = String)))]
pub(super) async fn page() -> Response {
    let policy = HeaderValue::from_static(POLICY);
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html(include_str!("docs.html"))).into_response()
}
