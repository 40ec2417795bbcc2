//! Settings: each is a flag and an environment variable.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Parser, Subcommand};
use common::config::{self, Broker, Database, ForTests, Log};

/// GatheRing's scheduler: one leads and keeps time, the others stand by.
#[derive(Debug, Parser)]
#[command(name = "gathering-scheduler", version)]
pub struct Config {
    /// What to do [default: serve]
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub database: Database,
    #[command(flatten)]
    pub broker: Broker,
    #[command(flatten)]
    pub log: Log,
    #[command(flatten)]
    pub for_tests: ForTests,
    /// Where /health/live, /health/ready and /metrics are served; `off` serves none
    #[arg(long, env = "GATHERING_OPS_ADDR", default_value = "127.0.0.1:8082", value_name = "ADDRESS",
        value_parser = ops_addr, global = true)]
    pub ops_addr: OpsAddr,
    /// How long a run, and all that belongs to it, is kept after its end
    #[arg(long, env = "GATHERING_RETENTION", default_value = "30d", value_name = "DURATION",
        value_parser = retention)]
    pub retention: Duration,
    /// How long security events are kept
    #[arg(long, env = "GATHERING_AUDIT_RETENTION", default_value = "365d", value_name = "DURATION",
        value_parser = retention)]
    pub audit_retention: Duration,
    /// What the others call this scheduler [default: its host and process id]
    #[arg(long, env = "GATHERING_NAME", value_name = "NAME")]
    pub name: Option<String>,
}

/// What to do.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum Command {
    /// Stand by, and lead when there is no leader
    Serve,
    /// Ask the scheduler that listens on the address of --ops-addr whether it is ready
    Health,
}

/// Where health and metrics are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpsAddr {
    /// Nowhere.
    Off,
    /// There.
    At(SocketAddr),
}

impl Config {
    /// The name, or one that tells the processes of a fleet apart.
    pub fn name(&self) -> String {
        self.name.clone().unwrap_or_else(|| {
            let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            format!("{}/{}", host.trim(), std::process::id())
        })
    }
}

fn ops_addr(text: &str) -> Result<OpsAddr, String> {
    match text {
        "off" => Ok(OpsAddr::Off),
        text => text.parse().map(OpsAddr::At).map_err(|_| {
            "GATHERING_OPS_ADDR wants an address and a port, such as 127.0.0.1:8082, or `off`"
                .to_owned()
        }),
    }
}

fn retention(text: &str) -> Result<Duration, String> {
    let retention =
        config::duration(text).map_err(|error| format!("GATHERING_RETENTION: {error}"))?;
    if retention < Duration::from_secs(1) {
        return Err("GATHERING_RETENTION wants a second at the least".to_owned());
    }
    Ok(retention)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use clap::CommandFactory;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Config, clap::Error> {
        Config::try_parse_from([&["gathering-scheduler"], arguments].concat())
    }

    #[test]
    fn settings_have_defaults() {
        Config::command().debug_assert();
        let config = parse(&[]).unwrap();
        assert!(config.command.is_none());
        assert_eq!(config.retention, Duration::from_secs(30 * 24 * 3600));
        assert_eq!(config.ops_addr, OpsAddr::At("127.0.0.1:8082".parse().unwrap()));
        assert!(config.name().ends_with(&format!("/{}", std::process::id())));
    }

    #[test]
    fn a_wrong_setting_names_the_variable_and_the_form() {
        let text = parse(&["--ops-addr", "8082"]).unwrap_err().to_string();
        assert!(text.contains("GATHERING_OPS_ADDR wants an address and a port"), "{text}");
        let text = parse(&["--retention", "30"]).unwrap_err().to_string();
        assert!(text.contains("GATHERING_RETENTION: "), "{text}");
        assert_eq!(parse(&["health", "--ops-addr", "off"]).unwrap().ops_addr, OpsAddr::Off);
    }
}
