//! Logs to stdout, one line an event, and the trace context that travels with requests and messages.

use rand::RngExt;
use std::fmt::{Display, Formatter, Result as Formatted};
use std::io::IsTerminal;
use std::str::FromStr;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use self::line::Line;

mod line;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For a person at a terminal.
    Pretty,
}

/// Begins to log to stdout. `filter` is what `RUST_LOG` holds; `info` when there is none. Without a format it is
/// `pretty` on a terminal, else `json`.
///
/// # Errors
/// When the filter cannot be read, or the process logs already.
pub fn init(filter: Option<&str>, format: Option<LogFormat>) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(directives(filter.unwrap_or("info"))).map_err(|error| {
        anyhow::anyhow!("RUST_LOG: {error}; it wants a form such as `info,common::broker=debug`")
    })?;
    let terminal = std::io::stdout().is_terminal();
    let registry = tracing_subscriber::registry().with(filter);
    match format.unwrap_or(if terminal { LogFormat::Pretty } else { LogFormat::Json }) {
        LogFormat::Json => registry
            .with(fmt::layer().fmt_fields(JsonFields::new()).event_format(Line))
            .try_init()?,
        LogFormat::Pretty => registry.with(fmt::layer().with_ansi(terminal)).try_init()?,
    }
    Ok(())
}

/// The client library of RabbitMQ logs each broken connection, and each returned message whole; the broker module
/// says it once, and shorter.
fn directives(filter: &str) -> String {
    if filter.contains("lapin") { filter.to_owned() } else { format!("{filter},lapin=off") }
}

/// A W3C trace context: `00-<trace>-<parent>-<flags>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traceparent {
    trace: u128,
    parent: u64,
    flags: u8,
}

impl Traceparent {
    /// A new trace, sampled.
    pub fn generate() -> Self {
        let mut random = rand::rng();
        Self {
            trace: random.random_range(1..=u128::MAX),
            parent: random.random_range(1..=u64::MAX),
            flags: 1,
        }
    }

    /// The same trace, one span further.
    #[must_use]
    pub fn child(self) -> Self {
        Self { parent: rand::rng().random_range(1..=u64::MAX), ..self }
    }

    /// The trace's id: 32 hex digits.
    pub fn trace_id(self) -> String {
        format!("{:032x}", self.trace)
    }
}

impl Display for Traceparent {
    fn fmt(&self, f: &mut Formatter<'_>) -> Formatted {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.parent, self.flags)
    }
}

/// What is no trace context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a W3C traceparent: it wants the form 00-<32 hex digits>-<16 hex digits>-<2 hex digits>, lower-case, no zeros"
)]
pub struct NotATraceparent;

impl FromStr for Traceparent {
    type Err = NotATraceparent;

    fn from_str(text: &str) -> Result<Self, NotATraceparent> {
        let mut parts = text.split('-');
        let mut part = |digits: usize| {
            let part = parts.next().filter(|part| part.len() == digits)?;
            part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')).then_some(part)
        };
        let (version, trace, parent, flags) =
            (|| Some((part(2)?, part(32)?, part(16)?, part(2)?)))().ok_or(NotATraceparent)?;
        // A later version may add parts; version 00 has none, and ff is forbidden.
        if version == "ff" || (version == "00" && parts.next().is_some()) {
            return Err(NotATraceparent);
        }
        let trace = u128::from_str_radix(trace, 16).map_err(|_| NotATraceparent)?;
        let parent = u64::from_str_radix(parent, 16).map_err(|_| NotATraceparent)?;
        let flags = u8::from_str_radix(flags, 16).map_err(|_| NotATraceparent)?;
        if trace == 0 || parent == 0 {
            Err(NotATraceparent)
        } else {
            Ok(Self { trace, parent, flags })
        }
    }
}

/// A name for this process among its like: the host's name and the process id.
pub fn process_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}-{}", host.trim(), std::process::id())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    const EXAMPLE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn reads_what_it_writes() {
        let parsed: Traceparent = EXAMPLE.parse().unwrap();
        assert_eq!(parsed.to_string(), EXAMPLE);
        let new = Traceparent::generate();
        assert_eq!(new.to_string().parse(), Ok(new));
    }

    #[test]
    fn a_child_keeps_the_trace() {
        let parent: Traceparent = EXAMPLE.parse().unwrap();
        let child = parent.child();
        assert_eq!(child.trace_id(), "0af7651916cd43dd8448eb211c80319c");
        assert_ne!(child, parent);
    }

    #[test]
    fn refuses_what_the_standard_forbids() {
        for text in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(text.parse::<Traceparent>(), Err(NotATraceparent), "{text}");
        }
        assert!(
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more"
                .parse::<Traceparent>()
                .is_ok()
        );
    }

    #[test]
    fn the_client_library_is_quiet_unless_asked() {
        assert_eq!(directives("info"), "info,lapin=off");
        assert_eq!(directives("info,lapin=trace"), "info,lapin=trace");
    }
}
