//! Which hosts a tool may reach: what is on the public internet, and what the worker's operator has opened.
//!
//! A name is resolved here, and connected to at one of the addresses that were checked: resolving it once more could
//! give others. So every connection asks [`Guard::addresses`] for a name, and [`Guard::permits`] for an address.

mod allowed;
mod ranges;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;

pub(crate) use self::allowed::AllowedHosts;
use self::ranges::Range;
use crate::Failure;

/// Answers which addresses a name has.
type Names = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync>;

pub(crate) struct Guard {
    allowed: AllowedHosts,
    names: Names,
}

impl Guard {
    pub(crate) fn new(allowed: AllowedHosts) -> Self {
        Self::asking(allowed, Arc::new(|name| system(name).boxed()))
    }

    /// One that asks somebody else than the system for the addresses of names.
    pub(crate) fn asking(allowed: AllowedHosts, names: Names) -> Self {
        Self { allowed, names }
    }

    /// Those addresses of a host that may be connected to; at least one.
    pub(crate) async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, Unreachable> {
        let host = plain(host);
        if let Ok(address) = host.parse() {
            return Ok(self.permits(&host, address).map(|()| vec![address])?);
        }
        let found = (self.names)(host.clone()).await.map_err(Unreachable::Unknown)?;
        let mut refused = None;
        let mut good = Vec::new();
        for address in found {
            match self.permits(&host, address) {
                Ok(()) => good.push(address),
                Err(why) => refused = Some(why),
            }
        }
        match (good.is_empty(), refused) {
            (false, _) => Ok(good),
            (true, Some(refused)) => Err(refused.into()),
            (true, None) => {
                let none = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
                Err(Unreachable::Unknown(none))
            }
        }
    }

    /// Whether a host may be connected to at this address.
    pub(crate) fn permits(&self, host: &str, address: IpAddr) -> Result<(), Refused> {
        let host = plain(host);
        if self.allowed.has_name(&host) || self.allowed.has_address(address) {
            return Ok(());
        }
        match ranges::not_public(address) {
            None => Ok(()),
            Some(range) => Err(Refused { host, range }),
        }
    }
}

/// A host without what only stands around it: brackets, and the dot of the root.
fn plain(host: &str) -> String {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

async fn system(name: String) -> io::Result<Vec<IpAddr>> {
    let found = tokio::net::lookup_host((name, 0)).await?;
    Ok(found.map(|address: SocketAddr| address.ip()).collect())
}

/// A host that may not be reached.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refused {
    host: String,
    range: &'static Range,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Range { what, source, .. } = self.range;
        write!(
            f,
            "`{}` may not be reached: its address is {what} ({source}); the operator of a worker opens a host with \
             GATHERING_ALLOWED_HOSTS",
            self.host
        )
    }
}

impl std::error::Error for Refused {}

/// Why there is no address to connect to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreachable {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("the name cannot be resolved: {0}")]
    Unknown(io::Error),
}

impl From<Unreachable> for Failure {
    fn from(error: Unreachable) -> Self {
        match error {
            Unreachable::Refused(refused) => Self::permanent(refused.to_string()),
            Unreachable::Unknown(_) => Self::retryable(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests;
