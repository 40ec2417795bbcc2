//! What a line says beside its figure: how the fleet was made, and what it used.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::fleet::TestFleet;
use tests::process::cpu_of;

/// Counts processor time from its creation on.
pub(crate) struct Usage {
    began: Instant,
    cpu: BTreeMap<String, Duration>,
    client: Duration,
}

impl Usage {
    pub(crate) fn start(fleet: &TestFleet) -> Self {
        Self { began: Instant::now(), cpu: cpu(fleet), client: cpu_of("self") }
    }

    /// Processor seconds and peak memory of each process, and processor seconds of this client.
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
