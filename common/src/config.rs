//! Settings that the binaries share, as flags and environment variables. Secrets come from the environment or from a
//! file named by `…_FILE`, and show neither in `--help` nor in logs.

use clap::error::{ContextKind, ContextValue};
use clap::{Args, Command, Parser};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;

use crate::breakpoint::Breakpoint;
use crate::broker::BrokerConfig;
use crate::telemetry::LogFormat;

/// A setting that cannot be used. The text names the variable, and the form that it wants; never a value that may be
/// secret.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{variable}: {problem}")]
pub struct Unusable {
    variable: String,
    problem: String,
}

impl Unusable {
    /// The variable, and what is wrong with it.
    pub fn new(variable: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { variable: variable.into(), problem: problem.into() }
    }
}

/// Reads the command line and the environment. A value that cannot be used ends the process with a text that names the
/// variable, too.
pub fn parse<C: Parser>() -> C {
    C::try_parse().unwrap_or_else(|error| match variable(&error, &C::command()) {
        Some(variable) => {
            let text = format!("{variable}: {}", error.to_string().trim_start_matches("error: "));
            C::command().error(error.kind(), text.trim_end()).exit()
        }
        None => error.exit(),
    })
}

/// The variable behind the flag that an error is about.
fn variable(error: &clap::Error, command: &Command) -> Option<String> {
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else { return None };
    let long = flag.trim_start_matches("--").split([' ', '=']).next()?;
    let own = command.get_arguments().find(|arg| arg.get_long() == Some(long));
    let found = own.and_then(|arg| arg.get_env()).map(|name| name.to_string_lossy().into_owned());
    found.or_else(|| command.get_subcommands().find_map(|command| variable(error, command)))
}

/// A text that shows nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for the one who needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl std::str::FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

/// A secret given directly, or in a file whose last line end does not count; `None` when neither is.
///
/// # Errors
/// When both are given, or the file cannot be read.
pub fn secret(
    variable: &str,
    given: Option<&Secret>,
    file: Option<&PathBuf>,
) -> Result<Option<Secret>, Unusable> {
    let in_file = format!("{variable}_FILE");
    match (given, file) {
        (Some(_), Some(_)) => {
            Err(Unusable::new(variable, format!("is given, and so is {in_file}; give one of them")))
        }
        (given, None) => Ok(given.cloned()),
        (None, Some(path)) => {
            let text = std::fs::read_to_string(path).map_err(|error| {
                Unusable::new(&in_file, format!("cannot read {}: {error}", path.display()))
            })?;
            Ok(Some(Secret(text.trim_end_matches(['\r', '\n']).to_owned())))
        }
    }
}

/// As [`secret`], for one that the process cannot do without; `form` says what it wants.
///
/// # Errors
/// When it is missing, too.
pub fn required(
    variable: &str,
    form: &str,
    given: Option<&Secret>,
    file: Option<&PathBuf>,
) -> Result<Secret, Unusable> {
    secret(variable, given, file)?.ok_or_else(|| {
        Unusable::new(
            variable,
            format!("is missing; it wants {form} (or {variable}_FILE, a file that holds it)"),
        )
    })
}

/// Postgres.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Postgres")]
pub struct Database {
    /// Where the database is: postgres://user:password@host:port/database
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: Option<Secret>,
    /// A file that holds DATABASE_URL
    #[arg(long, env = "DATABASE_URL_FILE", value_name = "PATH")]
    pub database_url_file: Option<PathBuf>,
    /// Where it is without a pooler in between, for session locks [default: DATABASE_URL]
    #[arg(long, env = "DATABASE_DIRECT_URL", hide_env_values = true, value_name = "URL")]
    pub database_direct_url: Option<Secret>,
    /// A file that holds DATABASE_DIRECT_URL
    #[arg(long, env = "DATABASE_DIRECT_URL_FILE", value_name = "PATH")]
    pub database_direct_url_file: Option<PathBuf>,
    /// The most connections that the process opens in its pool; up to eleven more are for what commits one batch after another, for reading runs, and for locks
    #[arg(long, env = "GATHERING_DATABASE_POOL", default_value_t = 16, value_name = "COUNT",
        value_parser = clap::value_parser!(u32).range(2..=1000))]
    pub database_pool: u32,
}

/// Where the database is, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseConfig {
    /// For the pool.
    pub url: Secret,
    /// For session locks.
    pub direct_url: Secret,
    /// The pool's size.
    pub pool: u32,
}

