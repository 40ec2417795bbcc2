//! `write_file`: a file of the run's workspace.
//!
//! Config: `path`, `content`, `encoding` (`text`, or `base64`), `append` (false). Output: `{path, size}`. Folders above it
//! are made.
//!
//! A file is replaced as a whole: it is written beside, and renamed once it is on the disk, so that whoever reads it
//! sees all of the old one or all of the new one, and an attempt that is repeated leaves the same. What is appended is
//! there at once, and twice when an attempt is repeated.

use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use common::tool::Spec;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::input::Scalar;
use crate::read_file::Encoding;
use crate::tool::{Availability, BuiltIn, NoSettings, Shared, Tool, spec};
use crate::workspace::{
    Folder, Inside, UNFINISHED, Workspace, availability, blocking, needs, of_run,
};
use crate::{Context, Failure, Outcome, input};

/// How large a file gets by this, in bytes.
const LARGEST: u64 = 1 << 30;

pub(crate) struct WriteFile(Option<Workspace>);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    path: String,
    content: Scalar,
    #[serde(default)]
    encoding: Encoding,
    #[serde(default)]
    append: bool,
}

impl BuiltIn for WriteFile {
    type Settings = NoSettings;

    fn spec() -> Spec {
        let schema = json!({
            "type": "object",
            "required": ["path", "content"],
            "additionalProperties": false,
            "properties": {
                "path": {"type": "string", "minLength": 1, "description": "the path of a file in the run's workspace"},
                "content": {"type": ["string", "number", "boolean"], "description": "a string"},
                "encoding": Encoding::schema(),
                "append": {"type": "boolean", "description": "true or false"},
            },
        });
        let description = "Writes a file of the run's workspace, from text or base64: replaces it as a whole, or appends \
             to it; makes the folders above it. Returns `{path, size}`.";
        spec("write_file", description, schema, Some(needs()))
    }

    fn open(_: NoSettings, shared: &Shared) -> anyhow::Result<Self> {
        Ok(Self(shared.workspace.clone()))
    }
}

impl Tool for WriteFile {
    fn availability(&self) -> Availability {
        availability(self.0.as_ref())
    }

    fn execute<'a>(&'a self, input: Value, context: &'a Context) -> BoxFuture<'a, Outcome> {
        async move {
            let config: Config = input::read("write_file", input)?;
            let folder = of_run(self.0.as_ref(), context).await?;
            blocking(context, move || write(&folder, config)).await
        }
        .boxed()
    }
}

fn write(folder: &Folder, config: Config) -> Outcome {
    let path = Inside::file(&config.path)?;
    let content = config.content.into_text();
    let bytes = match config.encoding {
        Encoding::Text => content.into_bytes(),
        Encoding::Base64 => STANDARD.decode(content.trim()).map_err(|error| {
            Failure::permanent(format!("`content` of write_file is no base64: {error}"))
        })?,
    };
    let dir = folder.parent(&path)?;
    let failed = |error: io::Error| path.failed("written", &error);
    if folder.dir.metadata(&path).is_ok_and(|data| data.is_dir()) {
        return Err(path.is_no("file"));
    }
    let size = match config.append {
        true => append(folder, &path, &bytes)?,
        false => replace(folder, &dir, &path, &bytes).map_err(failed)?,
    };
    Ok(json!({"path": path.shown(), "size": size}))
}

fn append(folder: &Folder, path: &Inside, bytes: &[u8]) -> Result<u64, Failure> {
    let failed = |error: io::Error| path.failed("written", &error);
    let mut options = OpenOptions::new();
    // A fifo is not waited for.
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    options.append(true).create(true).mode(0o600).custom_flags(nonblock);
    let mut file = folder.dir.open_with(path, &options).map_err(failed)?;
    let data = file.metadata().map_err(failed)?;
    if !data.is_file() {
        return Err(path.is_no("file"));
    }
    if data.len() + bytes.len() as u64 > LARGEST {
        return Err(Failure::permanent(format!(
            "`{}` would have more than {LARGEST} bytes, which is the most",
            path.shown()
        )));
    }
    if data.len() == 0 {
        folder.hand_over(&file).map_err(failed)?;
    }
    file.write_all(bytes).and_then(|()| file.sync_data()).map_err(failed)?;
    Ok(file.metadata().map_err(failed)?.len())
}

/// Beside, then in its place. A link there is replaced, not followed.
fn replace(folder: &Folder, dir: &Dir, path: &Inside, bytes: &[u8]) -> io::Result<u64> {
    let beside = format!("{UNFINISHED}{}", Uuid::now_v7());
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let written = || {
        let mut file = dir.open_with(&beside, &options)?;
        folder.hand_over(&file)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        dir.rename(&beside, dir, path.name())
    };
    written().inspect_err(|_| {
        let _ = dir.remove_file(&beside);
    })?;
    Ok(bytes.len() as u64)
}
