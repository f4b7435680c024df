//! `bulla export`: an image of a repository becomes an OCI layout.

use std::ffi::OsString;
use std::path::Path;
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
/// and others read them. Every content is compared with its digest on the way.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "bulla export [OPTIONS] [STORE] <IMAGE> <LAYOUT>",
    after_help = "\
Examples:
  bulla export ./store library/app:latest ./layout
  bulla export ./store library/app:latest ./app.tar
  bulla export s3://bucket/prefix library/app@sha256:… ./layout --referrers"
)]
pub(crate) struct Args {
    /// The store (or BULLA_STORE); REPOSITORY:TAG or REPOSITORY@DIGEST; and the layout: a folder, or a new file whose name ends
    /// in .tar
    #[arg(value_names = ["STORE", "IMAGE", "LAYOUT"], num_args = 0..=3)]
    place: Vec<OsString>,
    /// With what refers to it, such as signatures
    #[arg(long)]
    referrers: bool,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<()> {
    let (store, [image, layout]) = ctx.store_and("export", "IMAGE LAYOUT", &args.place)?;
    let (name, reference) = match (image.to_str().map(parsed), parsed(&store)) {
        (Some(Ok(parsed)), _) => parsed,
        (_, Ok(_)) => {
            return Err(Failure::invalid("the store comes first: `bulla export STORE IMAGE LAYOUT`"));
        }
        (Some(Err(failure)), _) => return Err(failure),
        (None, _) => return Err(Failure::invalid("an image's name is UTF-8")),
    };
    let opened = open::open(ctx, &store).await?;
    let repository = Registry::new(opened.store.clone(), RegistryOptions::default()).repository(name);
    let mut options = ExportOptions::default();
    options.referrers = args.referrers;
    let progress = Mutex::new(Progress::new(None, ctx.quiet));
    let say = |bytes| progress.lock().unwrap_or_else(PoisonError::into_inner).set(bytes, None);
    let exported = repository.export_layout(&reference, Path::new(layout), &options, &say).await;
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
