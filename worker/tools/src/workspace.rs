//! The workspace: a folder for each run, in which its nodes hand files to each other.
//!
//! `GATHERING_WORKSPACE/<pipeline>/<run>/`, for a single action `GATHERING_WORKSPACE/_actions/<run>/`. Made when it is
//! first asked for, readable by the worker only. Every path that a node names is resolved beneath it by the system
//! itself (`cap-std`: `openat2`), one component after the other, so that neither `..` nor a link leads out, whatever
//! changes meanwhile.

mod path;
mod sweep;

use std::io;
use std::os::unix::fs::fchown;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cap_std::ambient_authority;
use cap_std::fs::{Dir, DirBuilder, DirBuilderExt, File, MetadataExt, OpenOptions, OpenOptionsExt};
use common::tool::Needs;
use rustix::fs::{AtFlags, Gid, Uid, chownat};

pub(crate) use self::path::Inside;
pub use self::sweep::{Found, Sweep};
use crate::tool::Availability;
use crate::{Context, Failure};

/// Where runs of single actions have their folders. No pipeline can have this name.
const ACTIONS: &str = "_actions";
/// A file that is not complete yet. A sweep takes what a killed worker left.
pub(crate) const UNFINISHED: &str = ".gathering-unfinished-";

/// Who the files belong to, when that is not the worker's own user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// The root of all folders.
#[derive(Debug, Clone)]
pub(crate) struct Workspace {
    root: Arc<PathBuf>,
    owner: Option<Owner>,
}

/// The folder of one run.
#[derive(Debug)]
pub(crate) struct Folder {
    pub(crate) dir: Dir,
    path: PathBuf,
    owner: Option<Owner>,
}

impl Workspace {
    /// At an absolute path, which is made if need be.
    pub(crate) fn new(root: &Path, owner: Option<Owner>) -> anyhow::Result<Self> {
        anyhow::ensure!(root.is_absolute(), "GATHERING_WORKSPACE wants an absolute path");
        let workspace = Self { root: Arc::new(root.to_owned()), owner };
        workspace.root().map_err(|error| {
            anyhow::anyhow!("GATHERING_WORKSPACE: {} cannot be used: {error}", root.display())
        })?;
        Ok(workspace)
    }

    /// What removes folders that have served.
    pub(crate) fn sweep(&self) -> Sweep {
        Sweep::new(self.root.clone())
    }

    fn root(&self) -> io::Result<Dir> {
        match Dir::open_ambient_dir(&*self.root, ambient_authority()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut builder = std::fs::DirBuilder::new();
                std::os::unix::fs::DirBuilderExt::mode(&mut builder, self.passage());
                builder.recursive(true).create(&*self.root)?;
                Dir::open_ambient_dir(&*self.root, ambient_authority())
            }
            opened => opened,
        }
    }

    /// The mode of the folders above a run's: another user must get through, and see nothing.
    fn passage(&self) -> u32 {
        if self.owner.is_some() { 0o711 } else { 0o700 }
    }

    /// The folder of the run. What fails here may pass.
    pub(crate) fn open(&self, context: &Context) -> Result<Folder, Failure> {
        let (pipeline, run) = (context.pipeline.as_deref().unwrap_or(ACTIONS), context.run);
        let opened = || {
            let above = descend(&self.root()?, Path::new(pipeline), self.passage(), None)?;
            descend(&above, Path::new(&run.to_string()), 0o700, self.owner)
        };
        let path = self.root.join(pipeline).join(run.to_string());
        opened().map(|dir| Folder { dir, path, owner: self.owner }).map_err(|error: io::Error| {
            Failure::retryable(format!("the run's folder cannot be opened: {error}"))
        })
    }
}

/// The folder of this name, made if need be, and its owner's.
fn descend(dir: &Dir, name: &Path, mode: u32, owner: Option<Owner>) -> io::Result<Dir> {
    let mut builder = DirBuilder::new();
    builder.mode(mode);
    match dir.create_dir_with(name, &builder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // Never through a link: whoever can write there could lead us away.
    let data = dir.symlink_metadata(name)?;
    if data.is_symlink() {
        return Err(io::Error::other(format!("{} is a link", name.display())));
    }
    if let Some(Owner { uid, gid }) = owner.filter(|owner| owner.uid != data.uid()) {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    dir.open_dir(name)
}

impl Folder {
    /// Where it is, for programs.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a file to read it. What is no file is refused, and nothing here waits for a writer.
    pub(crate) fn read(&self, path: &Inside) -> Result<File, Failure> {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
        let opened = self.dir.open_with(path, &options);
        let file = opened.map_err(|error| path.failed("read", &error))?;
        let data = file.metadata().map_err(|error| path.failed("read", &error))?;
        if data.is_file() { Ok(file) } else { Err(path.is_no("file")) }
    }

    /// Makes the folders above a file, and opens the last of them.
    pub(crate) fn parent(&self, path: &Inside) -> Result<Dir, Failure> {
        let failed = |error: io::Error| path.failed("written", &error);
        let mut dir = self.dir.try_clone().map_err(failed)?;
        let Some(parent) = path.parent() else { return Ok(dir) };
        match self.dir.open_dir(parent) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return opened.map_err(failed),
        }
        for name in parent.iter().map(Path::new) {
            dir = match dir.open_dir(name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    descend(&dir, name, 0o700, self.owner).map_err(failed)?
                }
                opened => opened.map_err(failed)?,
            };
        }
        Ok(dir)
    }

    /// Gives a file that was made to the user under whom programs run.
    pub(crate) fn hand_over(&self, made: &File) -> io::Result<()> {
        match self.owner {
            Some(owner) => fchown(made, Some(owner.uid), Some(owner.gid)),
            None => Ok(()),
        }
    }
}

/// What the tools of the workspace need.
pub(crate) fn needs() -> Needs {
    Needs::setting(
        "GATHERING_WORKSPACE",
        "the operator of a worker gives it a folder for the files of runs; none by default",
    )
}

/// Whether the tools of the workspace can be used.
pub(crate) fn availability(workspace: Option<&Workspace>) -> Availability {
    match workspace {
        Some(_) => Availability::Enabled,
        None => Availability::Disabled {
            why: "it has no workspace".to_owned(),
            mend: "its operator gives it a folder in GATHERING_WORKSPACE".to_owned(),
        },
    }
}

/// The folder of the run.
pub(crate) async fn of_run(
    workspace: Option<&Workspace>,
    context: &Context,
) -> Result<Folder, Failure> {
    let workspace = workspace.cloned().ok_or_else(|| {
        Failure::permanent(
            "this worker has no workspace: its operator gives it one in GATHERING_WORKSPACE",
        )
    })?;
    let (context, asked) = (context.clone(), context);
    blocking(asked, move || workspace.open(&context)).await
}

/// Does what may block where that holds up nobody. A cancel does not wait for it.
pub(crate) async fn blocking<T: Send + 'static>(
    context: &Context,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let done = context.cancel.run_until_cancelled(tokio::task::spawn_blocking(work)).await;
    match done {
        None => Err(Failure::Cancelled),
        Some(Ok(done)) => done,
        Some(Err(error)) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Failure::Cancelled),
        },
    }
}

#[cfg(test)]
mod tests;
