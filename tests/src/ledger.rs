//! The ledger of faults: what each is, how it is made, what is expected. A test that has made one writes down what it
//! saw, one line of JSON, from which `docs/faults.md` is put together.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

mod table;

pub use table::FAULTS;

/// Where lines are appended, if this is set.
const SEEN: &str = "GATHERING_FAULTS_SEEN";

/// A fault that systems of this kind have met.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// Its number, as in the names of its tests.
    pub number: u32,
    /// What breaks.
    pub fault: &'static str,
    /// How a test makes it.
    pub made: &'static str,
    /// What has to be true then, beside what is true after every fault.
    pub expected: &'static str,
}

/// What a test saw.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Seen {
    /// The fault's number; 0 for what has none.
    pub fault: u32,
    /// The test.
    pub test: String,
    /// From the fault, or from its end where nothing can recover before, until work went on, in milliseconds.
    pub recovery_ms: Option<u64>,
    /// In words, with figures that were measured.
    pub seen: String,
}

/// The entry of the test that this stands in.
#[macro_export]
macro_rules! entry {
    () => {{
        fn here() {}
        $crate::ledger::Entry::of(std::any::type_name_of_val(&here))
    }};
}

/// The entry of one test, while it runs.
#[derive(Debug)]
pub struct Entry {
    fault: u32,
    test: String,
    since: Option<Instant>,
    recovery: Option<Duration>,
}

impl Entry {
    /// The entry of the fault that a test is named after, given a path within it; see [`entry`].
    ///
    /// # Panics
    /// When the test is not named after a fault.
    pub fn of(path: &str) -> Self {
        let test = path.split("::").find(|part| part.starts_with("fault_")).unwrap_or_default();
        let fault = test.get(6..8).and_then(|number| number.parse().ok());
        let fault = fault.unwrap_or_else(|| panic!("{path:?} is not named after a fault"));
        Self { fault, test: test.to_owned(), since: None, recovery: None }
    }

    /// The entry of a test that is no fault's.
    pub fn beside(test: &str) -> Self {
        Self { fault: 0, test: test.to_owned(), since: None, recovery: None }
    }

    /// From now on the fleet could recover.
    pub fn broken(&mut self) {
        self.since = Some(Instant::now());
    }

    /// It has. Of several recoveries, the longest is kept.
    pub fn recovered(&mut self) -> Duration {
        let took = self.since.expect("what recovers was broken").elapsed();
        self.recovery = self.recovery.max(Some(took));
        took
    }

    /// The same, measured elsewhere.
    pub fn recovered_in(&mut self, took: Duration) {
        self.recovery = self.recovery.max(Some(took));
    }

    /// Writes the entry. Only a test that found all as it should be comes here.
    pub fn seen(self, seen: impl Into<String>) {
        let recovery_ms = self.recovery.and_then(|took| u64::try_from(took.as_millis()).ok());
        let seen = Seen { fault: self.fault, test: self.test, recovery_ms, seen: seen.into() };
        let line = serde_json::to_string(&seen).expect("an entry is JSON");
        println!("{line}");
        if let Some(path) = std::env::var_os(SEEN) {
            let file = std::fs::File::options().create(true).append(true).open(path);
            let mut file = file.expect("the ledger can be opened");
            file.write_all(format!("{line}\n").as_bytes()).expect("the ledger can be written");
        }
    }
}

/// A time in seconds, for people.
pub fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

/// The ledger as Markdown rows, one a fault: what each of its tests saw last.
pub fn rows(all: &[Seen]) -> String {
    let mut rows = String::new();
    for Fault { number, fault, made, expected } in FAULTS {
        let mine: BTreeMap<&str, &Seen> = all
            .iter()
            .filter(|seen| seen.fault == *number)
            .map(|seen| (seen.test.as_str(), seen))
            .collect();
        let texts: Vec<&str> = mine.values().map(|seen| seen.seen.as_str()).collect();
        let recovery = mine.values().filter_map(|seen| seen.recovery_ms).max();
        let recovery = recovery.map(|ms| seconds(Duration::from_millis(ms)));
        rows += &format!(
            "| {number} | {fault} | {made} | {expected} | {} | {} |\n",
            if texts.is_empty() { "not run".to_owned() } else { texts.join("; ") },
            recovery.unwrap_or_else(|| "–".to_owned()),
        );
    }
    rows
}

/// The document with new tables: faults between one pair of marks, everything else between another. None when a mark is
/// missing. Where this round saw nothing of a fault, its row stays as it was.
pub fn written(document: &str, all: &[Seen]) -> Option<String> {
    let (before, rest) = document.split_once(BEGIN)?;
    let (old, after) = rest.split_once(END)?;
    let mut table = String::from("\n");
    for line in old.trim().lines().take(2) {
        table += &format!("{line}\n");
    }
    for row in rows(all).lines() {
        let number = row.split('|').nth(1)?.trim();
        let kept = old.lines().find(|line| line.split('|').nth(1).map(str::trim) == Some(number));
        let row = if row.contains("| not run |") { kept.unwrap_or(row) } else { row };
        table += &format!("{row}\n");
    }
    let (middle, rest) = after.split_once(BESIDE_BEGIN)?;
    let (kept, after) = rest.split_once(BESIDE_END)?;
    let beside: Vec<&Seen> = all.iter().filter(|seen| seen.fault == 0).collect();
    let mut list: Vec<String> = kept.trim().lines().map(str::to_owned).collect();
    for seen in beside {
        let start = format!("- `{}`: ", seen.test);
        list.retain(|line| !line.starts_with(&start));
        list.push(format!("{start}{}", seen.seen));
    }
    let list = list.join("\n");
    Some(format!("{before}{BEGIN}{table}{END}{middle}{BESIDE_BEGIN}\n{list}\n{BESIDE_END}{after}"))
}

const BEGIN: &str = "<!-- faults -->";
const END: &str = "<!-- /faults -->";
const BESIDE_BEGIN: &str = "<!-- beside -->";
const BESIDE_END: &str = "<!-- /beside -->";
