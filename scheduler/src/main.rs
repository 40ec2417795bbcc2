//! `gathering-scheduler`

use anyhow::bail;
use common::{ops, shutdown};
use scheduler::config::{Command, Config, OpsAddr};

fn main() -> std::process::ExitCode {
    let config = common::config::parse::<Config>();
    shutdown::run(async {
        match config.command.unwrap_or(Command::Serve) {
            Command::Serve => {
                config.log.init()?;
                config.for_tests.arm();
                scheduler::serve(config, shutdown::on_signal()?).await
            }
            Command::Health => match config.ops_addr {
                OpsAddr::At(addr) => ops::probe(addr).await,
                OpsAddr::Off => bail!("GATHERING_OPS_ADDR is off: nobody can be asked"),
            },
        }
    })
}
