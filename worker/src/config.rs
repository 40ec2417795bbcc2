//! The worker's settings.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use common::config::{self, Broker, Database, ForTests, Log};
use common::secret;

/// Executes nodes: takes jobs from RabbitMQ, and records outcomes in Postgres.
#[derive(Debug, Parser)]
#[command(name = "gathering-worker", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) worker: WorkerArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Executes nodes, until it is told to stop (the default)
    Serve,
    /// Asks a worker at the address of its operations whether it is ready; exits with 0 if it is
    Health,
}

#[derive(Debug, Args)]
pub(crate) struct WorkerArgs {
    #[command(flatten)]
    pub(crate) database: Database,
    #[command(flatten)]
    pub(crate) broker: Broker,
    #[command(flatten)]
    pub(crate) secrets: secret::Setting,
    #[command(flatten)]
    pub(crate) log: Log,
    #[command(flatten)]
    pub(crate) for_tests: ForTests,
    /// Where /health and /metrics are served, or `off`
    #[arg(long, env = "GATHERING_OPS_ADDR", default_value = "127.0.0.1:8081", value_name = "ADDRESS",
        value_parser = ops_addr)]
    pub(crate) ops_addr: OpsAddr,
    /// How many node runs it executes at a time
    #[arg(long, env = "GATHERING_CONCURRENCY", default_value_t = 64, value_name = "COUNT",
        value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(crate) concurrency: u16,
    /// The lanes that it serves: `default`, or with the slots of each: `default=48,gpu=16`
    #[arg(long, env = "GATHERING_LANES", default_value = "default", value_name = "LANES")]
    pub(crate) lanes: String,
    #[command(flatten)]
    pub(crate) tools: tools::Settings,
    /// How long it lets node runs end after it was told to stop; then it hands them back
    #[arg(long, env = "GATHERING_DRAIN", default_value = "30s", value_name = "DURATION", value_parser = config::duration)]
    pub(crate) drain: Duration,
    /// How long a delivery is kept open under a node run; then it is acked, and the worker's lock guards the node run.
    /// Must be shorter than the broker's consumer_timeout (30 minutes by default)
    #[arg(long, env = "GATHERING_DELIVERY_HOLD", default_value = "10m", value_name = "DURATION",
        value_parser = config::duration)]
    pub(crate) delivery_hold: Duration,
    /// How much is kept of what each attempt prints, half of it from the start and half from the end: bytes, or with
    /// KiB or MiB, 4MiB at the most; 0 keeps nothing
    #[arg(long, env = "GATHERING_LOG_LIMIT", default_value = "256KiB", value_name = "SIZE", value_parser = log_limit)]
    pub(crate) log_limit: usize,
    /// How long a run's folder in the workspace stays after the run's end
    #[arg(long, env = "GATHERING_WORKSPACE_RETENTION", default_value = "24h", value_name = "DURATION",
        value_parser = config::duration)]
    pub(crate) workspace_retention: Duration,
    /// Its name in GET /v1/workers and in the broker's console [default: host name and process id]
    #[arg(long, env = "GATHERING_NAME", value_name = "NAME")]
    pub(crate) name: Option<String>,
}

/// Where operations are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpsAddr {
    Off,
    At(SocketAddr),
}

fn ops_addr(text: &str) -> Result<OpsAddr, String> {
    if text == "off" {
        return Ok(OpsAddr::Off);
    }
    text.parse().map(OpsAddr::At).map_err(|_| {
        "GATHERING_OPS_ADDR wants an address such as 127.0.0.1:8081, or `off`".to_owned()
    })
}

fn log_limit(text: &str) -> Result<usize, String> {
    let size =
        common::size::parse(text).map_err(|error| format!("GATHERING_LOG_LIMIT: {error}"))?;
    let size = usize::try_from(size).ok().filter(|size| *size <= 4 << 20);
    size.ok_or_else(|| "GATHERING_LOG_LIMIT is 4MiB at the most".to_owned())
}

/// The slots of each lane. Lanes without a number share evenly what is left of `concurrency`.
pub(crate) fn lanes(text: &str, concurrency: u16) -> Result<BTreeMap<String, u16>, String> {
    let wrong =
        |why: String| format!("GATHERING_LANES: {why}; it wants `default`, or `default=48,gpu=16`");
    let mut given: BTreeMap<String, Option<u16>> = BTreeMap::new();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let (name, slots) = match item.split_once('=') {
            None => (item, None),
            Some((name, slots)) => {
                let slots = slots.trim().parse::<u16>().ok().filter(|slots| *slots > 0);
                (
                    name.trim(),
                    Some(slots.ok_or_else(|| wrong(format!("`{item}` has no number of slots")))?),
                )
            }
        };
        if !common::pipeline::is_lane(name) {
            return Err(wrong(format!(
                "`{name}` is no lane's name (letters, digits, `.`, `_`, `-`; 64 at most)"
            )));
        }
        if given.insert(name.to_owned(), slots).is_some() {
            return Err(wrong(format!("`{name}` is named twice")));
        }
    }
    let taken: u32 = given.values().flatten().map(|slots| u32::from(*slots)).sum();
    let open = given.values().filter(|slots| slots.is_none()).count() as u32;
    if given.is_empty() {
        return Err(wrong("no lane is named".to_owned()));
    }
    if open == 0 {
        return Ok(given.into_iter().map(|(name, slots)| (name, slots.unwrap_or(1))).collect());
    }
    let left = u32::from(concurrency).checked_sub(taken).filter(|left| *left >= open).ok_or_else(|| {
        wrong(format!("GATHERING_CONCURRENCY is {concurrency}, which leaves no slot for the lanes without a number"))
    })?;
    let (share, mut more) = (left / open, left % open);
    Ok(given
        .into_iter()
        .map(|(name, slots)| {
            let slots = slots.unwrap_or_else(|| {
                let extra = u32::from(more > 0);
                more -= extra;
                u16::try_from(share + extra).unwrap_or(u16::MAX)
            });
            (name, slots)
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(text: &str) -> Vec<(String, u16)> {
        lanes(text, 64).unwrap_or_default().into_iter().collect()
    }

    #[test]
    fn lanes_share_what_is_left() {
        assert_eq!(slots("default"), [("default".to_owned(), 64)]);
        assert_eq!(
            slots("default=48, gpu=16"),
            [("default".to_owned(), 48), ("gpu".to_owned(), 16)]
        );
        assert_eq!(
            slots("a,b,c=1"),
            [("a".to_owned(), 32), ("b".to_owned(), 31), ("c".to_owned(), 1)]
        );
    }

    #[test]
    fn wrong_lanes_say_what_is_wanted() {
        for text in ["", "a=0", "a=x", "a,a", "a b", "a=64,b"] {
            let error = lanes(text, 64).expect_err(text);
            assert!(
                error.contains("GATHERING_LANES") && error.contains("default=48,gpu=16"),
                "{error}"
            );
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
