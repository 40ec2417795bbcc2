//! `list_files`: what is in a folder of the run's workspace.
//!
//! Config: `path` (`.`), `recursive` (false), `limit` (1,000 entries, at most 10,000). Output: `{path, entries: [{path,
//! type, size, modified_at}], truncated}`, in the order of their paths, folders before what is in them. Links are
//! listed, and not followed.

use std::io;
use std::path::{Path, PathBuf};

use cap_std::fs::{Dir, DirEntry};
use chrono::{DateTime, Utc};
use common::clock;
use common::tool::Spec;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::tool::{Availability, BuiltIn, NoSettings, Shared, Tool, spec};
use crate::workspace::{
    Folder, Inside, UNFINISHED, Workspace, availability, blocking, needs, of_run,
};
use crate::{Context, Outcome, input};

const USUAL: usize = 1_000;
const MOST: usize = 10_000;
/// How deep it looks.
const DEEPEST: usize = 64;
/// So many entries of one folder are looked at; those beyond are not listed.
const WIDEST: usize = 100_000;

pub(crate) struct ListFiles(Option<Workspace>);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    path: String,
    #[serde(default)]
    recursive: bool,
    #[serde(default = "usual")]
    limit: usize,
}

fn usual() -> usize {
    USUAL
}

impl BuiltIn for ListFiles {
    type Settings = NoSettings;

    fn spec() -> Spec {
        let schema = json!({
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "path": {"type": "string", "description": "the path of a folder in the run's workspace"},
                "recursive": {"type": "boolean", "description": "true or false"},
                "limit": {
                    "type": "integer", "minimum": 1, "maximum": MOST, "description": "a number of entries up to 10000",
                },
            },
        });
        let description = "Lists a folder of the run's workspace, with what is in its folders when `recursive`, and returns \
             `{path, entries: [{path, type, size, modified_at}], truncated}`.";
        spec("list_files", description, schema, Some(needs()))
    }

    fn open(_: NoSettings, shared: &Shared) -> anyhow::Result<Self> {
        Ok(Self(shared.workspace.clone()))
    }
}

impl Tool for ListFiles {
    fn availability(&self) -> Availability {
        availability(self.0.as_ref())
    }

    fn execute<'a>(&'a self, input: Value, context: &'a Context) -> BoxFuture<'a, Outcome> {
        async move {
            let config: Config = input::read("list_files", input)?;
            let folder = of_run(self.0.as_ref(), context).await?;
            blocking(context, move || list(&folder, &config)).await
        }
        .boxed()
    }
}

/// A listing that grows.
struct Listing {
    entries: Vec<Value>,
    limit: usize,
    recursive: bool,
    truncated: bool,
}

fn list(folder: &Folder, config: &Config) -> Outcome {
    let path = Inside::read(&config.path)?;
    let failed = |error: io::Error| path.failed("listed", &error);
    let dir = folder.dir.open_dir(&path).map_err(failed)?;
    let mut listing = Listing {
        entries: Vec::new(),
        limit: config.limit.min(MOST),
        recursive: config.recursive,
        truncated: false,
    };
    let above = if path.as_ref() == Path::new(".") { PathBuf::new() } else { path.as_ref().into() };
    listing.add(&dir, &above, 0).map_err(failed)?;
    Ok(json!({"path": path.shown(), "entries": listing.entries, "truncated": listing.truncated}))
}

impl Listing {
    fn add(&mut self, dir: &Dir, above: &Path, depth: usize) -> io::Result<()> {
        let mut found: Vec<_> = dir.entries()?.take(WIDEST + 1).collect::<Result<_, _>>()?;
        self.truncated |= found.len() > WIDEST || depth > DEEPEST;
        if depth > DEEPEST {
            return Ok(());
        }
        found.sort_by_cached_key(DirEntry::file_name);
        let is_shown = |entry: &&DirEntry| {
            !entry.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes())
        };
        for entry in found.iter().take(WIDEST).filter(is_shown) {
            if self.entries.len() >= self.limit {
                self.truncated = true;
                return Ok(());
            }
            let path = above.join(entry.file_name());
            // Gone meanwhile.
            let Ok(data) = entry.metadata() else { continue };
            let kind = data.file_type();
            let modified = data.modified().ok().map(|at| DateTime::<Utc>::from(at.into_std()));
            self.entries.push(json!({
                "path": path.to_string_lossy(),
                "type": if kind.is_dir() { "folder" } else if kind.is_file() { "file" } else if kind.is_symlink() { "link" } else { "other" },
                "size": kind.is_file().then_some(data.len()),
                "modified_at": modified.as_ref().map(clock::text),
            }));
            if self.recursive
                && kind.is_dir()
                && let Ok(inner) = entry.open_dir()
            {
                self.add(&inner, &path, depth + 1)?;
            }
        }
        Ok(())
    }
}
