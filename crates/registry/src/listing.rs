//! Meta objects below a path, page by page.

use bulla::{ErrorKind, MetaEntry, MetaKind};
use futures::{StreamExt, TryStreamExt, stream};

use crate::error::{RegistryError, Result};
use crate::registry::Registry;

/// Objects read at once.
const READS: usize = 16;

/// All objects below a path, in the order of their names, page by page.
pub(crate) struct Listing<'a> {
    registry: &'a Registry,
    kind: MetaKind,
    parent: &'a [&'a str],
    after: Option<String>,
    done: bool,
    page: usize,
}

impl<'a> Listing<'a> {
    /// `page` of them are listed, and may be read, in one go.
    pub(crate) fn new(registry: &'a Registry, kind: MetaKind, parent: &'a [&'a str], page: usize) -> Self {
        Self { registry, kind, parent, after: None, done: false, page }
    }

    /// The same, of what comes after `after`.
    pub(crate) fn after(self, after: Option<String>) -> Self {
        Self { after, ..self }
    }

    /// The last names of the next page's paths; `None` after the last page.
    pub(crate) async fn names(&mut self) -> Result<Option<Vec<String>>> {
        if self.done {
            return Ok(None);
        }
        let meta = self.registry.store().meta();
        let page = meta.list(self.kind, self.parent, self.after.as_deref(), self.page).await?;
        self.done = !page.more || page.names.is_empty();
        self.after = page.names.last().cloned();
        Ok(Some(page.names))
    }

    /// Those of the next page that are still there; each with its own error, if it can't be read.
    pub(crate) async fn entries(&mut self) -> Result<Option<Vec<Read>>> {
        self.entries_but(|_| false).await
    }

    /// As [`entries`](Self::entries), without those that `skip` says.
    pub(crate) async fn entries_but(&mut self, skip: impl Fn(&str) -> bool) -> Result<Option<Vec<Read>>> {
        let Some(mut names) = self.names().await? else { return Ok(None) };
        names.retain(|name| !skip(name));
        let meta = self.registry.store().meta();
        let (kind, parent) = (self.kind, self.parent);
        let read = stream::iter(names).map(|name| {
            let meta = meta.clone();
            async move {
                let path = [parent, &[name.as_str()]].concat();
                match meta.get(kind, &path).await {
                    Ok(entry) => Ok(entry.map(|entry| (name, Ok(entry)))),
                    Err(error) if error.kind() == ErrorKind::Corrupt => Ok(Some((name, Err(error.into())))),
                    Err(error) => Err(RegistryError::from(error)),
                }
            }
        });
        let entries: Vec<Option<Read>> = read.buffered(READS).try_collect().await?;
        Ok(Some(entries.into_iter().flatten().collect()))
    }
}

/// The last of an object's names, and the object.
pub(crate) type Read = (String, Result<MetaEntry>);
