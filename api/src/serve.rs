//! The life of the serving process.

mod connections;
mod prepare;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use common::broker::{HintListener, Look};
use common::ops::{self, Check, Readiness};
use common::outbox::Outbox;
use common::own::Own;
use common::shutdown;
use common::store::{self, Pool};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::accept::Acceptance;
use crate::app::{App, Shared};
use crate::audit::Audit;
use crate::auth::Principals;
use crate::auth::password::Passwords;
use crate::config::{Registration, Serve};
use crate::limit::{self, Limits};
use crate::outline::Outlines;
use crate::reads::Reads;
use crate::routes;
use crate::toolbox::Toolbox;
use crate::watch::Watch;

/// How long it says that it is not ready before it takes no more connections.
const LAME: Duration = Duration::from_secs(1);

/// How many hints may wait to be passed on; what does not fit is found by the look once a second.
const HINTS: usize = 1_024;

/// The connections beside the pool: both batches that accept, and the deletion of what is confirmed, have one at any
/// time, as have those who read runs.
const OWN: u32 = 3 + Reads::MOST;

/// Serves until SIGTERM, then until the requests under way are answered. It listens at once, and says in
/// `/health/ready` and in its log what it still waits for.
pub(crate) async fn serve(settings: Serve) -> anyhow::Result<()> {
    settings.log.init()?;
    settings.for_tests.arm();
    let database = settings.database.resolve()?;
    let broker =
        settings.broker.resolve(&format!("gathering-api {}", common::telemetry::process_name()))?;
    let tokens = settings.signing.tokens()?;
    let first_admin = settings.access.first_admin()?;
    let secrets = settings.secrets.resolve()?;
    let redis = settings.access.redis()?;
    let passwords = Passwords::new()?;
    let metrics = ops::metrics()?;
    let draining = shutdown::on_signal()?;
    // What is behind the requests goes on until the last of them is answered.
    let stopping = CancellationToken::new();

    let pool = store::connect(database.url.reveal().parse()?, database.pool);
    let own = Own::beside(&pool, OWN);
    let (outbox, outbox_tasks) = Outbox::start(own.clone(), broker.clone(), stopping.clone());
    let (hints, arrivals) = mpsc::channel(HINTS);
    let look = Look::new(broker.clone());
    let (listening, _) = HintListener::start(broker, hints, stopping.clone());
    let watch = Watch::new(listening.clone());
    tokio::spawn(watch.clone().run(pool.clone(), arrivals, stopping.clone()));

    let statuses = vec![outbox.publisher().status(), listening];
    let prepared = CancellationToken::new();
    let readiness = Readiness::new(Some(postgres(pool.clone(), prepared.clone())), statuses);
    let shared = redis.map(|client| {
        limit::Shared::start(client, settings.broker.prefix.clone(), stopping.clone())
    });
    let audit = Audit::start(pool.clone());
    let app = App::new(Shared {
        acceptance: Acceptance::start(own.clone(), outbox.clone(), watch.clone()),
        principals: Principals::start(pool.clone()),
        passwords,
        is_registration_open: settings.access.registration == Registration::Open,
        audit: audit.clone(),
        limits: Limits::new(settings.access.rates(), shared),
        proxies: settings.access.proxies(),
        secrets,
        request_timeout: settings.access.request_timeout,
        toolbox: Toolbox::new(pool.clone()),
        reads: Reads::over(own),
        pool,
        outbox,
        look,
        tokens,
        outlines: Outlines::default(),
        watch,
        draining: draining.clone(),
    });
    tokio::spawn(prepare::prepare(app.clone(), first_admin, prepared, stopping.clone()));
    tokio::spawn(tidy(app.clone(), stopping.clone()));
    let ops = ops::router(readiness.clone(), metrics);
    let router = routes::router(app, ops, settings.access.cors_origins);
    let listener = ops::listen(settings.http_addr).await?;
    tracing::info!(addr = %listener.local_addr()?, "serving");
    let drained = drained(draining.clone(), readiness);
    let served = connections::serve(listener, router, settings.access.header_timeout, drained);
    let overdue = async {
        draining.cancelled().await;
        tokio::time::sleep(settings.drain).await;
    };
    tokio::select! {
        () = served => {}
        () = overdue => tracing::warn!("requests are still under way after GATHERING_DRAIN; they are cut off"),
    }
    audit.written().await;
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

/// Whether the database can be asked, and has the schema and the accounts that this program wants.
fn postgres(pool: Pool, prepared: CancellationToken) -> Check {
    Box::new(move || {
        let (pool, prepared) = (pool.clone(), prepared.clone());
        Box::pin(async move {
            match store::is_migrated(&pool).await {
                Ok(true) if prepared.is_cancelled() => Ok(()),
                Ok(true) => Err("not prepared yet".to_owned()),
                Ok(false) => Err("not migrated yet".to_owned()),
                Err(error) => {
                    tracing::debug!(%error, "the database does not answer");
                    Err("does not answer".to_owned())
                }
            }
        })
    })
}

/// Forgets, once a minute, the counts of those who have not come for a while.
async fn tidy(app: App, stopping: CancellationToken) {
    let mut minute = tokio::time::interval(Duration::from_secs(60));
    while stopping.run_until_cancelled(minute.tick()).await.is_some() {
        app.limits.tidy();
    }
}
