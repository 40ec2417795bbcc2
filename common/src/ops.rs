//! What operators and orchestrators ask of a process: is it alive, is it ready, what does it count.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::future::BoxFuture;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::broker::Status;

mod client;
mod metrics;
mod process;

pub use self::client::probe;
pub use self::metrics::{Metrics, metrics};

/// Asks the database whether it is there: a `select 1`, say. An error is told to whoever looks, so it holds no secret.
pub type Check = Box<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// What a process needs to be ready.
pub struct Readiness {
    postgres: Option<Check>,
    rabbitmq: Vec<watch::Receiver<Status>>,
    draining: AtomicBool,
}

/// The answer of `/health/ready`.
#[derive(Debug, Serialize)]
struct Report {
    status: &'static str,
    checks: BTreeMap<&'static str, String>,
}

impl Readiness {
    /// A database that answers no sooner counts as gone.
    const PATIENCE: Duration = Duration::from_secs(2);

    /// Ready when the database answers, and no connection to the broker is down. A broker under an alarm takes no
    /// messages, but the process goes on: the rows wait.
    pub fn new(postgres: Option<Check>, rabbitmq: Vec<watch::Receiver<Status>>) -> Arc<Self> {
        Arc::new(Self { postgres, rabbitmq, draining: AtomicBool::new(false) })
    }

    /// From now on it is not ready: it ends soon.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    async fn report(&self, patience: Duration) -> (bool, Report) {
        let mut checks = BTreeMap::new();
        let mut ready = true;
        if let Some(check) = &self.postgres {
            let outcome = tokio::time::timeout(patience, check()).await;
            let word = match outcome {
                Ok(Ok(())) => "ok".to_owned(),
                Ok(Err(error)) => error,
                Err(_) => format!("no answer within {patience:?}"),
            };
            ready &= word == "ok";
            checks.insert("postgres", word);
        }
        if !self.rabbitmq.is_empty() {
            let states: Vec<_> = self.rabbitmq.iter().map(|status| *status.borrow()).collect();
            let worst = [Status::Disconnected, Status::Blocked]
                .into_iter()
                .find(|status| states.contains(status));
            ready &= worst != Some(Status::Disconnected);
            checks.insert("rabbitmq", worst.map_or("ok", Status::name).to_owned());
        }
        let draining = self.draining.load(Ordering::Relaxed);
        let status = match (draining, ready) {
            (true, _) => "draining",
            (false, true) => "ready",
            (false, false) => "not ready",
        };
        (ready && !draining, Report { status, checks })
    }
}

/// `/health/live`, `/health/ready` and `/metrics`.
pub fn router(readiness: Arc<Readiness>, metrics: Metrics) -> Router {
    let health = Router::new()
        .route("/health/live", get(async || axum::Json(serde_json::json!({"status": "live"}))))
        .route("/health/ready", get(ready))
        .with_state(readiness);
    health.merge(Router::new().route("/metrics", get(render)).with_state(metrics))
}

async fn ready(State(readiness): State<Arc<Readiness>>) -> Response {
    let (ready, report) = readiness.report(Readiness::PATIENCE).await;
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, axum::Json(report)).into_response()
}

async fn render(State(metrics): State<Metrics>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render())
        .into_response()
}

/// Listens on an address.
///
/// # Errors
/// Names the address when it cannot be had, and what to do.
pub async fn listen(addr: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(addr).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            anyhow::anyhow!("the address {addr} is taken by another process; choose another one, or end that process")
        }
        _ => anyhow::anyhow!("cannot listen on {addr}: {error}"),
    })
}

/// Serves until `shutdown`, and then until the requests under way are answered.
///
/// # Errors
/// When the address cannot be had.
pub async fn serve(
    addr: SocketAddr,
    router: Router,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    serve_on(listen(addr).await?, router, shutdown).await
}

/// As [`serve`], on an address that is listened on already.
///
/// # Errors
/// When the listener fails.
pub async fn serve_on(
    listener: TcpListener,
    router: Router,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    tracing::info!(addr = ?listener.local_addr().ok(), "health and metrics");
    axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn postgres(answer: Result<(), &'static str>) -> Option<Check> {
        Some(Box::new(move || Box::pin(async move { answer.map_err(str::to_owned) })))
    }

    async fn look(readiness: &Readiness) -> (bool, String) {
        let (ready, report) = readiness.report(Duration::from_millis(50)).await;
        (ready, serde_json::to_string(&report).unwrap())
    }

    #[tokio::test]
    async fn readiness_names_what_is_missing() {
        let broker = watch::Sender::new(Status::Connected);
        let readiness = Readiness::new(postgres(Ok(())), vec![broker.subscribe()]);
        let ok = r#"{"status":"ready","checks":{"postgres":"ok","rabbitmq":"ok"}}"#;
        assert_eq!(look(&readiness).await, (true, ok.to_owned()));
        broker.send_replace(Status::Blocked);
        let blocked = r#"{"status":"ready","checks":{"postgres":"ok","rabbitmq":"blocked"}}"#;
        assert_eq!(look(&readiness).await, (true, blocked.to_owned()));
        broker.send_replace(Status::Disconnected);
        let gone = r#"{"status":"not ready","checks":{"postgres":"ok","rabbitmq":"disconnected"}}"#;
        assert_eq!(look(&readiness).await, (false, gone.to_owned()));
        let readiness = Readiness::new(postgres(Err("connection refused")), vec![]);
        let refused = r#"{"status":"not ready","checks":{"postgres":"connection refused"}}"#;
        assert_eq!(look(&readiness).await, (false, refused.to_owned()));
    }

    #[tokio::test]
    async fn a_database_that_hangs_is_not_waited_for() {
        let hangs: Check = Box::new(|| Box::pin(std::future::pending()));
        let (ready, text) = look(&Readiness::new(Some(hangs), vec![])).await;
        assert!(!ready && text.contains("no answer within 50ms"), "{text}");
    }

    #[tokio::test]
    async fn the_three_routes_answer_and_the_client_reads_them() {
        let readiness = Readiness::new(postgres(Ok(())), vec![]);
        let listener = listen(([127, 0, 0, 1], 0).into()).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let taken = listen(addr).await.unwrap_err().to_string();
        assert!(taken.contains(&format!("the address {addr} is taken")), "{taken}");
        let server = axum::serve(listener, router(readiness.clone(), metrics().unwrap()));
        let server = tokio::spawn(std::future::IntoFuture::into_future(server));
        probe(addr).await.unwrap();
        readiness.drain();
        let error = probe(addr).await.unwrap_err().to_string();
        assert!(error.contains("draining"), "{error}");
        let page = client::fetch(addr, "/metrics").await.unwrap();
        assert!(page.contains("process_resident_memory_bytes"), "{page}");
        server.abort();
        assert!(probe(addr).await.is_err());
    }
}
