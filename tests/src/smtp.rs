//! A real mail server on the loopback: STARTTLS or TLS with a certificate of its own, AUTH, and answers as told.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// When a connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// Never.
    Plain,
    /// When the client asks for it; nothing else is taken before.
    Starttls,
    /// From the first byte.
    Tls,
}

/// A mail that was taken.
#[derive(Debug, Clone)]
pub struct Mail {
    /// From whom, as the envelope says.
    pub from: String,
    /// To whom, as the envelope says.
    pub to: Vec<String>,
    /// Headers and body.
    pub text: String,
    /// Whether it came encrypted.
    pub encrypted: bool,
    /// Who had signed in.
    pub user: Option<String>,
}

impl Mail {
    /// A header's value, on one line.
    pub fn header(&self, name: &str) -> Option<String> {
        let head = self.text.split("\r\n\r\n").next()?.replace("\r\n ", " ");
        let prefix = format!("{}:", name.to_lowercase());
        let line = head.lines().find(|line| line.to_lowercase().starts_with(&prefix))?;
        Some(line[prefix.len()..].trim().to_owned())
    }
}

/// The server. It stops at drop.
#[derive(Debug)]
pub struct SmtpServer {
    port: u16,
    certificate: String,
    state: Arc<State>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    security: Security,
    /// The one account, if clients have to sign in.
    account: Option<(String, String)>,
    answers: Mutex<HashMap<String, VecDeque<String>>>,
    mails: Mutex<Vec<Mail>>,
    tls: TlsConfig,
}

struct TlsConfig(TlsAcceptor);

impl std::fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsConfig")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics here")
}

impl SmtpServer {
    /// Starts one; with an account, only who has signed in can send.
    pub async fn start(security: Security, account: Option<(&str, &str)>) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])
            .expect("a certificate can be made");
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has the usual protocols")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("the key is the certificate's");
        let listener =
            TcpListener::bind("127.0.0.1:0").await.expect("the loopback has a free port");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let account = account.map(|(user, password)| (user.to_owned(), password.to_owned()));
        let tls = TlsConfig(TlsAcceptor::from(Arc::new(config)));
        let state = Arc::new(State {
            security,
            account,
            answers: Mutex::default(),
            mails: Mutex::default(),
            tls,
        });
        let served = state.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(connection(stream, served.clone()));
            }
        });
        Self { port, certificate: made.cert.pem(), state, task }
    }

    /// Where it listens, on `localhost`.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its own certificate, in PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// What it says to the next commands of this name; `.` is the end of a mail. An empty one closes the connection.
    pub fn answers<'a>(&self, command: &str, answers: impl IntoIterator<Item = &'a str>) {
        let answers = answers.into_iter().map(str::to_owned);
        lock(&self.state.answers).entry(command.to_owned()).or_default().extend(answers);
    }

    /// The mails that it took.
    pub fn mails(&self) -> Vec<Mail> {
        lock(&self.state.mails).clone()
    }
}

impl Drop for SmtpServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a client has done so far.
#[derive(Debug, Default)]
struct Session {
    encrypted: bool,
    user: Option<String>,
    from: String,
    to: Vec<String>,
}

async fn connection(stream: TcpStream, state: Arc<State>) -> Option<()> {
    if state.security == Security::Tls {
        let stream = state.tls.0.accept(stream).await.ok()?;
        return serve(stream, &state, true, true).await.map(|_| ());
    }
    let plain = serve(stream, &state, false, true).await??;
    let stream = state.tls.0.accept(plain).await.ok()?;
    serve(stream, &state, true, false).await.map(|_| ())
}

/// Serves until the client goes, or asks for encryption: then the stream is returned.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    state: &State,
    encrypted: bool,
    greets: bool,
) -> Option<Option<S>> {
    let mut stream = BufStream::new(stream);
    let mut session = Session { encrypted, ..Session::default() };
    if greets {
        say(&mut stream, "220 localhost at your service").await?;
    }
    loop {
        let line = read(&mut stream).await?;
        let verb = line.split([' ', ':']).next().unwrap_or_default().to_uppercase();
        let told = lock(&state.answers).get_mut(&verb).and_then(VecDeque::pop_front);
        match (told, verb.as_str()) {
            (Some(told), _) if told.is_empty() => return None,
            (Some(told), _) => say(&mut stream, &told).await?,
            (None, "STARTTLS") if state.security == Security::Starttls && !encrypted => {
                say(&mut stream, "220 go on").await?;
                return Some(Some(stream.into_inner()));
            }
            (None, "QUIT") => {
                say(&mut stream, "221 bye").await?;
                return Some(None);
            }
            (None, "DATA") => data(&mut stream, state, &mut session).await?,
            (None, _) => {
                let answer = answer(&mut stream, state, &mut session, &verb, &line).await?;
                say(&mut stream, &answer).await?;
            }
        }
    }
}

