//! `gathering-scheduler`

use std::process::ExitCode;

use anyhow::bail;
use clap::Parser;
use common::{ops, shutdown};
use scheduler::config::{Command, Config, OpsAddr};

// Recording a lost worker compiles a definition, for which a thread has to step aside: so there are two.
#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    match run(Config::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gathering-scheduler: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(config: Config) -> anyhow::Result<()> {
    match config.command.unwrap_or(Command::Serve) {
        Command::Serve => {
            config.log.init()?;
            scheduler::serve(config, shutdown::on_signal()?).await
        }
        Command::Health => match config.ops_addr {
            OpsAddr::At(addr) => ops::probe(addr).await,
            OpsAddr::Off => bail!("GATHERING_OPS_ADDR is off: nobody can be asked"),
        },
    }
}
