//! `bulla ls`: the blobs of a store.

use bulla::{BlobEntry, BlobInfo, ErrorKind, Store};
use futures::{StreamExt, TryStreamExt};

use crate::context::Context;
use crate::exit::{Failure, Result};
use crate::{open, output, stat};

/// Blobs looked at at once for `--long`.
const AT_ONCE: usize = 16;

/// List the blobs of a store, one digest a line
///
/// Names are sealed reversibly, so a plain listing reads no blob; blobs past their time are in it until they are collected.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bulla ls ./store
  bulla ls ./store --long
  bulla ls ./store --json | jq -r '.[].digest'")]
pub(crate) struct Args {
    /// A folder or a URL, or BULLA_STORE
    #[arg(value_name = "STORE")]
    store: Option<String>,
    /// Also size and time, which are read from each blob's envelope
    #[arg(short, long)]
    long: bool,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<()> {
    let opened = open::open(ctx, &ctx.store(args.store.as_deref())?).await?;
    let listed = match (ctx.json, args.long) {
        (false, false) => plain(ctx, &opened).await,
        (json, _) => long(ctx, &opened, json).await,
    };
    opened.close(ctx).await;
    listed
}

async fn plain(ctx: &Context, opened: &open::Opened) -> Result<()> {
    let mut blobs = opened.store.list();
    while let Some(entry) = blobs.try_next().await.map_err(|error| opened.explain(error))? {
        ctx.out.line(entry.digest)?;
    }
    Ok(())
}

/// A JSON array is printed an element at a time: one that ends early has no closing bracket.
async fn long(ctx: &Context, opened: &open::Opened, json: bool) -> Result<()> {
    let infos = opened.store.list().map(|entry| info(&opened.store, entry)).buffered(AT_ONCE);
    let mut infos = std::pin::pin!(infos);
    let mut separator = "[";
    while let Some(info) = infos.try_next().await.map_err(|error| opened.explain(error))? {
        // Gone between the listing and the look at it, or past its time.
        let Some(info) = info else { continue };
        if json {
            ctx.out.bytes(format!("{separator}\n{}", stat::describe(&info)).as_bytes())?;
            separator = ",";
        } else {
            let created = output::time_of_millis(info.created);
            ctx.out.line(format!("{}  {:>12}  {created}", info.digest, info.size))?;
        }
    }
    if json {
        let end = if separator == "[" { "[]\n" } else { "\n]\n" };
        ctx.out.bytes(end.as_bytes()).map_err(Failure::from)?;
    }
    Ok(())
}

async fn info(store: &Store, entry: bulla::Result<BlobEntry>) -> bulla::Result<Option<BlobInfo>> {
    match store.stat(&entry?.digest).await {
        Ok(info) => Ok(Some(info)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
