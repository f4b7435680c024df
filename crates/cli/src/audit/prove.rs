//! `bulla audit prove`: one entry of an export, for somebody who is to see no other.

use std::path::{Path, PathBuf};

use bulla::audit_format::{Export, Proof};
use serde_json::json;

use super::{keys, verify, write};
use crate::context::Context;
use crate::exit::{Failure, Result};

/// Prove one entry of an export to somebody who is to see no other
///
/// Needs neither the store nor any private key. The proof has the entry, the checkpoint of the export, and the hashes that
/// lead from one to the other, in C2SP's format tlog-proof; `bulla audit verify` checks it. Which entry is which says
/// `bulla audit verify --entries`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bulla audit verify audit.export --key audit.pub --entries | grep shred
  bulla audit prove audit.export --key audit.pub --entry 17 -o shredded.tlog-proof
  bulla audit verify shredded.tlog-proof --key audit.pub")]
pub(super) struct Args {
    /// The export; standard input if it is -
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The operator's public key, or a file with it
    #[arg(long, value_name = "PUBLIC_KEY")]
    key: String,
    /// Which entry: its number in `bulla audit verify --entries`, from 0
    #[arg(long, value_name = "N")]
    entry: u64,
    /// The file to write; standard output if left out or -
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn run(ctx: &Context, args: Args) -> Result<()> {
    let key = keys::read_public(&args.key)?;
    let export = Export::decode(&verify::read(&args.file)?).map_err(verify::refused)?;
    // Of one that was altered nothing can be proven, and it is better said here.
    let verified = export.verify(&key, None).map_err(verify::refused)?;
    let proof = Proof::of(&export, args.entry).ok_or_else(|| {
        let (found, last) = (verified.entries.len(), verified.entries.len().saturating_sub(1));
        Failure::not_found(format!("the export has {found} entries, and none with the number {}", args.entry))
            .with_fix(format!("give a number from 0 to {last}"))
    })?;
    let text = proof.encode();
    match args.output.filter(|path| path != Path::new("-")) {
        Some(path) => {
            write(&path, text.as_bytes()).map_err(|error| Failure::file("write", &path, error))?;
            if ctx.json {
                ctx.out.json(&json!({ "entry": args.entry, "file": path }))?;
            }
        }
        None => ctx.out.bytes(text.as_bytes())?,
    }
    Ok(())
}