const POSTGRES_FORM: &str = "postgres://user:password@host:port/database";

impl Database {
    /// Reads the secrets, and checks the addresses.
    ///
    /// # Errors
    /// Names the variable that cannot be used.
    pub fn resolve(&self) -> Result<DatabaseConfig, Unusable> {
        let url = required(
            "DATABASE_URL",
            POSTGRES_FORM,
            self.database_url.as_ref(),
            self.database_url_file.as_ref(),
        )?;
        let direct = secret(
            "DATABASE_DIRECT_URL",
            self.database_direct_url.as_ref(),
            self.database_direct_url_file.as_ref(),
        )?;
        check_postgres("DATABASE_URL", &url)?;
        if let Some(direct) = &direct {
            check_postgres("DATABASE_DIRECT_URL", direct)?;
        }
        Ok(DatabaseConfig {
            direct_url: direct.unwrap_or_else(|| url.clone()),
            url,
            pool: self.database_pool,
        })
    }
}

fn check_postgres(variable: &str, url: &Secret) -> Result<(), Unusable> {
    let url = url.reveal();
    let scheme = url.starts_with("postgres://") || url.starts_with("postgresql://");
    if scheme && url.parse::<sqlx::postgres::PgConnectOptions>().is_ok() {
        return Ok(());
    }
    Err(Unusable::new(variable, format!("is not an address; it wants the form {POSTGRES_FORM}")))
}

/// For the tests of this project; `--help` does not show it.
#[derive(Debug, Clone, Default, Args)]
pub struct ForTests {
    /// After which commit the process ends abruptly: `record:3`, `any:7`; with `:hold`, it halts there instead
    #[arg(long, env = "GATHERING_TEST_STOP_AFTER", hide = true, value_name = "COMMIT")]
    pub test_stop_after: Option<Breakpoint>,
}

impl ForTests {
    /// Arms the breakpoint, if one is given.
    pub fn arm(&self) {
        self.test_stop_after.clone().into_iter().for_each(Breakpoint::arm);
    }
}

/// RabbitMQ.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "RabbitMQ")]
pub struct Broker {
    /// Where the broker is: amqp://user:password@host:port/vhost (a vhost `/` is written %2f; amqps for TLS)
    #[arg(long, env = "AMQP_URL", hide_env_values = true, value_name = "URL")]
    pub amqp_url: Option<Secret>,
    /// A file that holds AMQP_URL
    #[arg(long, env = "AMQP_URL_FILE", value_name = "PATH")]
    pub amqp_url_file: Option<PathBuf>,
    /// What the names of its exchanges and queues begin with; fleets that share a broker have different ones
    #[arg(long, env = "GATHERING_PREFIX", default_value = "gathering", value_name = "NAME", value_parser = prefix)]
    pub prefix: String,
}

const AMQP_FORM: &str = "amqp://user:password@host:port/vhost, with the vhost `/` written %2f";

impl Broker {
    /// Reads the secret, and checks the address. `name` is the process's, as the console shows it.
    ///
    /// # Errors
    /// Names the variable that cannot be used.
    pub fn resolve(&self, name: &str) -> Result<BrokerConfig, Unusable> {
        let url =
            required("AMQP_URL", AMQP_FORM, self.amqp_url.as_ref(), self.amqp_url_file.as_ref())?;
        if let Err(problem) = url.reveal().parse::<lapin::uri::AMQPUri>() {
            // The parser's own words may quote the password.
            drop(problem);
            return Err(Unusable::new(
                "AMQP_URL",
                format!("is not an address; it wants the form {AMQP_FORM}"),
            ));
        }
        Ok(BrokerConfig { url: url.0, prefix: self.prefix.clone(), name: name.to_owned() })
    }
}

fn prefix(text: &str) -> Result<String, String> {
    let good = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
    if (1..=64).contains(&text.len()) && text.bytes().all(good) {
        return Ok(text.to_owned());
    }
    Err("GATHERING_PREFIX wants 1 to 64 of a-z, 0-9, `.`, `_` and `-`".to_owned())
}

