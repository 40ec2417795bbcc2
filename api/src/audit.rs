//! Security events: recorded beside the request, never in its way.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use common::batch::{Batcher, Work};
use common::store::audit_events::{self, NewEvent};
use common::store::{self, Pool};
use serde_json::Value;
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::app::App;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::request::Source;

/// How many events may wait to be written. While the database is away, what comes after them is only logged.
const WAITING: u32 = 10_000;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Login,
    LoginFailed,
    Logout,
    Refresh,
    RefreshReused,
    Registered,
    UserCreated,
    UserChanged,
    RoleChanged,
    PasswordChanged,
    KeyCreated,
    KeyRevoked,
    KeyRefused,
    AccessDenied,
    PipelineChanged,
    RunCancelled,
    Decision,
    SecretSet,
    SecretDeleted,
    DeadLetterRedriven,
    DeadLetterDismissed,
    ToolRegistered,
    ToolDeleted,
}

impl Kind {
    pub(crate) const ALL: [Self; 23] = [
        Self::Login,
        Self::LoginFailed,
        Self::Logout,
        Self::Refresh,
        Self::RefreshReused,
        Self::Registered,
        Self::UserCreated,
        Self::UserChanged,
        Self::RoleChanged,
        Self::PasswordChanged,
        Self::KeyCreated,
        Self::KeyRevoked,
        Self::KeyRefused,
        Self::AccessDenied,
        Self::PipelineChanged,
        Self::RunCancelled,
        Self::Decision,
        Self::SecretSet,
        Self::SecretDeleted,
        Self::DeadLetterRedriven,
        Self::DeadLetterDismissed,
        Self::ToolRegistered,
        Self::ToolDeleted,
    ];

    /// Its word.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::LoginFailed => "login_failed",
            Self::Logout => "logout",
            Self::Refresh => "refresh",
            Self::RefreshReused => "refresh_reused",
            Self::Registered => "registered",
            Self::UserCreated => "user_created",
            Self::UserChanged => "user_changed",
            Self::RoleChanged => "role_changed",
            Self::PasswordChanged => "password_changed",
            Self::KeyCreated => "key_created",
            Self::KeyRevoked => "key_revoked",
            Self::KeyRefused => "key_refused",
            Self::AccessDenied => "access_denied",
            Self::PipelineChanged => "pipeline_changed",
            Self::RunCancelled => "run_cancelled",
            Self::Decision => "decision",
            Self::SecretSet => "secret_set",
            Self::SecretDeleted => "secret_deleted",
            Self::DeadLetterRedriven => "dead_letter_redriven",
            Self::DeadLetterDismissed => "dead_letter_dismissed",
            Self::ToolRegistered => "tool_registered",
            Self::ToolDeleted => "tool_deleted",
        }
    }
}

/// Writes events in batches, and waits for the database when it is away.
#[derive(Clone)]
pub(crate) struct Audit {
    writer: Batcher<NewEvent, ()>,
    room: Arc<Semaphore>,
}

impl Audit {
    pub(crate) fn start(pool: Pool) -> Self {
        Self {
            writer: Batcher::start("audit", 500, Writing(pool)),
            room: Arc::new(Semaphore::new(WAITING as usize)),
        }
    }

    /// Records an event, and returns at once; nobody is refused when it fails. The answer to the request waits for it,
    /// for a moment ([`Source::recorded`]).
    pub(crate) fn record(
        &self,
        kind: Kind,
        source: &Source,
        actor: Option<&str>,
        subject: Option<&str>,
        detail: Value,
    ) {
        let event = NewEvent {
            id: Uuid::now_v7(),
            kind: kind.name(),
            actor: actor.map(str::to_owned),
            subject: subject.map(cut),
            address: shown(source.address),
            request_id: source.request_id.clone(),
            detail,
            since: Instant::now(),
        };
        tracing::info!(
            event = event.kind,
            actor = event.actor,
            subject = event.subject,
            address = event.address,
            "security event"
        );
        let Ok(room) = self.room.clone().try_acquire_owned() else {
            return lost(&event, "too many wait to be written");
        };
        let writer = self.writer.clone();
        source.events.spawn(async move {
            if let Err(error) = writer.submit(event.clone()).await {
                lost(&event, &error.to_string());
            }
            drop(room);
        });
    }

    /// Waits until all that was recorded is written, but not for ever.
    pub(crate) async fn written(&self) {
        let all = self.room.acquire_many(WAITING);
        if tokio::time::timeout(Duration::from_secs(5), all).await.is_err() {
            tracing::error!("security events are left that could not be written; the log has them");
        }
    }
}

/// The way of a handler to record what it does, in the name of its caller.
pub(crate) struct Trail {
    audit: Audit,
    source: Source,
    actor: Option<String>,
}

impl Trail {
    pub(crate) fn record(&self, kind: Kind, subject: &str, detail: Value) {
        self.audit.record(kind, &self.source, self.actor.as_deref(), Some(subject), detail);
    }

    /// The same, where the caller becomes known only here.
    pub(crate) fn record_by(&self, kind: Kind, actor: Option<&str>, detail: Value) {
        self.audit.record(kind, &self.source, actor, actor, detail);
    }
}

impl FromRequestParts<App> for Trail {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let source = Source::from_request_parts(parts, app).await?;
        let actor = parts.extensions.get::<Caller>().map(|caller| caller.sub.clone());
        Ok(Self { audit: app.audit.clone(), source, actor })
    }
}

/// The text, but not all of it when it is long.
fn cut(text: &str) -> String {
    text.chars().filter(|c| *c != '\0').take(500).collect()
}

/// An address as people write it.
pub(crate) fn shown(address: IpAddr) -> String {
    address.to_canonical().to_string()
}

fn lost(event: &NewEvent, why: &str) {
    metrics::counter!("gathering_audit_events_lost_total").increment(1);
    tracing::error!(
        why, event = event.kind, actor = event.actor, subject = event.subject, address = event.address,
        request_id = event.request_id, detail = %event.detail,
        "a security event could not be written"
    );
}

struct Writing(Pool);

impl Work for Writing {
    type Item = NewEvent;
    type Answer = ();
    const RETRY_OUTAGES: bool = true;

    async fn commit(&mut self, events: &[NewEvent]) -> Result<Vec<()>, store::Error> {
        let mut conn = self.0.acquire().await?;
        audit_events::record(&mut conn, events).await?;
        Ok(vec![(); events.len()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_a_word_of_its_own() {
        let words: std::collections::BTreeSet<_> =
            Kind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(words.len(), Kind::ALL.len());
    }
}
