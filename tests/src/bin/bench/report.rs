//! What a line says beside its figure: how the fleet was made, and what it used.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use tests::fleet::TestFleet;
use tests::process::cpu_of;

/// What the machine itself is like meanwhile: one that is lent gets more from its host in some minutes than in others.
pub(crate) struct Machine {
    stolen: Option<[u64; 2]>,
    /// Ends the thread when it is dropped.
    ends: Sender<()>,
    parses: JoinHandle<Vec<f64>>,
}

/// How often the same work is timed, which takes some thousandth of a core.
const PARSES: Duration = Duration::from_millis(100);

impl Machine {
    /// Watches it from here on.
    pub(crate) fn start() -> Self {
        let (ends, ended) = channel();
        Self { stolen: stolen(), ends, parses: std::thread::spawn(move || parses(&ended)) }
    }

    /// `stolen_percent`: processor time that the host gave to others while something here could have run, of all
    /// (null where the kernel does not say). `parse_us`: processor time that the same small piece of work took (a JSON
    /// document of 8 KB is read), in microseconds, the median. It tells how fast the cores were, which nobody counts:
    /// another machine on the same core is not time stolen.
    pub(crate) fn end(self) -> Value {
        drop(self.ends);
        let mut parses = self.parses.join().expect("it reads what it wrote");
        parses.sort_by(f64::total_cmp);
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let share = self.stolen.zip(stolen()).map(|([stolen, all], [stolen_now, all_now])| {
            stolen_now.saturating_sub(stolen) as f64 / all_now.saturating_sub(all).max(1) as f64
        });
        json!({
            "stolen_percent": share.map(|share| rounded(share * 100.0, 1)),
            "parse_us": rounded(quantile(&parses, 0.5), 1),
        })
    }
}

/// The machine's time that was stolen, and all of it, since it started: proc(5), `/proc/stat`. The first eight columns are
/// all; guests' time, which follows, is within them.
fn stolen() -> Option<[u64; 2]> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let columns = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().take(8);
    let times: Vec<u64> = columns.map(|time| time.parse().ok()).collect::<Option<_>>()?;
    Some([*times.get(7)?, times.iter().sum()])
}

/// Times the same work, again and again until the sender is gone.
fn parses(ended: &Receiver<()>) -> Vec<f64> {
    let nodes: Vec<_> = (0..100)
        .map(|n| json!({"id": format!("n{n}"), "type": "action", "config": {"action": "echo", "value": n}}))
        .collect();
    let document = json!({ "name": "parsed", "nodes": nodes }).to_string();
    let mut parses = Vec::new();
    loop {
        // What lies in no cache after the pause is not what is asked.
        let taken = (0..3).map(|_| parse(&document)).fold(f64::INFINITY, f64::min);
        parses.push(taken);
        if ended.recv_timeout(PARSES) != Err(RecvTimeoutError::Timeout) {
            return parses;
        }
    }
}

/// The microseconds that a processor needs to read it.
fn parse(document: &str) -> f64 {
    let began = clock_gettime(ClockId::ThreadCPUTime);
    let read: Value = serde_json::from_str(document).expect("it is JSON");
    let taken = clock_gettime(ClockId::ThreadCPUTime) - began;
    drop(std::hint::black_box(read));
    Duration::try_from(taken).unwrap_or_default().as_secs_f64() * 1e6
}

/// Counts processor time from its creation on.
pub(crate) struct Usage {
    began: Instant,
    machine: Machine,
    cpu: BTreeMap<String, Duration>,
    client: Duration,
}

impl Usage {
    pub(crate) fn start(fleet: &TestFleet) -> Self {
        Self {
            began: Instant::now(),
            machine: Machine::start(),
            cpu: cpu(fleet),
            client: cpu_of("self"),
        }
    }

    /// Processor seconds and peak memory of each process, processor seconds of this client, and what the machine was like.
    pub(crate) fn end(self, fleet: &TestFleet) -> Value {
        let mut processes = serde_json::Map::new();
        for process in fleet.processes() {
            let before = self.cpu.get(process.name()).copied().unwrap_or_default();
            let used = (process.cpu().saturating_sub(before)).as_secs_f64();
            let (now, peak) = process.memory_kib();
            let usage = json!({"cpu_s": rounded(used, 2), "memory_mib": now / 1024, "peak_mib": peak / 1024});
            processes.insert(process.name().to_owned(), usage);
        }
        let client = cpu_of("self").saturating_sub(self.client).as_secs_f64();
        json!({
            "over_s": rounded(self.began.elapsed().as_secs_f64(), 2),
            "machine": self.machine.end(),
            "client_cpu_s": rounded(client, 2),
            "processes": processes,
        })
    }

    /// Processor seconds of all processes of the fleet together.
    pub(crate) fn cpu(&self, fleet: &TestFleet) -> f64 {
        let before: Duration = self.cpu.values().sum();
        let now: Duration = cpu(fleet).values().sum();
        now.saturating_sub(before).as_secs_f64()
    }
}

fn cpu(fleet: &TestFleet) -> BTreeMap<String, Duration> {
    fleet.processes().map(|process| (process.name().to_owned(), process.cpu())).collect()
}

/// Few digits: more would promise what a shared machine cannot keep.
pub(crate) fn rounded(value: f64, digits: i32) -> f64 {
    let factor = 10f64.powi(digits);
    (value * factor).round() / factor
}

/// The value below which that part of sorted values lies: 0.99 for their 99th percentile.
pub(crate) fn quantile(sorted: &[f64], part: f64) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a place among some thousands"
    )]
    let place = (sorted.len() as f64 * part.max(0.0)) as usize;
    sorted.get(place.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}
