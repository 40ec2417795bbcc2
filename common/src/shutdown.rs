//! When the process is asked to end.

use std::io::Write;
use std::process::ExitCode;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// The exit code after a second signal: as a shell reports an interrupt.
const IMPATIENT: i32 = 130;

/// A token that SIGTERM or SIGINT cancels. A second signal ends the process at once.
///
/// # Errors
/// When the system does not let the process listen to signals.
pub fn on_signal() -> std::io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let stop = token.clone();
    tokio::spawn(async move {
        let name = next(&mut terminate, &mut interrupt).await;
        info!(signal = name, "stopping; a second signal ends the process at once");
        stop.cancel();
        let name = next(&mut terminate, &mut interrupt).await;
        warn!(signal = name, "ending at once");
        std::process::exit(IMPATIENT);
    });
    Ok(token)
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

/// Runs a process to its end, and tells its error, if it has one, on standard error. Once its future is over all that
/// matters has ended: threads that idle in libraries are not waited for.
pub fn run(process: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    let ended = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Err(error) => Err(error.into()),
        Ok(runtime) => {
            let ended = runtime.block_on(process);
            runtime.shutdown_background();
            ended
        }
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // For people, and without a backtrace: the text says what to mend.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
