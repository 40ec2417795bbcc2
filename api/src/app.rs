//! What all requests share.

use std::ops::Deref;
use std::sync::Arc;

use common::outbox::Outbox;
use common::store::Pool;
use tokio_util::sync::CancellationToken;

use crate::accept::Acceptance;
use crate::auth::Tokens;
use crate::outline::Outlines;
use crate::watch::Watch;

/// A handle to it.
#[derive(Clone)]
pub(crate) struct App(Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) pool: Pool,
    pub(crate) outbox: Outbox,
    pub(crate) tokens: Tokens,
    pub(crate) acceptance: Acceptance,
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
