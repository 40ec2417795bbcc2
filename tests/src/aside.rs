//! Work at drop, where nothing can be awaited, and where the test's own runtime may be unwinding.

use std::time::Duration;

use tokio::runtime::Builder;

/// Runs something to its end, on a thread and a runtime of its own; none when that takes too long.
pub(crate) fn aside<T: Send + 'static>(act: impl Future<Output = T> + Send + 'static) -> Option<T> {
    let done = std::thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().ok()?;
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(10), act).await.ok() })
    });
    done.join().ok().flatten()
}
