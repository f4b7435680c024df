//! `bulla audit`: the record of what happened to a store's keys, and proof of it for somebody else.

mod keys;
mod prove;
mod report;
mod verify;

use std::path::{Path, PathBuf};

pub(crate) use self::keys::{read_checkpoint, read_public};
use bulla::audit_format::{Export, SigningKey};
use clap::Subcommand;
use serde_json::json;

use crate::context::Context;
use crate::durable::Part;
use crate::exit::{Failure, Kind, Result};
use crate::open::{self, Opened};

/// Keep, export and verify the record of what happened to a store's keys
///
/// Once begun, every node that opens the store writes there: which key versions opened it, denials and restorings,
/// rotations and what they counted. It is sealed like everything else in the store. An operator's key signs its head; who
/// has an export and the public key needs nothing else to check it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bulla audit start ./store
  bulla audit keygen ./store --out audit.key > audit.pub
  bulla audit checkpoint ./store --key audit.key > monday.checkpoint
  bulla audit export ./store --key audit.key -o audit.export
  bulla audit verify audit.export --key audit.pub --from monday.checkpoint
  bulla audit prove audit.export --key audit.pub --entry 17 -o shredded.tlog-proof")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Start(Start),
    Keygen(keys::Keygen),
    Checkpoint(CheckpointArgs),
    Export(ExportArgs),
    Prove(prove::Args),
    Verify(verify::Args),
}

/// Begin a store's audit log; there is no end to it
///
/// Nodes that have the store open write to it from their next start on.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bulla audit start ./store
  bulla audit start s3://bucket/prefix")]
struct Start {
    /// A folder or a URL, or BULLA_STORE
    #[arg(value_name = "STORE")]
    store: Option<String>,
}

/// Sign the head of the audit log as it is now, and print it
///
/// Keep checkpoints where the bucket's writers can't reach them: whatever is removed from the log afterwards shows. The
/// format is C2SP's tlog-checkpoint.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bulla audit checkpoint ./store --key audit.key > monday.checkpoint
  bulla attach ./store --kek KEY_ID --anchor A --checkpoint monday.checkpoint --checkpoint-key audit.pub")]
struct CheckpointArgs {
    #[command(flatten)]
    source: Source,
}

/// Write all of the audit log and a fresh checkpoint to a file, for an auditor
///
/// The export is readable by whoever has it: key ids, nodes, times and counts; no names and no content of blobs.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bulla audit export ./store --key audit.key -o audit.export
  bulla audit export ./store --key audit.key | gzip > audit.export.gz")]
struct ExportArgs {
    #[command(flatten)]
    source: Source,
    /// The file to write; standard output if left out or -
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Source {
    /// A folder or a URL, or BULLA_STORE
    #[arg(value_name = "STORE")]
    store: Option<String>,
    /// The operator's private key, as `bulla audit keygen` wrote it
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<()> {
    match args.command {
        Command::Start(args) => start(ctx, args).await,
        Command::Keygen(args) => keys::generate(ctx, args),
        Command::Checkpoint(args) => checkpoint(ctx, args).await,
        Command::Export(args) => export(ctx, args).await,
        Command::Prove(args) => prove::run(ctx, args),
        Command::Verify(args) => verify::run(ctx, args),
    }
}

async fn start(ctx: &Context, args: Start) -> Result<()> {
    let opened = open::open(ctx, &ctx.store(args.store.as_deref())?).await?;
    let begun = opened.store.begin_audit().await.map_err(|error| opened.explain(error));
    opened.close(ctx).await;
    let begun = begun?;
    if ctx.json {
        ctx.out.json(&json!({ "started": begun }))?;
    } else if !begun {
        ctx.out.line("the store has an audit log already")?;
    }
    Ok(())
}

async fn checkpoint(ctx: &Context, args: CheckpointArgs) -> Result<()> {
    let (export, size) = signed(ctx, &args.source).await?;
    if ctx.json {
        ctx.out.json(&json!({ "entries": size, "checkpoint": export.note() }))?;
    } else {
        ctx.out.bytes(export.note().as_bytes())?;
    }
    Ok(())
}

async fn export(ctx: &Context, args: ExportArgs) -> Result<()> {
    let (export, size) = signed(ctx, &args.source).await?;
    let text = export.encode();
    let file = args.output.filter(|path| path != Path::new("-"));
    match &file {
        Some(path) => write(path, text.as_bytes()).map_err(|error| Failure::file("write", path, error))?,
        None => return Ok(ctx.out.bytes(text.as_bytes())?),
    }
    if ctx.json {
        ctx.out.json(&json!({ "entries": size, "file": file, "checkpoint": export.note() }))?;
    }
    Ok(())
}

/// Everything in the log, signed, and how many entries that is.
async fn signed(ctx: &Context, source: &Source) -> Result<(Export, u64)> {
    let store = ctx.store(source.store.as_deref())?;
    let key = keys::read_private(&source.key)?;
    let opened = open::open(ctx, &store).await?;
    let signed = sign(&opened, &key).await;
    opened.close(ctx).await;
    signed
}

async fn sign(opened: &Opened, key: &SigningKey) -> Result<(Export, u64)> {
    let (store, made_for) = (keys::name_for(&opened.store.id()), key.public_key().name().to_owned());
    if store != made_for {
        return Err(Failure::invalid(format!(
            "the key is for {made_for}, and the store's log is {store}; make a key for it with `bulla audit keygen`"
        )));
    }
    let explain = |error| opened.explain(error);
    // That this command opened the store belongs in it as well.
    opened.store.flush_audit().await.map_err(explain)?;
    let log = opened.store.audit_log().await.map_err(explain)?;
    let broken = |error| Failure::new(Kind::Internal, "the audit log has no entries").with_source(error);
    let (export, checkpoint) = Export::new(log.leaves, log.log.into(), key).map_err(broken)?;
    Ok((export, checkpoint.size))
}

/// A new file, or another content for one that is there.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    let part = Part::beside(path, false)?;
    let mut file = part.file()?;
    file.write_all(bytes)?;
    file.sync_all()?;
    part.rename_to(path)
}
