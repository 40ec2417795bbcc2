//! The HTTP client of the tools.

use std::error::Error;
use std::time::Duration;

use anyhow::Context as _;
use reqwest::Client;

/// The one client of the worker. It keeps connections alive between nodes.
///
/// Proxies of the environment are not used, nor are redirects followed by it: both would get around its user.
pub(crate) fn client() -> anyhow::Result<Client> {
    // Fails if a provider is installed already; any will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = || {
        Client::builder()
            .user_agent(concat!("gathering/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(10))
    };
    builder().build().or_else(|error| {
        tracing::warn!(error = chain(&error), "no root certificates: no https server is trusted");
        builder().tls_certs_only([]).build().context("cannot set up the HTTP client")
    })
}

/// An error with its causes, which reqwest leaves out of its messages.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
