//! What all requests share.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use common::broker::Look;
use common::outbox::Outbox;
use common::secret::Keys;
use common::store::Pool;
use tokio_util::sync::CancellationToken;

use crate::accept::Acceptance;
use crate::address::Proxies;
use crate::audit::Audit;
use crate::auth::password::Passwords;
use crate::auth::{Principals, Tokens};
use crate::limit::Limits;
use crate::outline::Outlines;
use crate::reads::Reads;
use crate::toolbox::Toolbox;
use crate::watch::Watch;

/// A handle to it.
#[derive(Clone)]
pub(crate) struct App(Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) pool: Pool,
    pub(crate) reads: Reads,
    pub(crate) outbox: Outbox,
    /// What lies in the broker's queues.
    pub(crate) look: Look,
    pub(crate) tokens: Tokens,
    pub(crate) principals: Principals,
    pub(crate) passwords: Passwords,
    /// Whether anybody may make an account.
    pub(crate) is_registration_open: bool,
    pub(crate) audit: Audit,
    pub(crate) limits: Limits,
    pub(crate) proxies: Proxies,
    /// What secrets are sealed with; none when there are none.
    pub(crate) secrets: Option<Keys>,
    pub(crate) request_timeout: Duration,
    pub(crate) acceptance: Acceptance,
    /// The tools that actions may ask for.
    pub(crate) toolbox: Toolbox,
    pub(crate) outlines: Outlines,
    pub(crate) watch: Watch,
    /// Cancelled when the process begins to drain: who waits answers with what there is, streams end.
    pub(crate) draining: CancellationToken,
}

impl App {
    pub(crate) fn new(shared: Shared) -> Self {
        Self(Arc::new(shared))
    }
}

impl Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}
