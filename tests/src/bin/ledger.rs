//! Puts what the tests of faults saw into `docs/faults.md`: `ledger SEEN.jsonl docs/faults.md`.
#![allow(clippy::print_stdout, reason = "it says what it did")]

use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use tests::ledger::{Seen, written};

/// Puts what the tests of faults saw into their ledger.
#[derive(Debug, Parser)]
struct Cli {
    /// What they saw, a line of JSON each.
    seen: PathBuf,
    /// The document; what stands between its marks is replaced.
    document: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let lines = std::fs::read_to_string(&cli.seen).context("what the tests saw")?;
    let seen: Vec<Seen> = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let text = std::fs::read_to_string(&cli.document).context("the document")?;
    let text = written(&text, &seen).context("the document has no marks")?;
    std::fs::write(&cli.document, text)?;
    println!("{}: {} entries", cli.document.display(), seen.len());
    Ok(())
}
