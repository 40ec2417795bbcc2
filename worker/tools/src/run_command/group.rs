//! The process group of one program: nothing in it outlives the node.
//!
//! - The program ends: what it left behind in its group is killed.
//! - The node is cancelled: SIGTERM to the group, [`GRACE`] later SIGKILL.
//! - The future is dropped: SIGKILL at once.
//! - The worker dies: the [warden](super::warden) sends SIGKILL.
//!
//! A process that leaves the group by itself (`setsid`) is out of reach: containing that takes a container.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::process::Child;
use tokio::time::{sleep, timeout};

use super::commands::Programs;
use super::warden::Warden;
use crate::GRACE;

pub(super) struct Group<'a> {
    /// Also the program's process id. While the group has a member, the system gives the number to nobody else.
    id: Option<Pid>,
    warden: &'a Warden,
}

impl<'a> Group<'a> {
    /// The group of a child that was just started, with `process_group(0)`.
    pub(super) fn of(child: &Child, programs: &'a Programs) -> Self {
        let id = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let warden = &programs.warden;
        if let Some(id) = id {
            warden.guard(id);
        }
        Self { id, warden }
    }

    pub(super) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Returns when the group is empty, or was killed.
    pub(super) async fn terminate(&self, child: &mut Child) {
        self.signal(Signal::TERM);
        let gone = async {
            let _ = child.wait().await;
            // The others are no children of ours: they can only be looked for.
            while self.id.is_some_and(|id| test_kill_process_group(id).is_ok()) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        if timeout(GRACE, gone).await.is_err() {
            self.kill();
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(id) = self.id {
            // An error: nobody is left.
            let _ = kill_process_group(id, signal);
        }
    }
}

impl Drop for Group<'_> {
    fn drop(&mut self) {
        self.kill();
        if let Some(id) = self.id {
            self.warden.release(id);
        }
    }
}