async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut BufStream<S>,
    state: &State,
    session: &mut Session,
    verb: &str,
    line: &str,
) -> Option<String> {
    let bare = state.security == Security::Starttls && !session.encrypted;
    let anonymous = state.account.is_some() && session.user.is_none();
    let address = || line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
    let said = match verb {
        "EHLO" if bare => "250-localhost\r\n250 STARTTLS",
        "EHLO" if state.account.is_some() => {
            "250-localhost\r\n250-8BITMIME\r\n250 AUTH PLAIN LOGIN"
        }
        "EHLO" => "250-localhost\r\n250 8BITMIME",
        _ if bare => "530 5.7.0 encrypt first",
        "AUTH" => {
            session.user = sign_in(stream, state, line).await?;
            match &session.user {
                Some(_) => "235 2.7.0 welcome",
                // Servers do repeat what they were told.
                None => return Some(format!("535 5.7.8 not with {line}")),
            }
        }
        "MAIL" | "RCPT" if anonymous => "530 5.7.0 sign in first",
        "MAIL" => {
            session.from = address();
            session.to.clear();
            "250 2.1.0 fine"
        }
        "RCPT" => {
            session.to.push(address());
            "250 2.1.5 fine"
        }
        "NOOP" | "RSET" => "250 fine",
        _ => "500 what?",
    };
    Some(said.to_owned())
}

async fn sign_in<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut BufStream<S>,
    state: &State,
    line: &str,
) -> Option<Option<String>> {
    let decoded = |text: &str| {
        let bytes = STANDARD.decode(text.trim()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let words: Vec<&str> = line.split(' ').collect();
    let (user, password) = match words.as_slice() {
        [_, "PLAIN", given] => {
            let given = decoded(given);
            let mut parts = given.split('\0').skip(1).map(str::to_owned);
            (parts.next()?, parts.next()?)
        }
        _ => {
            say(stream, "334 VXNlcm5hbWU6").await?;
            let user = decoded(&read(stream).await?);
            say(stream, "334 UGFzc3dvcmQ6").await?;
            (user, decoded(&read(stream).await?))
        }
    };
    let known = state.account.as_ref().is_some_and(|known| *known == (user.clone(), password));
    Some(known.then_some(user))
}

async fn data<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut BufStream<S>,
    state: &State,
    session: &mut Session,
) -> Option<()> {
    say(stream, "354 go on").await?;
    let mut text = String::new();
    loop {
        let line = read(stream).await?;
        if line == "." {
            break;
        }
        text.push_str(line.strip_prefix('.').unwrap_or(&line));
        text.push_str("\r\n");
    }
    let told = lock(&state.answers).get_mut(".").and_then(VecDeque::pop_front);
    // What closes the connection has taken the mail: its answer is lost.
    if told.as_ref().is_none_or(|told| told.is_empty() || told.starts_with('2')) {
        lock(&state.mails).push(Mail {
            from: session.from.clone(),
            to: session.to.clone(),
            text,
            encrypted: session.encrypted,
            user: session.user.clone(),
        });
    }
    match told {
        Some(told) if told.is_empty() => None,
        Some(told) => say(stream, &told).await,
        None => say(stream, "250 2.0.0 taken").await,
    }
}

async fn read<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut BufStream<S>) -> Option<String> {
    let mut line = Vec::new();
    match stream.read_until(b'\n', &mut line).await {
        Ok(1..) => Some(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned()),
        _ => None,
    }
}

async fn say<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut BufStream<S>,
    text: &str,
) -> Option<()> {
    stream.write_all(format!("{text}\r\n").as_bytes()).await.ok()?;
    stream.flush().await.ok()
}
