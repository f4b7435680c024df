//! `bulla stat`: what is known of a blob without reading it.

use std::ffi::OsString;

use bulla::BlobInfo;
use serde_json::{Value, json};

use crate::context::Context;
use crate::exit::Result;
use crate::{get, open, output};

/// Show what is known of a blob
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "bulla stat [OPTIONS] [STORE] <DIGEST>",
    after_help = "\
Examples:
  bulla stat ./store sha256:…
  bulla stat ./store sha256:… --json | jq .size"
)]
pub(crate) struct Args {
    /// The store (or BULLA_STORE), and the blob's digest
    #[arg(value_names = ["STORE", "DIGEST"], num_args = 0..=2)]
    place: Vec<OsString>,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<()> {
    let (store, digest) = get::digest(ctx, "stat", &args.place)?;
    let opened = open::open(ctx, &store).await?;
    let info = match opened.store.stat(&digest).await {
        Ok(info) => Ok(info),
        Err(error) => Err(get::explained(&opened, error, &digest).await),
    };
    opened.close(ctx).await;
    let info = info?;
    if ctx.json {
        ctx.out.json(&describe(&info))?;
        return Ok(());
    }
    ctx.out.fields(&[
        ("digest", info.digest.to_string()),
        ("size", format!("{} ({})", info.size, output::size(info.size))),
        ("created", output::time_of_millis(info.created)),
        ("expires", info.expires.map_or_else(|| "never".to_owned(), output::time_of_millis)),
        ("extents", info.extents.to_string()),
        ("wrapped by", info.wrapped_by),
    ])?;
    Ok(())
}

/// A blob as JSON.
pub(crate) fn describe(info: &BlobInfo) -> Value {
    json!({
        "digest": info.digest.to_string(),
        "size": info.size,
        "created": output::time_of_millis(info.created),
        "expires": info.expires.map(output::time_of_millis),
        "extents": info.extents,
        "wrappedBy": info.wrapped_by,
    })
}
