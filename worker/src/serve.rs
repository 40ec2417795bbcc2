//! A worker's life: it waits for its servers, takes jobs, and when it is told to stop hands back what does not end.

use std::sync::Arc;
use std::time::Duration;

use common::broker::{BrokerConfig, Consumer, ConsumerHandle, REPLIES};
use common::ops::{self, Check, Readiness};
use common::outbox::{self, Outbox};
use common::own::Own;
use common::store::definitions::Definitions;
use common::store::{self, Pool, workers};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tools::Tools;
use uuid::Uuid;

use crate::config::{OpsAddr, WorkerArgs, lanes};
use crate::core::{Core, Lane, Worker};
use crate::registry::Executing;
use crate::{intake, presence, replies, sweep, watch};

/// What handed-back node runs get to end and be recorded, after the drain time.
const HAND_BACK: Duration = Duration::from_secs(8);

/// The connections beside the pool: starts and records in both ways, claims, and the deletion of what is confirmed have
/// one at any time.
const COMMITS: u32 = 6;

/// Runs the worker until SIGTERM or SIGINT.
pub(crate) async fn serve(args: WorkerArgs) -> anyhow::Result<()> {
    let shutdown = common::shutdown::on_signal()?;
    let slots = lanes(&args.lanes, args.concurrency).map_err(anyhow::Error::msg)?;
    let name = args.name.clone().unwrap_or_else(common::telemetry::process_name);
    let database = args.database.resolve()?;
    let broker = args.broker.resolve(&format!("gathering-worker {name}"))?;
    let total: u16 = slots.values().sum();
    let id = Uuid::now_v7();
    let options: store::Options = database.url.reveal().parse()?;
    let pool = store::connect(store::keyed(options), database.pool);
    let tools = Tools::open(args.tools.confined_by("/proc/self/exe"))?;
    let secrets = args.secrets.resolve()?;

    // The last things to end: what is recorded while draining is still published.
    let last = CancellationToken::new();
    let own = Own::beside(&pool, COMMITS);
    let (outbox, outbox_tasks) = Outbox::start(own.clone(), broker.clone(), last.clone());
    let who = workers::Presence {
        id,
        name: name.clone(),
        lanes: slots.iter().map(|(lane, size)| (lane.clone(), i32::from(*size))).collect(),
        tools: tools.enabled(),
    };
    if !migrated(&pool, &shutdown).await {
        return Ok(());
    }
    let (presence, presence_task) =
        presence::keep(database.direct_url.reveal().parse()?, who, last.clone());
    let core = Core {
        id,
        pool: pool.clone(),
        own,
        outbox: outbox.clone(),
        definitions: Definitions::default(),
        presence: presence.clone(),
        executing: Arc::new(Executing::default()),
        quickness: Default::default(),
        lanes: slots.iter().map(|(lane, size)| (lane.clone(), Lane::new((*size).into()))).collect(),
        draining: shutdown.clone(),
    };
    let worker = Arc::new(Worker::new(core, tools, secrets, args.delivery_hold, args.log_limit));
    let (consumer, mut helpers) = open(&worker, broker, slots.into_iter().collect());
    let sweeping = sweep::keep(worker.clone(), args.workspace_retention);
    helpers.push(AbortOnDropHandle::new(tokio::spawn(sweeping)));
    let readiness = Readiness::new(
        Some(postgres(pool.clone())),
        vec![outbox.publisher().status(), consumer.status()],
    );
    let ops = serve_ops(args.ops_addr, readiness.clone(), last.clone()).await?;
    tracing::info!(worker = %id, name, slots = total, lanes = args.lanes, "taking jobs");

    shutdown.cancelled().await;
    readiness.drain();
    drain(&worker, &consumer, args.drain).await;
    for helper in helpers {
        helper.abort();
        let _ = helper.await;
    }
    // Nobody else has it any more: the last acks are sent before the connection is closed.
    if let Some(consumer) = Arc::into_inner(consumer) {
        consumer.close().await;
    }
    end(last, outbox_tasks, presence_task).await;
    drop(ops);
    tracing::info!("stopped");
    Ok(())
}

/// Waits for Postgres, and for its schema. False when the process is told to stop meanwhile.
async fn migrated(pool: &Pool, shutdown: &CancellationToken) -> bool {
    tokio::select! {
        () = store::wait_until_migrated(pool) => true,
        () = shutdown.cancelled() => false,
    }
}

type Helpers = Vec<AbortOnDropHandle<()>>;

fn open(
    worker: &Arc<Worker>,
    broker: BrokerConfig,
    mut lanes: Vec<(String, u16)>,
) -> (Arc<ConsumerHandle>, Helpers) {
    lanes.push((REPLIES.to_owned(), replies::PREFETCH));
    let (out, deliveries) = mpsc::channel(1);
    let (hints_in, hints) = mpsc::channel(1_024);
    // It is closed by hand, after the drain; a signal alone ends nothing.
    let never = CancellationToken::new();
    let consumer = Arc::new(Consumer::start_listening(broker, lanes, out, hints_in, never));
    let helpers = vec![
        AbortOnDropHandle::new(tokio::spawn(intake::take(worker.clone(), deliveries))),
        AbortOnDropHandle::new(tokio::spawn(watch::stops(worker.clone(), hints))),
        AbortOnDropHandle::new(tokio::spawn(watch::deliveries(worker.clone(), consumer.clone()))),
    ];
    (consumer, helpers)
}

fn postgres(pool: Pool) -> Check {
    Box::new(move || {
        let pool = pool.clone();
        Box::pin(async move { store::answers(&pool).await.map_err(|_| "no answer".to_owned()) })
    })
}

async fn serve_ops(
    addr: OpsAddr,
    readiness: Arc<Readiness>,
    last: CancellationToken,
) -> anyhow::Result<Option<AbortOnDropHandle<()>>> {
    let OpsAddr::At(addr) = addr else { return Ok(None) };
    let listener = ops::listen(addr).await?;
    let router = ops::router(readiness, ops::metrics()?);
    let task = tokio::spawn(async move {
        if let Err(error) = ops::serve_on(listener, router, last).await {
            tracing::error!(%error, "operations are no longer served");
        }
    });
    Ok(Some(AbortOnDropHandle::new(task)))
}

/// Takes no new work, lets end what ends in time, and hands back the rest.
async fn drain(worker: &Arc<Worker>, consumer: &ConsumerHandle, time: Duration) {
    consumer.stop_taking().await;
    worker.tasks.close();
    if tokio::time::timeout(time, worker.tasks.wait()).await.is_ok() {
        return;
    }
    tracing::info!(
        node_runs = worker.core.executing.len(),
        "handing back what did not end in time"
    );
    worker.core.executing.hand_back();
    if tokio::time::timeout(HAND_BACK, worker.tasks.wait()).await.is_err() {
        tracing::warn!(node_runs = worker.core.executing.len(), "left to be taken over");
    }
}

/// The last confirms, then the good-bye: from then on the worker holds nothing.
async fn end(
    last: CancellationToken,
    outbox: outbox::Tasks,
    presence: tokio::task::JoinHandle<()>,
) {
    last.cancel();
    outbox.ended().await;
    if tokio::time::timeout(Duration::from_secs(5), presence).await.is_err() {
        tracing::debug!("Postgres was not told good-bye");
    }
}
