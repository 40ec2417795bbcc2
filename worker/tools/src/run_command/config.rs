//! What a node says of a command.

use std::collections::BTreeMap;

use common::tool::{Needs, Spec};
use serde::Deserialize;
use serde_json::{Value, json};

use super::limits::{Asked, Limits};
use crate::Failure;
use crate::input::{self, Scalar};
use crate::tool::spec;

const MIB: usize = 1 << 20;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    argv: Vec<Scalar>,
    #[serde(default)]
    env: BTreeMap<String, Scalar>,
    stdin: Option<Scalar>,
    cwd: Option<String>,
    #[serde(default = "usual_limit")]
    output_limit: usize,
    #[serde(default = "zero")]
    ok_exit_codes: Vec<i32>,
    retry_exit_codes: Option<Vec<i32>>,
    limits: Option<Asked>,
}

fn usual_limit() -> usize {
    MIB
}

/// What exit codes mean.
#[derive(Debug)]
pub(super) struct Codes {
    pub(super) ok: Vec<i32>,
    /// Without it, every code that is not fine is tried again.
    pub(super) retry: Option<Vec<i32>>,
}

fn zero() -> Vec<i32> {
    vec![0]
}

/// The same, read.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) argv: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) stdin: Option<String>,
    pub(super) cwd: Option<String>,
    pub(super) output_limit: usize,
    pub(super) codes: Codes,
    pub(super) limits: Limits,
}

impl Config {
    pub(super) fn read(input: Value) -> Result<Self, Failure> {
        let given: Given = input::read("run_command", input)?;
        if given.output_limit > 16 * MIB {
            return Err(Failure::permanent("`output_limit` of run_command is at most 16 MiB"));
        }
        let argv: Vec<String> = given.argv.into_iter().map(Scalar::into_text).collect();
        if argv.is_empty() {
            return Err(Failure::permanent("`argv` of run_command is empty"));
        }
        if argv.iter().any(|text| text.contains('\0')) {
            return Err(Failure::permanent("`argv` of run_command has a null character"));
        }
        Ok(Self {
            argv,
            env: given.env.into_iter().map(|(name, value)| (name, value.into_text())).collect(),
            stdin: given.stdin.map(Scalar::into_text),
            cwd: given.cwd,
            output_limit: given.output_limit,
            codes: Codes { ok: given.ok_exit_codes, retry: given.retry_exit_codes },
            limits: given.limits.unwrap_or_default().read()?,
        })
    }
}

const DESCRIPTION: &str = "Runs one program, without a shell, in the run's workspace and within limits, and returns \
     `{exit_code, stdout, stderr}`, and `json` when stdout is JSON. What it prints is kept with the node. Any other exit \
     code than those that are fine is retried, or only those of `retry_exit_codes`.";

pub(super) fn schema() -> Spec {
    let scalar = json!({"type": ["string", "number", "boolean"], "description": "a string, a number or a boolean"});
    let codes = json!({
        "type": "array", "description": "a list of exit codes",
        "items": {"type": "integer", "minimum": 0, "maximum": 255, "description": "an exit code from 0 to 255"},
    });
    let size = json!({"type": "string", "description": "a size such as \"256MiB\""});
    let count = json!({"type": "integer", "minimum": 1, "description": "a number"});
    let schema = json!({
        "type": "object",
        "required": ["argv"],
        "additionalProperties": false,
        "properties": {
            "argv": {
                "type": "array", "minItems": 1, "items": scalar,
                "description": "a list: the program, and its arguments",
            },
            "env": {"type": "object", "additionalProperties": scalar, "description": "an object of strings"},
            "stdin": {"type": ["string", "number", "boolean", "null"], "description": "a string"},
            "cwd": {"type": ["string", "null"], "description": "the path of a folder in the run's workspace"},
            "output_limit": {
                "type": "integer", "minimum": 0, "maximum": 16 * MIB,
                "description": "a number of bytes up to 16777216 (16 MiB)",
            },
            "ok_exit_codes": codes,
            "retry_exit_codes": codes,
            "limits": {
                "type": "object",
                "additionalProperties": false,
                "description": "an object of `cpu`, `memory`, `file_size`, `open_files`, `processes`",
                "properties": {
                    "cpu": {"type": "string", "description": "a duration such as \"30s\""},
                    "memory": size, "file_size": size, "open_files": count, "processes": count,
                },
            },
        },
    });
    let needs = Needs::setting(
        "GATHERING_COMMANDS",
        "the operator of a worker lists the programs that may run on it; none by default",
    );
    spec("run_command", DESCRIPTION, schema, Some(needs))
}
