//! `bulla audit verify`: an export, or the proof of one entry, against a public key, with nothing else at hand.

use std::io::Read;
use std::path::{Path, PathBuf};

use bulla::audit_format::{Entry, Export, Proof, ProofError, PublicKey, VerifyError};
use serde_json::{Value, json};

use super::{keys, report};
use crate::context::Context;
use crate::exit::{Failure, Kind, Result};
use crate::output;

/// Check an export, or the proof of one entry, and say what it proves
///
/// Needs neither the store nor its key: only the export and the public key. It proves that the log is complete and
/// unaltered up to the checkpoint in the export, and from --from on if given. What the entries say is what the store's
/// nodes wrote. Of a proof that `bulla audit prove` made, it proves that its entry is in the log, at its place.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bulla audit verify audit.export --key audit.pub
  bulla audit verify audit.export --key audit.pub --from monday.checkpoint
  bulla audit verify audit.export --key bulla-audit/…+…+… --entries --json | jq .")]
pub(super) struct Args {
    /// The export or proof; standard input if it is -
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The operator's public key, or a file with it
    #[arg(long, value_name = "PUBLIC_KEY")]
    key: String,
    /// An earlier checkpoint, which the export must continue
    #[arg(long, value_name = "CHECKPOINT")]
    from: Option<PathBuf>,
    /// Print every entry as well, one JSON object per line, with its number
    #[arg(long)]
    entries: bool,
}

pub(super) fn run(ctx: &Context, args: Args) -> Result<()> {
    let key = keys::read_public(&args.key)?;
    let from = args.from.as_deref().map(|path| keys::read_checkpoint(path, &key)).transpose()?;
    let text = read(&args.file)?;
    if Proof::is_one(&text) {
        return prove(ctx, &key, from.is_some(), &text);
    }
    let verified = Export::decode(&text).and_then(|export| export.verify(&key, from.as_ref()));
    let verified = verified.map_err(refused)?;
    if args.entries {
        for (number, entry) in (0..).zip(&verified.entries) {
            ctx.out.json(&shown(number, entry))?;
        }
    }
    let report = report::of(&verified);
    if ctx.json {
        ctx.out.json(&report.json()?)?
    } else {
        report.print(&ctx.out)?
    }
    Ok(())
}

/// The proof of one entry.
fn prove(ctx: &Context, key: &PublicKey, continues: bool, text: &str) -> Result<()> {
    if continues {
        return Err(Failure::invalid(
            "a proof of one entry continues nothing; leave --from out, or give an export",
        ));
    }
    let proven = Proof::decode(text).and_then(|proof| proof.verify(key)).map_err(|error| {
        let failure = Failure::new(Kind::Corrupt, error.to_string()).with_source(error.clone());
        match error {
            ProofError::Checkpoint(why) => failure.with_fix(format!("{why}; check which key signs this log")),
            ProofError::Malformed { .. } => failure.with_fix("give a file that `bulla audit prove` wrote"),
            _ => failure.with_fix("believe nothing in it, and ask who gave it for the whole export"),
        }
    })?;
    let mut entry = shown(proven.index, &proven.entry);
    if ctx.json {
        entry["log"] = json!(proven.checkpoint.origin);
        entry["entries"] = json!(proven.checkpoint.size);
        ctx.out.json(&entry)?;
    } else {
        ctx.out.line(format!(
            "entry {} of the {} of {}, as its key has signed:",
            proven.index, proven.checkpoint.size, proven.checkpoint.origin
        ))?;
        ctx.out.pretty_json(&entry)?;
    }
    Ok(())
}

pub(super) fn read(path: &Path) -> Result<String> {
    let failed = |error| Failure::file("read", path, error);
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(failed)?;
        return Ok(text);
    }
    std::fs::read_to_string(path).map_err(failed)
}

pub(super) fn refused(error: VerifyError) -> Failure {
    let failure = Failure::new(Kind::Corrupt, error.to_string()).with_source(error.clone());
    match error {
        VerifyError::Checkpoint(why) => failure.with_fix(format!("{why}; check which key signs this log")),
        VerifyError::Malformed { .. } => failure.with_fix("give a file that `bulla audit export` wrote"),
        _ => failure.with_fix("believe nothing in it, and ask the operator for the log as it was signed"),
    }
}

fn shown(number: u64, entry: &Entry) -> Value {
    let mut shown = json!({
        "entry": number,
        "first": output::time_of_millis(entry.first),
        "last": output::time_of_millis(entry.last),
        "count": entry.count,
        "node": entry.node,
        "action": entry.action.as_str(),
        "outcome": entry.outcome.as_str(),
        "reason": entry.reason,
        "identity": entry.identity,
        "keys": entry.keys,
        "storeKey": entry.store_key.map(|id| id.to_string()),
        "logRecord": entry.log.map(|log| log.number),
        "latencyMicros": entry.latency_us,
    });
    if let Some(swept) = entry.swept {
        shown["swept"] = json!({ "seen": swept.seen, "left": swept.left, "failed": swept.failed });
    }
    shown
}