/// Logs.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Logs")]
pub struct Log {
    /// What is logged: a level, or levels by module, such as `info,common::broker=debug` [default: info]
    #[arg(long = "log", env = "RUST_LOG", value_name = "FILTER")]
    pub filter: Option<String>,
    /// How a line looks [default: pretty on a terminal, else json]
    #[arg(long, env = "GATHERING_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

impl Log {
    /// Begins to log.
    ///
    /// # Errors
    /// When the filter cannot be read.
    pub fn init(&self) -> anyhow::Result<()> {
        crate::telemetry::init(self.filter.as_deref(), self.log_format)
    }
}

/// A duration, for `value_parser` of clap.
///
/// # Errors
/// Says which form it wants.
pub fn duration(text: &str) -> Result<Duration, String> {
    crate::duration::parse(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use clap::{CommandFactory, FromArgMatches, Parser};

    #[derive(Parser)]
    struct All {
        #[command(flatten)]
        database: Database,
        #[command(flatten)]
        broker: Broker,
        #[command(flatten)]
        log: Log,
    }

    fn parse(arguments: &[&str]) -> Result<All, clap::Error> {
        // Whatever the environment of the test holds.
        let command = All::command().mut_args(|argument| argument.env(None::<&str>));
        All::from_arg_matches(&command.try_get_matches_from([&["x"], arguments].concat())?)
    }

    fn refusal<T: fmt::Debug>(outcome: Result<T, Unusable>) -> String {
        outcome.unwrap_err().to_string()
    }

    #[test]
    fn a_wrong_setting_names_its_variable_and_the_form() {
        let all =
            parse(&["--database-url", "mysql://u:s3cret@h/d", "--amqp-url", "http://u:s3cret@h"])
                .unwrap();
        let text = refusal(all.database.resolve());
        assert!(
            text.starts_with("DATABASE_URL: ") && text.contains("postgres://user:password@"),
            "{text}"
        );
        assert!(!text.contains("s3cret"));
        let text = refusal(all.broker.resolve("x"));
        assert!(text.starts_with("AMQP_URL: ") && text.contains("amqp://user:password@"), "{text}");
        assert!(!text.contains("s3cret"));
        let text = parse(&["--prefix", "Gathering!"]).err().unwrap().to_string();
        assert!(text.contains("GATHERING_PREFIX wants 1 to 64"), "{text}");
        let text = parse(&["--database-pool", "1"]).err().unwrap().to_string();
        assert!(text.contains("2..=1000"), "{text}");
    }

    #[test]
    fn the_variable_behind_a_flag_is_found() {
        let error = parse(&["--database-pool", "1"]).err().unwrap();
        assert_eq!(variable(&error, &All::command()).as_deref(), Some("GATHERING_DATABASE_POOL"));
    }

    #[test]
    fn good_settings_are_read() {
        let all = parse(&[
            "--database-url",
            "postgres://u:p@h:5432/d",
            "--amqp-url",
            "amqp://u:p@h:5672/%2f",
        ])
        .unwrap();
        let database = all.database.resolve().unwrap();
        assert_eq!(database.direct_url, database.url);
        let broker = all.broker.resolve("gathering-api").unwrap();
        assert_eq!((broker.prefix.as_str(), broker.name.as_str()), ("gathering", "gathering-api"));
        assert_eq!(all.log.log_format, None);
    }

    #[test]
    fn a_secret_may_be_in_a_file() {
        let path = std::env::temp_dir().join(format!("secret-{}", uuid::Uuid::now_v7()));
        std::fs::write(&path, "amqp://u:p@h/%2f\n").unwrap();
        let file = path.to_str().unwrap();
        assert_eq!(
            parse(&["--amqp-url-file", file]).unwrap().broker.resolve("x").unwrap().url,
            "amqp://u:p@h/%2f"
        );
        let both = parse(&["--amqp-url-file", file, "--amqp-url", "amqp://h"]).unwrap();
        assert!(refusal(both.broker.resolve("x")).contains("give one of them"));
        std::fs::remove_file(&path).unwrap();
        let gone = parse(&["--amqp-url-file", file]).unwrap();
        assert!(refusal(gone.broker.resolve("x")).starts_with("AMQP_URL_FILE: cannot read"));
    }

    #[test]
    fn no_secret_shows() {
        let urls = ["--database-url", "postgres://u:s3cret@h/d", "--amqp-url", "amqp://u:s3cret@h"];
        let all = parse(&urls).unwrap();
        let shown = format!(
            "{:?} {:?} {:?} {:?}",
            all.database,
            all.broker,
            all.database.resolve(),
            all.broker.resolve("x").unwrap()
        );
        assert!(!shown.contains("s3cret"), "{shown}");
        All::command().debug_assert();
    }
}
