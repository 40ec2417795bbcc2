//! Hands a mail to its server.
//!
//! `smtp`: `host`, `port`, `security` (`starttls`, the default; `tls` from the first byte; `plain`, which has to be asked
//! for, since all can read it, a password included), `username` and `password`, `root_certificates` (PEM; trusted besides
//! those of the system). Without `port` it is 587, 465 or 25.
//!
//! A server that says 5xx will say it again: permanent, as is one that cannot do what is asked for (no STARTTLS, no way to
//! sign in) or whose certificate is not trusted. 4xx, and a connection that fails, are retryable.

use std::error::Error as _;
use std::time::Duration;

use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;

use crate::guard::Guard;
use crate::http::chain;
use crate::{Context, Failure};

/// How long the server may take for each of its answers.
const ANSWER: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Server {
    host: String,
    port: Option<u16>,
    #[serde(default)]
    security: Security,
    username: Option<String>,
    password: Option<String>,
    root_certificates: Option<String>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Server({}:{})", self.host, self.port())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Security {
    Tls,
    #[default]
    Starttls,
    Plain,
}

impl Server {
    fn port(&self) -> u16 {
        self.port.unwrap_or(match self.security {
            Security::Tls => 465,
            Security::Starttls => 587,
            Security::Plain => 25,
        })
    }

    fn tls(&self) -> Result<Tls, Failure> {
        let wrong =
            |error: &Error| Failure::permanent(format!("`smtp` cannot be used: {}", chain(error)));
        if self.security == Security::Plain {
            return Ok(Tls::None);
        }
        let mut parameters = TlsParameters::builder(self.host.clone());
        for root in self.roots()? {
            let root = Certificate::from_der(root.to_vec()).map_err(|error| wrong(&error))?;
            parameters = parameters.add_root_certificate(root);
        }
        let parameters = parameters.build_rustls().map_err(|error| wrong(&error))?;
        Ok(match self.security {
            Security::Tls => Tls::Wrapper(parameters),
            _ => Tls::Required(parameters),
        })
    }

    fn roots(&self) -> Result<Vec<CertificateDer<'static>>, Failure> {
        let Some(pem) = &self.root_certificates else { return Ok(Vec::new()) };
        let roots: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
        match roots {
            Ok(roots) if !roots.is_empty() => Ok(roots),
            _ => Err(Failure::permanent("`smtp.root_certificates` holds no certificate in PEM")),
        }
    }

    fn credentials(&self) -> Result<Option<Credentials>, Failure> {
        match (&self.username, &self.password) {
            (None, None) => Ok(None),
            (Some(name), Some(password)) => {
                Ok(Some(Credentials::new(name.clone(), password.clone())))
            }
            _ => Err(Failure::permanent("`smtp` wants `username` and `password`, or neither")),
        }
    }
}

/// Returns once the server has taken the mail for all its recipients.
pub(super) async fn deliver(
    guard: &Guard,
    server: &Server,
    message: &Message,
    context: &Context,
) -> Result<(), Failure> {
    let (tls, credentials, text) = (server.tls()?, server.credentials()?, message.formatted());
    let attempt = async {
        let mut unconnected = None;
        // At the addresses that were checked: the name could have others the next time that it is asked for.
        for address in guard.addresses(&server.host).await? {
            let mut transport =
                AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(address.to_string())
                    .port(server.port())
                    .tls(tls.clone())
                    .timeout(Some(ANSWER));
            if let Some(credentials) = &credentials {
                transport = transport.credentials(credentials.clone());
            }
            match transport.build().send_raw(message.envelope(), &text).await {
                Ok(_) => return Ok(()),
                Err(error) if is_unconnected(&error) => unconnected = Some(error),
                Err(error) => return Err(failure(server, &error, context)),
            }
        }
        Err(match unconnected {
            Some(error) => failure(server, &error, context),
            None => Failure::retryable(format!("{} has no address", server.host)),
        })
    };
    context.cancel.run_until_cancelled(attempt).await.unwrap_or(Err(Failure::Cancelled))
}

/// Whether nothing was said yet, so that another of the server's addresses may do.
fn is_unconnected(error: &Error) -> bool {
    error.to_string().starts_with("Connection error") && !is_distrust(error)
}

fn failure(server: &Server, error: &Error, context: &Context) -> Failure {
    let Server { host, .. } = server;
    // A server may repeat what it was told.
    let said = context.mask.text(&chain(error));
    let message = format!("{host}:{} did not take the mail: {said}", server.port());
    match error.is_permanent() || error.is_client() || is_distrust(error) {
        true => Failure::permanent(message),
        false => Failure::retryable(message),
    }
}

/// Whether the server's certificate is the reason.
fn is_distrust(error: &Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let tls = error
            .downcast_ref::<rustls::Error>()
            .or_else(|| inner.and_then(|inner| inner.downcast_ref()));
        if matches!(tls, Some(rustls::Error::InvalidCertificate(_))) {
            return true;
        }
        cause = error.source();
    }
    false
}
