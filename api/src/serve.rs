//! The life of the serving process.

use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt;
use common::broker::HintListener;
use common::ops::{self, Check, Readiness};
use common::outbox::Outbox;
use common::shutdown;
use common::store::{self, Pool};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::accept::Acceptance;
use crate::app::{App, Shared};
use crate::config::Serve;
use crate::outline::Outlines;
use crate::routes;
use crate::watch::Watch;

/// How long it says that it is not ready before it takes no more connections.
const LAME: Duration = Duration::from_secs(1);

/// How many hints may wait to be passed on; what does not fit is found by the look once a second.
const HINTS: usize = 1_024;

/// Serves until SIGTERM, then until the requests under way are answered. It listens at once, and says in
/// `/health/ready` and in its log what it still waits for.
pub(crate) async fn serve(settings: Serve) -> anyhow::Result<()> {
    settings.log.init()?;
    settings.for_tests.arm();
    let database = settings.database.resolve()?;
    let broker =
        settings.broker.resolve(&format!("gathering-api {}", common::telemetry::process_name()))?;
    let tokens = settings.signing.tokens()?;
    let metrics = ops::metrics()?;
    let draining = shutdown::on_signal()?;
    // What is behind the requests goes on until the last of them is answered.
    let stopping = CancellationToken::new();

    let pool = store::connect(database.url.reveal().parse()?, database.pool);
    let (outbox, outbox_tasks) = Outbox::start(pool.clone(), broker.clone(), stopping.clone());
    let (hints, arrivals) = mpsc::channel(HINTS);
    let (listening, _) = HintListener::start(broker, hints, stopping.clone());
    let watch = Watch::default();
    tokio::spawn(watch.clone().run(pool.clone(), arrivals, stopping.clone()));
    tokio::spawn(say_what_is_waited_for(pool.clone(), stopping.clone()));

    let statuses = vec![outbox.publisher().status(), listening];
    let readiness = Readiness::new(Some(postgres(pool.clone())), statuses);
    let app = App::new(Shared {
        acceptance: Acceptance::start(pool.clone(), outbox.clone()),
        pool,
        outbox,
        tokens,
        outlines: Outlines::default(),
        watch,
        draining: draining.clone(),
    });
    let router = routes::router(app, ops::router(readiness.clone(), metrics));
    let listener = ops::listen(settings.http_addr).await?;
    tracing::info!(addr = %listener.local_addr()?, "serving");
    // An answer is one small write: holding it back to fill a packet would only delay it.
    let listener = listener.tap_io(|connection| drop(connection.set_nodelay(true)));
    let served = axum::serve(listener, router)
        .with_graceful_shutdown(drained(draining.clone(), readiness))
        .into_future();
    let overdue = async {
        draining.cancelled().await;
        tokio::time::sleep(settings.drain).await;
    };
    tokio::select! {
        served = served => served?,
        () = overdue => tracing::warn!("requests are still under way after GATHERING_DRAIN; they are cut off"),
    }
    stopping.cancel();
    outbox_tasks.ended().await;
    tracing::info!("stopped");
    Ok(())
}

/// From here on it is not ready; a moment later, when those that balance loads have seen that, it takes no new
/// connections, and answers what is under way.
async fn drained(draining: CancellationToken, readiness: Arc<Readiness>) {
    draining.cancelled().await;
    readiness.drain();
    tokio::time::sleep(LAME).await;
}

/// Whether the database can be asked, and has the schema that this program knows.
fn postgres(pool: Pool) -> Check {
    Box::new(move || {
        let pool = pool.clone();
        Box::pin(async move {
            match store::is_migrated(&pool).await {
                Ok(true) => Ok(()),
                Ok(false) => Err("not migrated yet".to_owned()),
                Err(error) => {
                    tracing::debug!(%error, "the database does not answer");
                    Err("does not answer".to_owned())
                }
            }
        })
    })
}

/// Logs what is waited for at the start.
async fn say_what_is_waited_for(pool: Pool, stopping: CancellationToken) {
    tokio::select! {
        () = store::wait_until_migrated(&pool) => {}
        () = stopping.cancelled() => {}
    }
}
