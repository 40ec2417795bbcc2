//! `read_file`: a file of the run's workspace, whole or in part.
//!
//! Config: `path`, `encoding` (`text`, or `base64` for what is not UTF-8), `offset` (bytes, 0), `length` (bytes: at most
//! so many are read; without it the file is read whole, and has to fit). Output: `{path, size, offset, length, encoding,
//! content, end}`; the next piece is at `offset + length`, unless `end`.

use std::io::{self, Read, Seek, SeekFrom};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::tool::Spec;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::tool::{Availability, BuiltIn, NoSettings, Shared, Tool, spec};
use crate::workspace::{Folder, Inside, Workspace, availability, blocking, needs, of_run};
use crate::{Context, Failure, Outcome, input};

/// So many bytes are read at a time at the most, so that an output stays below what a node may leave.
const MOST: u64 = 8 << 20;

/// How the content of a file is written in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Encoding {
    #[default]
    Text,
    Base64,
}

impl Encoding {
    pub(crate) fn schema() -> Value {
        json!({"enum": ["text", "base64"], "description": "`text` or `base64`"})
    }

    fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Base64 => "base64",
        }
    }
}

pub(crate) struct ReadFile(Option<Workspace>);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    path: String,
    #[serde(default)]
    encoding: Encoding,
    #[serde(default)]
    offset: u64,
    length: Option<u64>,
}

impl BuiltIn for ReadFile {
    type Settings = NoSettings;

    fn spec() -> Spec {
        let schema = json!({
            "type": "object",
            "required": ["path"],
            "additionalProperties": false,
            "properties": {
                "path": {"type": "string", "minLength": 1, "description": "the path of a file in the run's workspace"},
                "encoding": Encoding::schema(),
                "offset": {"type": "integer", "minimum": 0, "description": "a number of bytes"},
                "length": {
                    "type": ["integer", "null"], "minimum": 1, "maximum": MOST,
                    "description": "a number of bytes up to 8388608 (8 MiB)",
                },
            },
        });
        let description = "Reads a file of the run's workspace, as text or base64, whole (up to 8 MiB) or in pieces, and \
             returns `{path, size, offset, length, encoding, content, end}`.";
        spec("read_file", description, schema, Some(needs()))
    }

    fn open(_: NoSettings, shared: &Shared) -> anyhow::Result<Self> {
        Ok(Self(shared.workspace.clone()))
    }
}

impl Tool for ReadFile {
    fn availability(&self) -> Availability {
        availability(self.0.as_ref())
    }

    fn execute<'a>(&'a self, input: Value, context: &'a Context) -> BoxFuture<'a, Outcome> {
        async move {
            let config: Config = input::read("read_file", input)?;
            let folder = of_run(self.0.as_ref(), context).await?;
            blocking(context, move || read(&folder, &config)).await
        }
        .boxed()
    }
}

fn read(folder: &Folder, config: &Config) -> Outcome {
    let path = Inside::file(&config.path)?;
    let mut file = folder.read(&path)?;
    let failed = |error: io::Error| path.failed("read", &error);
    let size = file.metadata().map_err(failed)?.len();
    if config.length.is_none() && size.saturating_sub(config.offset) > MOST {
        return Err(Failure::permanent(format!(
            "`{}` has {size} bytes, and {MOST} are read at the most: read it in pieces, with `offset` and `length`",
            path.shown()
        )));
    }
    let most = config.length.unwrap_or(MOST).min(MOST);
    file.seek(SeekFrom::Start(config.offset)).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes).map_err(failed)?;
    let is_end = config.offset.saturating_add(bytes.len() as u64) >= size;
    let content = match config.encoding {
        Encoding::Base64 => STANDARD.encode(&bytes),
        Encoding::Text => text(&mut bytes, is_end).ok_or_else(|| {
            let shown = path.shown();
            Failure::permanent(format!(
                "`{shown}` is no text in UTF-8 without null characters: read it with `encoding: base64`"
            ))
        })?,
    };
    let length = bytes.len();
    Ok(json!({
        "path": path.shown(), "size": size, "offset": config.offset, "length": length,
        "encoding": config.encoding.name(), "content": content, "end": config.offset + length as u64 >= size,
    }))
}

/// The bytes as text. A character that the end of a piece has cut is left to the next piece.
fn text(bytes: &mut Vec<u8>, is_end: bool) -> Option<String> {
    if !is_end
        && let Err(error) = std::str::from_utf8(bytes)
        && error.error_len().is_none()
        && error.valid_up_to() > 0
    {
        bytes.truncate(error.valid_up_to());
    }
    let text = std::str::from_utf8(bytes).ok()?;
    (!text.contains('\0')).then(|| text.to_owned())
}
