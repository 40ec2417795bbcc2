//! What a line says beside its figure: how the fleet was made, and what it used.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::fleet::TestFleet;
use tests::process::cpu_of;

/// What the machine's host keeps for others: time in which something here could have run, and no processor was given to
/// it. A figure that was taken while much is stolen says little.
pub(crate) struct Stolen(Option<[u64; 2]>);

impl Stolen {
    /// Counts from here on.
    pub(crate) fn start() -> Self {
        Self(Self::now())
    }

    /// In hundredths of all processor time; null where the kernel does not say.
    pub(crate) fn percent(&self) -> Value {
        let (Some([stolen, all]), Some([stolen_now, all_now])) = (self.0, Self::now()) else {
            return Value::Null;
        };
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let share =
            stolen_now.saturating_sub(stolen) as f64 / all_now.saturating_sub(all).max(1) as f64;
        json!(rounded(share * 100.0, 1))
    }

    /// The machine's time that was stolen, and all of it, since it started: proc(5), `/proc/stat`. The first eight columns
    /// are all; guests' time, which follows, is within them.
    fn now() -> Option<[u64; 2]> {
        let stat = std::fs::read_to_string("/proc/stat").ok()?;
        let columns = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().take(8);
        let times: Vec<u64> = columns.map(|time| time.parse().ok()).collect::<Option<_>>()?;
        Some([*times.get(7)?, times.iter().sum()])
    }
}

/// Counts processor time from its creation on.
pub(crate) struct Usage {
    began: Instant,
    stolen: Stolen,
    cpu: BTreeMap<String, Duration>,
    client: Duration,
}

impl Usage {
    pub(crate) fn start(fleet: &TestFleet) -> Self {
        Self {
            began: Instant::now(),
            stolen: Stolen::start(),
            cpu: cpu(fleet),
            client: cpu_of("self"),
        }
    }

    /// Processor seconds and peak memory of each process, processor seconds of this client, and what the host took.
    pub(crate) fn end(&self, fleet: &TestFleet) -> Value {
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
            "stolen_percent": self.stolen.percent(),
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

/// A percentile of sorted values.
pub(crate) fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((sorted.len() * percent / 100).min(last)).copied().unwrap_or_default()
}
