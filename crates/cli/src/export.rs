//! `bulla export`: an image of a repository becomes an OCI layout.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use bulla_registry::layout::ExportOptions;
use bulla_registry::{Reference, Registry, RegistryOptions, RepositoryName};
use serde_json::json;

use crate::context::Context;
use crate::exit::{Failure, Result};
use crate::gc::{shown, tally};
use crate::import::explained;
use crate::open;
use crate::progress::Progress;

/// Write an image of the registry into an OCI layout, unsealed
///
/// A folder is made, or added to; a name that ends in .tar is a new archive, which skopeo calls `oci-archive:`. skopeo, umoci, docker
/// and others read them. Every byte is compared with its digest on the way.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bulla export library/app:latest ./layout ./store
  bulla export library/app:latest ./app.tar ./store
  bulla export library/app@sha256:… ./layout s3://bucket/prefix --referrers")]
pub(crate) struct Args {
    /// REPOSITORY:TAG or REPOSITORY@DIGEST
    image: String,
    /// The layout: a folder, or a new file whose name ends in .tar
    layout: PathBuf,
    /// A folder or a URL, or BULLA_STORE
    #[arg(value_name = "STORE")]
    store: Option<String>,
    /// With what refers to it, such as signatures
    #[arg(long)]
    referrers: bool,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<()> {
    let (name, reference) = parsed(&args.image)?;
    let opened = open::open(ctx, &ctx.store(args.store.as_deref())?).await?;
    let repository = Registry::new(opened.store.clone(), RegistryOptions::default()).repository(name);
    let mut options = ExportOptions::default();
    options.referrers = args.referrers;
    let progress = Mutex::new(Progress::new(None, ctx.quiet));
    let say = |bytes| progress.lock().unwrap_or_else(PoisonError::into_inner).set(bytes, None);
    let exported = repository.export_layout(&reference, &args.layout, &options, &say).await;
    drop(progress);
    let exported = exported.map_err(|error| explained(&opened, error));
    opened.close(ctx).await;
    let exported = exported?;
    if ctx.json {
        ctx.out.json(&json!({
            "digest": exported.digest.to_string(),
            "manifests": exported.manifests,
            "written": tally(exported.written),
            "present": exported.present,
        }))?;
        return Ok(());
    }
    ctx.out.fields(&[
        ("digest", exported.digest.to_string()),
        ("manifests", exported.manifests.to_string()),
        ("written", format!("{}; {} there already", shown(exported.written), exported.present)),
    ])?;
    Ok(())
}

fn parsed(image: &str) -> Result<(RepositoryName, Reference)> {
    let parts = image.split_once('@').or_else(|| image.rsplit_once(':'));
    let (name, reference) = parts.ok_or_else(|| {
        Failure::invalid(format!("`{image}` names no image; write REPOSITORY:TAG or REPOSITORY@DIGEST"))
    })?;
    let invalid = |error: bulla_registry::RegistryError| Failure::invalid(error.to_string());
    Ok((name.parse().map_err(invalid)?, reference.parse().map_err(invalid)?))
}
