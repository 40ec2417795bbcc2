//! Settings of who may do what, and how much of it.

use std::path::PathBuf;
use std::time::Duration;

use axum::http::HeaderValue;
use clap::{Args, ValueEnum};
use common::config::{self, Secret, Unusable};
use redis::Client;

use crate::account;
use crate::address::{Network, Proxies};
use crate::auth::password;
use crate::hygiene;
use crate::limit::{RateSetting, Rates};

/// Whether anybody may make an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Registration {
    /// Only admins make accounts.
    Closed,
    /// Anybody may, and is a viewer then.
    Open,
}

/// Access.
#[derive(Debug, Args)]
#[command(next_help_heading = "Access")]
pub(crate) struct Access {
    /// Whether anybody may make an account; they are viewers then
    #[arg(long, env = "GATHERING_REGISTRATION", default_value = "closed", value_name = "STATE")]
    pub(crate) registration: Registration,
    /// The first admin's email: made at start if there is no such account
    #[arg(long, env = "GATHERING_ADMIN_EMAIL", value_name = "EMAIL")]
    admin_email: Option<String>,
    /// The first admin's password; an account that is there keeps its own
    #[arg(long, env = "GATHERING_ADMIN_PASSWORD", hide_env_values = true, value_name = "PASSWORD")]
    admin_password: Option<Secret>,
    /// A file that holds GATHERING_ADMIN_PASSWORD
    #[arg(long, env = "GATHERING_ADMIN_PASSWORD_FILE", value_name = "PATH")]
    admin_password_file: Option<PathBuf>,
    /// How often an address may try to sign in: `5/min`, `50/s`, `off`
    #[arg(long, env = "GATHERING_RATE_LIMIT_AUTH", default_value = "5/min", value_name = "RATE")]
    rate_limit_auth: RateSetting,
    /// How many requests of a user or key may change something
    #[arg(
        long,
        env = "GATHERING_RATE_LIMIT_WRITE",
        default_value = "600/min",
        value_name = "RATE"
    )]
    rate_limit_write: RateSetting,
    /// How many other requests a user or key may send
    #[arg(
        long,
        env = "GATHERING_RATE_LIMIT_READ",
        default_value = "1200/min",
        value_name = "RATE"
    )]
    rate_limit_read: RateSetting,
    /// Where Redis is, so that all replicas count together: redis://user:password@host:port [default: each by itself]
    #[arg(long, env = "GATHERING_REDIS_URL", hide_env_values = true, value_name = "URL")]
    redis_url: Option<Secret>,
    /// A file that holds GATHERING_REDIS_URL
    #[arg(long, env = "GATHERING_REDIS_URL_FILE", value_name = "PATH")]
    redis_url_file: Option<PathBuf>,
    /// The proxies whose X-Forwarded-For and X-Forwarded-Proto count: addresses and networks, with commas between
    #[arg(long, env = "GATHERING_TRUSTED_PROXIES", value_delimiter = ',', value_name = "NETWORKS")]
    trusted_proxies: Vec<Network>,
    /// The origins whose pages may call the api, with commas between; none by default
    #[arg(long, env = "GATHERING_CORS_ORIGINS", value_delimiter = ',', value_name = "ORIGINS",
        value_parser = hygiene::origin)]
    pub(crate) cors_origins: Vec<HeaderValue>,
    /// How long a request may take, but for streams; longer than the longest `?wait=`
    #[arg(long, env = "GATHERING_REQUEST_TIMEOUT", default_value = "75s", value_name = "DURATION",
        value_parser = config::duration)]
    pub(crate) request_timeout: Duration,
    /// How long a connection may take to send a request's head, the time before it included
    #[arg(long, env = "GATHERING_HEADER_TIMEOUT", default_value = "60s", value_name = "DURATION",
        value_parser = config::duration)]
    pub(crate) header_timeout: Duration,
}

/// The account that the environment asks for.
pub(crate) struct FirstAdmin {
    pub(crate) email: account::Email,
    pub(crate) password: Secret,
}

impl Access {
    pub(crate) fn first_admin(&self) -> Result<Option<FirstAdmin>, Unusable> {
        const EMAIL: &str = "GATHERING_ADMIN_EMAIL";
        const PASSWORD: &str = "GATHERING_ADMIN_PASSWORD";
        let password = config::secret(
            PASSWORD,
            self.admin_password.as_ref(),
            self.admin_password_file.as_ref(),
        )?;
        match (self.admin_email.as_deref().filter(|text| !text.is_empty()), password) {
            (None, None) => Ok(None),
            (Some(_), None) => {
                Err(Unusable::new(PASSWORD, format!("is missing, and {EMAIL} is given")))
            }
            (None, Some(password)) if password.reveal().is_empty() => Ok(None),
            (None, Some(_)) => {
                Err(Unusable::new(EMAIL, format!("is missing, and {PASSWORD} is given")))
            }
            (Some(email), Some(password)) => {
                let email =
                    account::Email::read(email).map_err(|fault| Unusable::new(EMAIL, fault))?;
                match password::fault(password.reveal()) {
                    Some(fault) => Err(Unusable::new(PASSWORD, fault)),
                    None => Ok(Some(FirstAdmin { email, password })),
                }
            }
        }
    }

    pub(crate) fn rates(&self) -> Rates {
        Rates {
            auth: self.rate_limit_auth.0,
            write: self.rate_limit_write.0,
            read: self.rate_limit_read.0,
        }
    }

    pub(crate) fn proxies(&self) -> Proxies {
        Proxies(self.trusted_proxies.clone())
    }

    pub(crate) fn redis(&self) -> Result<Option<Client>, Unusable> {
        const NAME: &str = "GATHERING_REDIS_URL";
        let url = config::secret(NAME, self.redis_url.as_ref(), self.redis_url_file.as_ref())?;
        let Some(url) = url.filter(|url| !url.reveal().is_empty()) else { return Ok(None) };
        // The library's own words may quote the password.
        let form = "is not an address; it wants the form redis://user:password@host:port/database";
        Client::open(url.reveal()).map(Some).map_err(|_| Unusable::new(NAME, form))
    }
}
