//! What every answer carries for the sake of those who read it in a browser.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowOrigin, CorsLayer};

/// Loads nothing, is framed by nobody, and is not guessed at.
const ALWAYS: [(HeaderName, &str); 5] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// A year of nothing but TLS.
const HSTS: &str = "max-age=31536000; includeSubDomains";

/// Adds them; a policy that a page has of its own stays.
pub(crate) fn add(headers: &mut HeaderMap, is_secure: bool) {
    for (name, value) in ALWAYS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    // What is about somebody is kept by nobody in between.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if is_secure {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static(HSTS));
    }
}

/// Lets pages of these origins call the api.
pub(crate) fn cors(origins: Vec<HeaderValue>) -> CorsLayer {
    const ASKED: [&str; 7] = [
        "authorization",
        "content-type",
        "idempotency-key",
        "if-match",
        "last-event-id",
        "traceparent",
        "x-request-id",
    ];
    const TOLD: [&str; 7] = [
        "etag",
        "location",
        "ratelimit-limit",
        "ratelimit-remaining",
        "ratelimit-reset",
        "retry-after",
        "x-request-id",
    ];
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers(ASKED.map(HeaderName::from_static))
        .expose_headers(TOLD.map(HeaderName::from_static))
        .max_age(std::time::Duration::from_secs(3600))
}

/// An origin as browsers send it.
pub(crate) fn origin(text: &str) -> Result<HeaderValue, String> {
    let wrong = || format!("{text:?} is no origin such as https://app.example.org, without a path");
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let host = host.filter(|host| !host.is_empty() && !host.contains(['/', '*', ' ', '?', '#']));
    HeaderValue::from_str(text).ok().filter(|_| host.is_some()).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_a_scheme_and_a_host() {
        assert!(
            origin("https://app.example.org").is_ok() && origin("http://localhost:3000").is_ok()
        );
        for wrong in ["*", "null", "app.example.org", "https://", "https://a/", "https://*.a"] {
            assert!(origin(wrong).is_err(), "{wrong}");
        }
    }
}
