//! `bulla import`: an OCI layout becomes a repository.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use bulla_registry::layout::{ImportOptions, LayoutError};
use bulla_registry::{Registry, RegistryOptions, RepositoryName, Tag};
use serde_json::json;

use crate::context::Context;
use crate::exit::{Failure, Kind, Result};
use crate::gc::{shown, tally};
use crate::open::{self, Opened};
use crate::progress::Progress;

/// Take the images of an OCI layout into a repository
///
/// A layout is a folder with `oci-layout`, `index.json` and `blobs/`, as skopeo and umoci write them, or a tar of one, as skopeo's
/// `oci-archive:`, `docker save` (of Docker 25 and later) and buildx's `type=oci` write them. Its images get the tags that it calls
/// them by. What has no name and refers to one of them, such as a signature, comes with it.
///
/// Every content is compared with its digest. One that is missing or damaged is named, with exit code 8; what was imported before it
/// stays. Blobs that the repository has already are not read again.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bulla import ./layout ./store --repository library/app
  bulla import ./app.tar ./store --repository library/app --tag v1.2
  bulla import ./layout ./store --repository library/app --only latest --tag v1.2")]
pub(crate) struct Args {
    /// The layout: a folder, or a tar that is not compressed
    layout: PathBuf,
    /// A folder or a URL, or BULLA_STORE
    #[arg(value_name = "STORE")]
    store: Option<String>,
    /// The repository, such as library/app
    #[arg(long, value_name = "NAME")]
    repository: RepositoryName,
    /// Only what the layout calls so, and what refers to it
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// The tag that it gets, instead of what the layout calls it; for one image
    #[arg(long, value_name = "TAG")]
    tag: Option<Tag>,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<()> {
    let opened = open::open(ctx, &ctx.store(args.store.as_deref())?).await?;
    let repository =
        Registry::new(opened.store.clone(), RegistryOptions::default()).repository(args.repository);
    let mut options = ImportOptions::default();
    (options.only, options.tag) = (args.only, args.tag);
    let progress = Mutex::new(Progress::new(None, ctx.quiet));
    let say = |bytes| progress.lock().unwrap_or_else(PoisonError::into_inner).set(bytes, None);
    let imported = repository.import_layout(&args.layout, &options, &say).await;
    drop(progress);
    let imported = imported.map_err(|error| explained(&opened, error));
    opened.close(ctx).await;
    let imported = imported?;
    let tags: Vec<String> = imported.tags.iter().map(|(tag, digest)| format!("{tag} {digest}")).collect();
    if ctx.json {
        ctx.out.json(&json!({
            "repository": repository.name().as_str(),
            "manifests": imported.manifests,
            "sealed": tally(imported.sealed),
            "present": imported.present,
            "tags": imported.tags.iter().map(|(tag, digest)| (tag.to_string(), digest.to_string().into()))
                .collect::<serde_json::Map<_, _>>(),
        }))?;
        return Ok(());
    }
    ctx.out.fields(&[
        ("repository", repository.name().to_string()),
        ("manifests", imported.manifests.to_string()),
        ("sealed", format!("{}; {} there already", shown(imported.sealed), imported.present)),
        ("tags", tags.join(", ")),
    ])?;
    Ok(())
}

pub(crate) fn explained(opened: &Opened, error: LayoutError) -> Failure {
    match error {
        LayoutError::Registry(error) => match error.into_engine() {
            Ok(error) => opened.explain(error),
            Err(error) => Failure::invalid(error.to_string()),
        },
        LayoutError::Damaged(_) => Failure::new(Kind::Corrupt, error.to_string()),
        LayoutError::NotFound(_) => Failure::not_found(error.to_string()),
        LayoutError::Exists(_) => Failure::new(Kind::Conflict, error.to_string()),
        LayoutError::Io { ref source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            Failure::not_found(error.to_string())
        }
        LayoutError::Io { .. } => Failure::new(Kind::Unavailable, error.to_string()),
        error => Failure::invalid(error.to_string()),
    }
}
