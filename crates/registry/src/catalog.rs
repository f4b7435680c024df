//! All repositories.

use crate::error::{RegistryError, Result};
use crate::facts::REPOSITORY;
use crate::name::RepositoryName;
use crate::registry::{Page, Registry};

impl Registry {
    /// The first `limit` repositories after `after`, ascending by their names' bytes. A page costs a listing of all of them.
    ///
    /// # Errors
    /// `UNAVAILABLE` where key or bucket can't be used now.
    pub async fn repositories(&self, after: Option<&str>, limit: usize) -> Result<Page<RepositoryName>> {
        let page = self.store().meta().list(REPOSITORY, &[], after, limit).await?;
        let parse = |name: String| name.parse().map_err(|_| RegistryError::damaged("a repository's name"));
        let items = page.names.into_iter().map(parse).collect::<Result<Vec<_>>>()?;
        Ok(Page { items, more: page.more })
    }
}
