//! The HTTP client of the tools. Every request of theirs leaves through [`Http::send`].

use std::collections::HashMap;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use futures::FutureExt;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Certificate, Client, ClientBuilder, Request, Response, Url};

use crate::Failure;
use crate::guard::{Guard, Refused, Unreachable};

/// How long a connection may take that says nothing about it.
const CONNECT: Duration = Duration::from_secs(10);
/// How many clients of other kinds than the usual one are kept.
const KEPT: usize = 32;

/// What of a client cannot differ from request to request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Manner {
    /// How long a connection may take.
    pub(crate) connect_timeout: Option<Duration>,
    /// Roots that are trusted besides the usual ones, as PEM.
    pub(crate) roots: Option<String>,
}

/// The client of the worker. It keeps connections alive between nodes, and reaches what the guard lets it reach.
pub(crate) struct Http {
    guard: Arc<Guard>,
    usual: Client,
    others: Mutex<HashMap<Manner, Client>>,
}

impl Http {
    pub(crate) fn open(guard: Arc<Guard>) -> anyhow::Result<Self> {
        // Fails if a provider is installed already; any will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let usual = builder(&guard).build().or_else(|error| {
            tracing::warn!(
                error = chain(&error),
                "no root certificates: no https server is trusted"
            );
            builder(&guard).tls_certs_only([]).build().context("cannot set up the HTTP client")
        })?;
        Ok(Self { guard, usual, others: Mutex::default() })
    }

    /// A client of this manner.
    pub(crate) fn client(&self, manner: &Manner) -> Result<Client, Failure> {
        if *manner == Manner::default() {
            return Ok(self.usual.clone());
        }
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = others.get(manner) {
            return Ok(client.clone());
        }
        let mut builder = builder(&self.guard);
        if let Some(timeout) = manner.connect_timeout {
            builder = builder.connect_timeout(timeout);
        }
        if let Some(pem) = &manner.roots {
            let roots = Certificate::from_pem_bundle(pem.as_bytes()).unwrap_or_default();
            if roots.is_empty() {
                return Err(Failure::permanent("`root_certificates` holds no certificate in PEM"));
            }
            builder = builder.tls_certs_merge(roots);
        }
        let client = builder.build().map_err(|error| {
            Failure::permanent(format!("`root_certificates` cannot be used: {}", chain(&error)))
        })?;
        if others.len() >= KEPT {
            others.clear();
        }
        others.insert(manner.clone(), client.clone());
        Ok(client)
    }

    /// Sends one request, if its host may be reached; redirects are the caller's.
    pub(crate) async fn send(&self, client: &Client, request: Request) -> Result<Response, Unsent> {
        let url = request.url().clone();
        let host = url.host_str().unwrap_or_default();
        if let Some(address) = literal(&url) {
            self.guard.permits(host, address)?;
        }
        let response =
            client.execute(request).await.map_err(|error| match cause::<Refused>(&error) {
                Some(refused) => Unsent::Refused(refused.clone()),
                None => Unsent::Failed(error),
            })?;
        // It was checked before the connection was made; what is read is read from nowhere else.
        if let Some(peer) = response.remote_addr() {
            self.guard.permits(host, peer.ip())?;
        }
        Ok(response)
    }
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unsent {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    Failed(reqwest::Error),
}

/// Proxies of the environment are not used, and redirects are not followed: both would get around the guard.
fn builder(guard: &Arc<Guard>) -> ClientBuilder {
    Client::builder()
        .user_agent(concat!("gathering/", env!("CARGO_PKG_VERSION")))
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .dns_resolver(Arc::new(Resolver(guard.clone())))
        .connect_timeout(CONNECT)
}

type BoxError = Box<dyn Error + Send + Sync>;

/// What the client connects to, when a URL has a name.
struct Resolver(Arc<Guard>);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.0.clone();
        async move {
            let found = guard.addresses(name.as_str()).await.map_err(|error| match error {
                Unreachable::Refused(refused) => BoxError::from(refused),
                Unreachable::Unknown(error) => BoxError::from(error),
            })?;
            let found: Addrs = Box::new(found.into_iter().map(|ip| SocketAddr::new(ip, 0)));
            Ok(found)
        }
        .boxed()
    }
}

/// The address of a URL that has one in place of a name: the client does not resolve it. Whatever form it was written
/// in (`0x7f.1`), it is an address once the URL is parsed.
fn literal(url: &Url) -> Option<std::net::IpAddr> {
    let host = url.host_str()?;
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).parse().ok()
}

fn cause<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
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
