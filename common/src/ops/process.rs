//! What the system says of this process, read from `/proc/self`; nothing where there is none.

use metrics::{describe_gauge, gauge};
use std::fs;

/// Linux reports times to programs in hundredths of a second, whatever its own tick is.
const TICKS: f64 = 100.0;

pub(super) fn describe() {
    describe_gauge!("process_resident_memory_bytes", "Resident memory.");
    // A gauge that only rises: counters hold whole numbers.
    describe_gauge!("process_cpu_seconds_total", "CPU time, user and system.");
    describe_gauge!("process_open_fds", "Open file descriptors.");
    describe_gauge!("process_threads", "Threads.");
    describe_gauge!("process_start_time_seconds", "Start, in seconds since 1970.");
}

pub(super) fn record() {
    if let Some(process) =
        fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(Stat::parse)
    {
        gauge!("process_cpu_seconds_total").set(process.cpu / TICKS);
        gauge!("process_threads").set(process.threads);
        if let Some(boot) = fs::read_to_string("/proc/stat").ok().as_deref().and_then(boot_time) {
            gauge!("process_start_time_seconds").set(boot + process.start / TICKS);
        }
    }
    if let Some(bytes) = fs::read_to_string("/proc/self/status").ok().as_deref().and_then(resident)
    {
        gauge!("process_resident_memory_bytes").set(bytes);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        gauge!("process_open_fds").set(open.count() as f64);
    }
}

#[derive(Debug, PartialEq)]
struct Stat {
    cpu: f64,
    threads: f64,
    start: f64,
}

impl Stat {
    /// The program's name, in parentheses, may hold anything; the numbers follow its last one.
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<f64>().ok();
        Some(Self { cpu: number(11)? + number(12)?, threads: number(17)?, start: number(19)? })
    }
}

fn boot_time(text: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn resident(text: &str) -> Option<f64> {
    let kibibytes =
        text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix(" kB")?;
    Some(kibibytes.trim().parse::<f64>().ok()? * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_linux_writes() {
        let text = "7 (a) b) S 1 7 7 0 -1 4194560 9 0 0 0 150 50 0 0 20 0 12 0 3000 1 2 3";
        assert_eq!(Stat::parse(text), Some(Stat { cpu: 200.0, threads: 12.0, start: 3000.0 }));
        assert_eq!(Stat::parse("7 (a"), None);
        assert_eq!(boot_time("cpu 1 2\nbtime 1700000000\n"), Some(1_700_000_000.0));
        assert_eq!(resident("Name:\tx\nVmRSS:\t    2048 kB\n"), Some(2_097_152.0));
    }
}
