//! What the program is asked to do, and its settings.

mod access;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use common::config::{self, Broker, Database, ForTests, Log, Secret, Unusable};
use common::secret;

use common::access::Role;

pub(crate) use self::access::{Access, FirstAdmin, Registration};
use crate::auth::Tokens;

/// The api of GatheRing: accepts pipelines and runs over HTTP, and executes nothing
#[derive(Debug, Parser)]
#[command(name = "gathering-api", version, about)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve HTTP until SIGTERM
    Serve(Box<Serve>),
    /// Bring the database's schema up to date, and exit
    Migrate(Box<Migrate>),
    /// Print an access token for an operator, who needs no account: it is as good as the key that signs it
    Token(Token),
    /// Ask a running api whether it is ready; exits with 0 if so
    Health(Health),
}

/// Settings of `serve`.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) database: Database,
    #[command(flatten)]
    pub(crate) broker: Broker,
    #[command(flatten)]
    pub(crate) signing: Signing,
    #[command(flatten)]
    pub(crate) access: Access,
    #[command(flatten)]
    pub(crate) secrets: secret::Setting,
    /// Where to listen
    #[arg(
        long,
        env = "GATHERING_HTTP_ADDR",
        default_value = "127.0.0.1:8080",
        value_name = "HOST:PORT",
        value_parser = http_addr
    )]
    pub(crate) http_addr: SocketAddr,
    /// How long requests under way may take to end after SIGTERM
    #[arg(long, env = "GATHERING_DRAIN", default_value = "30s", value_name = "DURATION", value_parser = config::duration)]
    pub(crate) drain: Duration,
    #[command(flatten)]
    pub(crate) log: Log,
    #[command(flatten)]
    pub(crate) for_tests: ForTests,
}

/// Settings of `migrate`.
#[derive(Debug, Args)]
pub(crate) struct Migrate {
    #[command(flatten)]
    pub(crate) database: Database,
    #[command(flatten)]
    pub(crate) log: Log,
}

/// Settings of `token`.
#[derive(Debug, Args)]
pub(crate) struct Token {
    #[command(flatten)]
    pub(crate) signing: Signing,
    /// Whom it is for: what records call them. The id of a user makes a token of that user, as if they had signed in
    #[arg(long, value_name = "NAME", value_parser = subject)]
    pub(crate) sub: String,
    /// What they may do
    #[arg(long, value_enum)]
    pub(crate) role: Role,
    /// How long it is valid
    #[arg(long, default_value = "1h", value_name = "DURATION", value_parser = config::duration)]
    pub(crate) ttl: Duration,
}

/// Settings of `health`.
#[derive(Debug, Args)]
pub(crate) struct Health {
    /// Where the api listens
    #[arg(
        long,
        env = "GATHERING_HTTP_ADDR",
        default_value = "127.0.0.1:8080",
        value_name = "HOST:PORT",
        value_parser = http_addr
    )]
    pub(crate) http_addr: SocketAddr,
}

/// The key of access tokens.
#[derive(Debug, Args)]
#[command(next_help_heading = "Access")]
pub(crate) struct Signing {
    /// The key that access tokens are signed with: at least 32 bytes
    #[arg(long, env = "GATHERING_JWT_SECRET", hide_env_values = true, value_name = "KEY")]
    jwt_secret: Option<Secret>,
    /// A file that holds GATHERING_JWT_SECRET
    #[arg(long, env = "GATHERING_JWT_SECRET_FILE", value_name = "PATH")]
    jwt_secret_file: Option<PathBuf>,
    /// Former and coming keys, one a line: tokens that one of them signed are accepted, too
    #[arg(long, env = "GATHERING_JWT_OTHER_SECRETS", hide_env_values = true, value_name = "KEYS")]
    jwt_other_secrets: Option<Secret>,
    /// A file that holds GATHERING_JWT_OTHER_SECRETS
    #[arg(long, env = "GATHERING_JWT_OTHER_SECRETS_FILE", value_name = "PATH")]
    jwt_other_secrets_file: Option<PathBuf>,
}

impl Signing {
    /// What signs and verifies tokens with these keys.
    pub(crate) fn tokens(&self) -> Result<Tokens, Unusable> {
        const NAME: &str = "GATHERING_JWT_SECRET";
        const OTHERS: &str = "GATHERING_JWT_OTHER_SECRETS";
        const FORM: &str =
            "a random text of at least 32 bytes, such as `openssl rand -base64 48` prints";
        let secret =
            config::required(NAME, FORM, self.jwt_secret.as_ref(), self.jwt_secret_file.as_ref())?;
        let others = config::secret(
            OTHERS,
            self.jwt_other_secrets.as_ref(),
            self.jwt_other_secrets_file.as_ref(),
        )?;
        let others = others.as_ref().map_or("", Secret::reveal).lines().map(str::trim);
        let others: Vec<&str> = others.filter(|key| !key.is_empty()).collect();
        let too_short = |name, keys: &[&str]| {
            let short = keys.iter().any(|key| key.len() < 32);
            short.then(|| Unusable::new(name, format!("is too short; it wants {FORM}")))
        };
        let fault = too_short(NAME, &[secret.reveal()]).or_else(|| too_short(OTHERS, &others));
        match fault {
            Some(fault) => Err(fault),
            None => {
                Ok(Tokens::new(secret.reveal().as_bytes(), others.iter().map(|key| key.as_bytes())))
            }
        }
    }
}

/// Who a token is for, as records can hold it.
fn subject(text: &str) -> Result<String, String> {
    let is_plain = (1..=255).contains(&text.len()) && !text.chars().any(char::is_control);
    if is_plain && !text.starts_with("key:") {
        return Ok(text.to_owned());
    }
    Err("a name has 1 to 255 bytes, no control characters, and does not begin with `key:`"
        .to_owned())
}

/// An address to listen on.
fn http_addr(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "GATHERING_HTTP_ADDR wants an address such as 127.0.0.1:8080".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_key_that_is_too_short_is_refused_by_name() {
        let signing = |key: &str| Signing {
            jwt_secret: Some(Secret::from(key.to_owned())),
            jwt_secret_file: None,
            jwt_other_secrets: None,
            jwt_other_secrets_file: None,
        };
        assert!(signing(&"x".repeat(32)).tokens().is_ok());
        let refusal = signing("short-secret").tokens().err().expect("it is too short").to_string();
        assert!(refusal.starts_with("GATHERING_JWT_SECRET: is too short"), "{refusal}");
        assert!(!refusal.contains("short-secret"), "{refusal}");
    }
}
