//! The api of GatheRing. It accepts, and executes nothing.

mod accept;
mod account;
mod address;
mod app;
mod audit;
mod auth;
mod config;
mod error;
mod extract;
mod fields;
mod hygiene;
mod limit;
mod once;
mod outline;
mod page;
mod reads;
mod request;
mod routes;
mod serve;
mod submission;
mod toolbox;
mod view;
mod watch;

use anyhow::Context;
use common::store;

use crate::config::{Cli, Command, Migrate, Token};

fn main() -> std::process::ExitCode {
    let cli = common::config::parse::<Cli>();
    common::shutdown::run(async {
        match cli.command {
            Command::Serve(settings) => serve::serve(*settings).await,
            Command::Migrate(settings) => migrate(&settings).await,
            Command::Token(settings) => print_token(&settings),
            Command::Health(settings) => common::ops::probe(settings.http_addr).await,
        }
    })
}

/// Waits for the database, and applies what is missing.
async fn migrate(settings: &Migrate) -> anyhow::Result<()> {
    settings.log.init()?;
    let database = settings.database.resolve()?;
    let pool = store::connect(database.url.reveal().parse()?, 2);
    let mut waits = common::retry::Reconnect::new();
    while let Err(error) = store::is_migrated(&pool).await {
        if !store::is_outage(&error) {
            return Err(error).context("the database refuses");
        }
        tracing::info!(%error, "waiting for Postgres");
        tokio::time::sleep(waits.wait()).await;
    }
    store::migrate(&pool).await.context("the migrations cannot be applied")?;
    tracing::info!("the schema is up to date");
    Ok(())
}

/// The token, alone on its line.
#[expect(clippy::print_stdout, reason = "printing is what it is for")]
fn print_token(settings: &Token) -> anyhow::Result<()> {
    let tokens = settings.signing.tokens()?;
    let (token, _) = tokens.sign(&settings.sub, settings.role, settings.ttl)?;
    println!("{token}");
    Ok(())
}
