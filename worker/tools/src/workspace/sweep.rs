//! Removes the folders of runs that ended long ago.
//!
//! The scheduler may be on another machine, so each worker sweeps what it can reach: it lists the folders, asks
//! Postgres which of their runs have ended long enough ago, and removes those. On a shared folder several do so at once,
//! without harm.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use uuid::Uuid;

/// How many folders are listed in one sweep at the most; the next takes the others.
const MOST: usize = 100_000;

/// A run's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pipeline: String,
    /// The run that it belongs to.
    pub run: Uuid,
}

/// Lists and removes folders of runs. It blocks: it is for a thread that may.
#[derive(Debug, Clone)]
pub struct Sweep {
    root: Arc<PathBuf>,
}

impl Sweep {
    pub(super) fn new(root: Arc<PathBuf>) -> Self {
        Self { root }
    }

    fn root(&self) -> io::Result<Dir> {
        Dir::open_ambient_dir(&*self.root, ambient_authority())
    }

    /// The folders that there are. What is not named like a run's is not ours, and is left alone.
    ///
    /// # Errors
    /// When the workspace cannot be read.
    pub fn folders(&self) -> io::Result<Vec<Found>> {
        let root = self.root()?;
        let mut found = Vec::new();
        for pipeline in names(&root)? {
            let Ok(dir) = root.open_dir(&pipeline) else { continue };
            let runs = names(&dir)?.into_iter().filter_map(|name| name.parse().ok());
            found.extend(runs.map(|run| Found { pipeline: pipeline.clone(), run }));
            if found.len() >= MOST {
                break;
            }
        }
        Ok(found)
    }

    /// Removes a folder and all that is in it. Links are removed, not followed.
    ///
    /// # Errors
    /// When something in it cannot be removed. That it is gone already is none.
    pub fn remove(&self, folder: &Found) -> io::Result<()> {
        let root = self.root()?;
        let gone = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        };
        let path = PathBuf::from(&folder.pipeline).join(folder.run.to_string());
        root.remove_dir_all(path).or_else(gone)?;
        // The last one out; until then it is not empty.
        let _ = root.remove_dir(&folder.pipeline);
        Ok(())
    }
}

/// The folders in `dir`, without links.
fn names(dir: &Dir) -> io::Result<Vec<String>> {
    let entries = dir.entries()?.filter_map(Result::ok);
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    Ok(folders.filter_map(|entry| entry.file_name().into_string().ok()).collect())
}
