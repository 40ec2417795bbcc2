//! What all tasks of the worker share.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::batch::Batcher;
use common::outbox::Outbox;
use common::own::Own;
use common::remote::Reply;
use common::secret::Keys;
use common::store::claim::{Claim, Claimed};
use common::store::definitions::Definitions;
use common::store::record::Record;
use common::store::record::arrival::Arrival;
use common::store::record::direct::Known;
use common::store::start::Start;
use common::store::waits::children::End;
use common::store::{self, Pool, mine, reclaim};
use tokio::sync::{Mutex, RwLock, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tools::Tools;
use uuid::Uuid;

use crate::children::Ends;
use crate::commit::{Assigned, Begun, Claims, Records, Settled, Starts};
use crate::executor::Compiled;
use crate::logs::Logs;
use crate::presence::Presence;
use crate::quick::Quickness;
use crate::registry::{Executing, Jobs};
use crate::replies::Replies;

/// How many items go into one commit at the most.
const BATCH: usize = 256;

/// State that the batched commits need, too.
pub(crate) struct Core {
    /// The worker's id, new at each start.
    pub(crate) id: Uuid,
    pub(crate) pool: Pool,
    /// What commits batch after batch does so over these.
    pub(crate) own: Own,
    pub(crate) outbox: Outbox,
    pub(crate) definitions: Definitions,
    pub(crate) presence: Presence,
    pub(crate) executing: Arc<Executing>,
    pub(crate) quickness: Quickness,
    /// The slots of each lane that this worker serves.
    pub(crate) lanes: HashMap<String, Lane>,
    /// No new work is begun from then on.
    pub(crate) draining: CancellationToken,
}

/// A lane that is served.
pub(crate) struct Lane {
    pub(crate) slots: Arc<Semaphore>,
    pub(crate) size: usize,
    /// Node runs that were kept, and wait for a slot.
    pub(crate) waiting: AtomicUsize,
}

/// The worker.
pub(crate) struct Worker {
    pub(crate) core: Arc<Core>,
    starts: Batcher<Start, Begun>,
    direct_starts: Batcher<Start, Option<Begun>>,
    pub(crate) claims: Batcher<Claim, Begun>,
    records: Batcher<Arc<Record>, Settled>,
    direct_records: Batcher<Known, Option<Vec<Assigned>>>,
    arrivals: Batcher<Arrival, Option<Vec<Assigned>>>,
    /// Ends of runs that other runs have started.
    pub(crate) ends: Batcher<End, ()>,
    /// The tools that are no part of a worker, as they were last asked for.
    pub(crate) remote_tools: Compiled,
    /// What remote tools answer.
    pub(crate) replies: Batcher<Reply, bool>,
    pub(crate) jobs: Arc<Jobs>,
    pub(crate) tools: Tools,
    /// What attempts print.
    pub(crate) logs: Logs,
    /// What secrets are opened with; none when this worker has no key.
    pub(crate) secrets: Option<Keys>,
    /// Held for reading by whatever is executed, for writing by what has to run alone.
    pub(crate) alone: RwLock<()>,
    /// Held by the one node run that runs alone, or waits to.
    pub(crate) turn: Mutex<()>,
    pub(crate) tasks: TaskTracker,
    /// After that a delivery is acked though its node run goes on.
    pub(crate) delivery_hold: Duration,
}

impl Lane {
    pub(crate) fn new(size: usize) -> Self {
        Self { slots: Arc::new(Semaphore::new(size)), size, waiting: AtomicUsize::new(0) }
    }
}

impl Core {
    /// Whether this worker takes up what is ready in `lane`.
    pub(crate) fn serves(&self, lane: &str) -> bool {
        !self.draining.is_cancelled() && self.lanes.contains_key(lane)
    }

    /// How many quick node runs may be kept: as many as slots are free, and as many again as there are slots, to follow
    /// when one is.
    pub(crate) fn spare(&self) -> usize {
        if self.draining.is_cancelled() {
            return 0;
        }
        let room = |lane: &Lane| {
            let free = lane.slots.available_permits() + lane.size;
            free.saturating_sub(lane.waiting.load(Ordering::Acquire))
        };
        self.lanes.values().map(room).sum()
    }

    /// What this worker owns under a job, read from the rows.
    pub(crate) async fn reread(
        &self,
        conn: &mut store::Connection,
        run: Uuid,
        job: Uuid,
    ) -> Result<Vec<Claimed>, store::Error> {
        match reclaim::context(conn, run, &self.definitions).await? {
            Some(Ok(context)) => mine::running(conn, &context, job, self.id).await,
            _ => Ok(Vec::new()),
        }
    }
}

impl Worker {
    pub(crate) fn new(
        core: Core,
        tools: Tools,
        secrets: Option<Keys>,
        delivery_hold: Duration,
        log_limit: usize,
    ) -> Self {
        let core = Arc::new(core);
        let (starts, direct_starts) = Starts::new(core.clone());
        let (records, direct_records, arrivals) = Records::new(core.clone());
        let replies = Replies::new(core.pool.clone(), core.outbox.clone());
        Self {
            starts: Batcher::start("start", BATCH, starts),
            direct_starts: Batcher::start("direct_start", BATCH, direct_starts),
            claims: Batcher::start("claim", BATCH, Claims::new(core.clone())),
            records: Batcher::start("record", BATCH, records),
            direct_records: Batcher::start("direct_record", BATCH, direct_records),
            arrivals: Batcher::start("arrival", BATCH, arrivals),
            ends: Batcher::start("child_end", BATCH, Ends::new(core.clone())),
            remote_tools: Compiled::default(),
            replies: Batcher::start("replies", BATCH, replies),
            jobs: Arc::default(),
            tools,
            logs: Logs::new(core.clone(), log_limit),
            secrets,
            alone: RwLock::new(()),
            turn: Mutex::new(()),
            tasks: TaskTracker::new(),
            delivery_hold,
            core,
        }
    }

    /// Starts a run: directly, or after a look at its rows.
    pub(crate) async fn start(&self, start: Start) -> Result<Begun, Arc<store::Error>> {
        match self.direct_starts.submit(start.clone()).await? {
            Some(begun) => Ok(begun),
            None => self.starts.submit(start).await,
        }
    }

    /// Records an outcome: directly, or after a look at the rows that it concerns.
    pub(crate) async fn record(&self, record: Record) -> Result<Settled, Arc<store::Error>> {
        let record = Arc::new(record);
        let directly = if let Some(known) = Known::of(&record) {
            self.direct_records.submit(known).await?
        } else if let Some(arrival) = Arrival::of(&record) {
            self.arrivals.submit(arrival).await?
        } else {
            None
        };
        match directly {
            Some(assigned) => Ok(Settled::Recorded(assigned)),
            None => self.records.submit(record).await,
        }
    }
}
