//! Mounts: whether a blob can be taken from another repository, by who may pull it there.

use axum::http::HeaderMap;
use bulla::Digest;
use futures::{StreamExt, TryStreamExt, stream};

use super::super::App;
use super::super::answer::Failure;
use crate::access::{Action, Needs};
use crate::error::RegistryError;
use crate::name::RepositoryName;
use crate::registry::Repository;

/// Repositories that are looked through for a blob to mount from anywhere, and how many at once.
const MAX_SOURCES: usize = 256;
const READS: usize = 16;

/// Whether it was done. Who may not pull from `from` learns nothing but that it was not; without it, the first repositories
/// that the sender may pull from are looked through.
pub(super) async fn mount(
    app: &App,
    repository: &Repository,
    headers: &HeaderMap,
    digest: &Digest,
    from: Option<RepositoryName>,
) -> Result<bool, Failure> {
    if let Some(from) = from {
        return Ok(may_pull(app, headers, &from).await && repository.mount_blob(digest, Some(&from)).await?);
    }
    if repository.mount_blob(digest, None).await? {
        return Ok(true);
    }
    let mut sources = Vec::new();
    for name in app.registry.repositories(None, MAX_SOURCES).await?.items {
        if may_pull(app, headers, &name).await {
            sources.push(name);
        }
    }
    let found = stream::iter(sources).map(|name| {
        let (source, digest) = (app.registry.repository(name), digest.clone());
        async move {
            let linked = source.linked(&digest).await?;
            Ok::<_, RegistryError>(linked.map(|_| source.name().clone()))
        }
    });
    let mut found = found.buffer_unordered(READS);
    while let Some(name) = found.try_next().await? {
        if let Some(name) = name {
            return Ok(repository.mount_blob(digest, Some(&name)).await?);
        }
    }
    Ok(false)
}

async fn may_pull(app: &App, headers: &HeaderMap, name: &RepositoryName) -> bool {
    let needs = Needs::Repository { name: name.as_str(), action: Action::Pull };
    app.access.check(headers, needs).await.is_ok()
}
