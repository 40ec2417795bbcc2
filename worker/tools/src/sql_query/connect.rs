//! To a database whose address was checked.

use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_postgres::config::Host;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{CancelToken, Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::task::AbortOnDropHandle;

use super::failure::failure;
use crate::Failure;
use crate::guard::{Guard, Unreachable};

/// How long a connection may take that says nothing about it.
const CONNECT: Duration = Duration::from_secs(10);
/// How long the request to cancel a statement may take, and the statement then. Shorter than [`crate::GRACE`].
const CANCEL: Duration = Duration::from_secs(1);
const PORT: u16 = 5432;

/// A database, as its URL names it.
pub(super) struct Target(Config);

/// Where one may be.
struct Place {
    /// As the certificate has it.
    name: String,
    address: Option<IpAddr>,
    port: u16,
}

impl Target {
    /// The parser's own words may quote the password.
    pub(super) fn read(url: &str) -> Result<Self, Failure> {
        url.parse().map(Self).map_err(|_| {
            Failure::permanent(
                "`database` is no address of a Postgres; it wants the form postgres://user:password@host:port/database",
            )
        })
    }

    pub(super) fn password(&self) -> Option<&str> {
        self.0.get_password().and_then(|bytes| std::str::from_utf8(bytes).ok())
    }

    fn places(&self) -> Result<Vec<Place>, Failure> {
        let (hosts, addresses) = (self.0.get_hosts(), self.0.get_hostaddrs());
        let port = |ix: usize| match self.0.get_ports() {
            [] => PORT,
            [one] => *one,
            several => several.get(ix).copied().unwrap_or(PORT),
        };
        let mut places = Vec::new();
        for ix in 0..hosts.len().max(addresses.len()) {
            let address = addresses.get(ix).copied();
            let name = match (hosts.get(ix), address) {
                (Some(Host::Tcp(name)), _) => name.clone(),
                (None, Some(address)) => address.to_string(),
                _ => {
                    return Err(Failure::permanent(
                        "`database` names no host that can be reached over TCP",
                    ));
                }
            };
            places.push(Place { name, address, port: port(ix) });
        }
        if places.is_empty() {
            return Err(Failure::permanent("`database` names no host"));
        }
        Ok(places)
    }

    /// Connects to the first that answers.
    pub(super) async fn open(
        &self,
        guard: &Guard,
        mut tls: MakeRustlsConnect,
    ) -> Result<Session, Failure> {
        let mut last = Failure::permanent("`database` names no host");
        for Place { name, address, port } in self.places()? {
            let addresses = match address {
                Some(address) => {
                    guard.permits(&name, address).map(|()| vec![address]).map_err(Unreachable::from)
                }
                None => guard.addresses(&name).await,
            };
            let addresses = match addresses {
                Ok(addresses) => addresses,
                Err(unreachable) => {
                    last = unreachable.into();
                    continue;
                }
            };
            for ip in addresses {
                let address = SocketAddr::new(ip, port);
                let stream = match self.connect(address).await {
                    Ok(stream) => stream,
                    Err(error) => {
                        last = error;
                        continue;
                    }
                };
                let connector = connector(&mut tls, &name);
                let (client, connection) = match self.0.connect_raw(stream, connector).await {
                    Ok(opened) => opened,
                    Err(error) => {
                        last = failure(&error);
                        continue;
                    }
                };
                // It ends with the session, and tells its error to whoever waits for an answer.
                let task = AbortOnDropHandle::new(tokio::spawn(async move {
                    let _ = connection.await;
                }));
                return Ok(Session { client, task, address, name, tls });
            }
        }
        Err(last)
    }

    async fn connect(&self, address: SocketAddr) -> Result<TcpStream, Failure> {
        let most = self.0.get_connect_timeout().copied().unwrap_or(CONNECT);
        let refused = |error: std::io::Error| {
            Failure::retryable(format!("the database cannot be connected to: {error}"))
        };
        match timeout(most, TcpStream::connect(address)).await {
            Ok(connected) => {
                let stream = connected.map_err(refused)?;
                stream.set_nodelay(true).map_err(refused)?;
                Ok(stream)
            }
            Err(_) => {
                Err(Failure::retryable("the database cannot be connected to: no answer in time"))
            }
        }
    }
}

type Connector = <MakeRustlsConnect as MakeTlsConnect<TcpStream>>::TlsConnect;

fn connector(tls: &mut MakeRustlsConnect, name: &str) -> Connector {
    let made = MakeTlsConnect::<TcpStream>::make_tls_connect(tls, name);
    made.unwrap_or_else(|never| match never {})
}

/// A connection. It is closed when this is dropped.
pub(super) struct Session {
    client: Client,
    task: AbortOnDropHandle<()>,
    address: SocketAddr,
    name: String,
    tls: MakeRustlsConnect,
}

impl Session {
    pub(super) fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Cancels what the server executes, and waits a little until it has ended.
    pub(super) async fn cancel(mut self) {
        let token: CancelToken = self.client.cancel_token();
        let connector = connector(&mut self.tls, &self.name);
        let cancel = async {
            let stream = TcpStream::connect(self.address).await.ok()?;
            token.cancel_query_raw(stream, connector).await.ok()
        };
        if !matches!(timeout(CANCEL, cancel).await, Ok(Some(()))) {
            tracing::warn!(
                "a statement could not be cancelled; its server ends it when it notices"
            );
        }
        // The client's last word has been said: the connection ends when what it waits for has.
        drop(self.client);
        let _ = timeout(CANCEL / 2, &mut self.task).await;
    }
}

/// The certificates that are trusted: those of the system, read once.
#[derive(Default)]
pub(super) struct Roots(OnceLock<RootCertStore>);

impl Roots {
    /// For TLS, if the server has it.
    pub(super) fn connector(&self, more: Option<&str>) -> Result<MakeRustlsConnect, Failure> {
        let mut roots = self.0.get_or_init(system).clone();
        if let Some(pem) = more {
            let unusable =
                |_| Failure::permanent("`root_certificates` holds no certificate in PEM");
            let given: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
                .collect::<Result<_, _>>()
                .map_err(unusable)?;
            if roots.add_parsable_certificates(given).0 == 0 {
                return Err(Failure::permanent("`root_certificates` holds no certificate in PEM"));
            }
        }
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Ok(MakeRustlsConnect::new(config))
    }
}

fn system() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}
