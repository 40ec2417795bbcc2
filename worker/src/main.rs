//! `gathering-worker`: takes jobs, executes nodes, records outcomes.

mod children;
mod commit;
mod config;
mod core;
mod executor;
mod intake;
mod logs;
mod presence;
mod quick;
mod reclaim;
mod registry;
mod replies;
mod serve;
mod sweep;
mod watch;

use crate::config::{Cli, Command, OpsAddr};

fn main() -> std::process::ExitCode {
    // A command's process begins as a worker, and becomes the command here.
    tools::confine();
    let cli = common::config::parse::<Cli>();
    common::shutdown::run(async {
        match cli.command {
            None | Some(Command::Serve) => {
                cli.worker.log.init()?;
                cli.worker.for_tests.arm();
                serve::serve(cli.worker).await
            }
            Some(Command::Health) => match cli.worker.ops_addr {
                OpsAddr::Off => anyhow::bail!("GATHERING_OPS_ADDR is off: there is nothing to ask"),
                OpsAddr::At(addr) => common::ops::probe(addr).await,
            },
        }
    })
}
