//! `bulla rm`: removes a blob.

use std::ffi::OsString;

use serde_json::json;

use crate::context::Context;
use crate::exit::Result;
use crate::{get, open};

/// Remove a blob
///
/// It is gone for new readers at once, and for other nodes within the revocation bound. Its sealed data stays in the
/// store until `bulla gc`.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "bulla rm [OPTIONS] [STORE] <DIGEST>",
    after_help = "\
Examples:
  bulla rm ./store sha256:…"
)]
pub(crate) struct Args {
    /// The store (or BULLA_STORE), and the blob's digest
    #[arg(value_names = ["STORE", "DIGEST"], num_args = 0..=2)]
    place: Vec<OsString>,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<()> {
    let (store, digest) = get::digest(ctx, "rm", &args.place)?;
    let opened = open::open(ctx, &store).await?;
    let removed = match opened.store.delete(&digest).await {
        Ok(()) => Ok(()),
        Err(error) => Err(get::explained(&opened, error, &digest).await),
    };
    opened.close(ctx).await;
    removed?;
    if ctx.json {
        ctx.out.json(&json!({ "removed": digest.to_string() }))?;
    }
    Ok(())
}
