//! Listing meta objects: a page in the order of the names, which is not the order of the keys.
//!
//! Sealed names don't sort as the names do, so a page takes a listing of the whole directory, of which the smallest names
//! after the last page are kept: memory for one page, whatever the directory has.

use std::collections::BTreeSet;

use bulla_envelope::meta::MetaKind;
use bulla_envelope::names::{NameError, is_component};
use futures::TryStreamExt;

use super::object::Found;
use super::{Meta, check_names};
use crate::error::{Error, Result};
use crate::store::StoreInner;

/// Objects read at once.
const READS: usize = 16;

/// The most names of a page.
const MAX_LIMIT: usize = 10_000;

/// Names, ascending by their bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MetaPage {
    /// The last names of the paths.
    pub names: Vec<String>,
    /// Whether there are more after them.
    pub more: bool,
}

impl Meta {
    /// The last names of the paths of `kind` that begin with `parent`: the first `limit` (at most 10,000) after `after`,
    /// ascending by their bytes. Objects are not read, but for names of more than 109 bytes, which are in the object only.
    ///
    /// Each page costs a listing of all objects below `parent` (one request per 1,000 in an object store), whatever its
    /// limit; it needs memory for `limit` names. What is written meanwhile may be listed or not.
    ///
    /// # Errors
    /// `Invalid` where `parent` is not one name shorter than the kind's paths; `Corrupt` where an object is there whose name
    /// this store did not seal (what has no such name is left alone); `Revoked`, `Unavailable`, `Throttled` as everywhere.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn list(
        &self,
        kind: MetaKind,
        parent: &[&str],
        after: Option<&str>,
        limit: usize,
    ) -> Result<MetaPage> {
        if parent.len() + 1 != kind.depth() {
            return Err(Error::invalid(format!(
                "a {} is listed by the first {} of its names, not {}",
                kind.name(),
                kind.depth() - 1,
                parent.len()
            )));
        }
        check_names(parent)?;
        let limit = limit.min(MAX_LIMIT);
        let inner = self.store.inner();
        let directory = inner.meta_key(&*inner.gate.secrets(inner).await?, kind, parent);
        let names = inner
            .bucket
            .list(&directory)
            .map_err(Error::from)
            .try_filter(|entry| std::future::ready(!entry.is_tombstone()))
            .map_ok(|entry| inner.meta_name(kind, &directory, entry.key))
            .try_buffer_unordered(READS);
        let first = BTreeSet::new();
        let mut first = names
            .try_fold(first, |mut first, name| {
                if let Some(name) = name
                    && after.is_none_or(|after| name.as_str() > after)
                {
                    first.insert(name);
                    // One more than asked for, to know whether there are more.
                    if first.len() > limit.saturating_add(1) {
                        first.pop_last();
                    }
                }
                std::future::ready(Ok(first))
            })
            .await?;
        let more = first.len() > limit;
        if more {
            first.pop_last();
        }
        inner.gate.secrets(inner).await?;
        Ok(MetaPage { names: first.into_iter().collect(), more })
    }
}

impl StoreInner {
    /// The name of the object at `key`, or `None` if it went meanwhile, or is none of anybody's: what a tool or a file manager
    /// left must not keep a registry from listing its tags. What has the form of a name and is not ours is damage.
    async fn meta_name(&self, kind: MetaKind, directory: &str, key: String) -> Result<Option<String>> {
        let foreign = || Error::corrupt(format!("`{key}` is not a sealed name of this store"));
        let component = key.strip_prefix(directory).and_then(|rest| rest.strip_prefix('/'));
        let Some(component) = component.filter(|component| is_component(component)) else {
            tracing::warn!(%key, "a foreign object among the meta objects is left alone");
            return Ok(None);
        };
        // Names are secrets under the lease as well.
        let keys = self.gate.secrets(self).await?;
        match keys.root.name_key(kind.name()).open_name(kind.name(), directory, component) {
            Ok(name) => String::from_utf8(name).map(Some).map_err(|_| foreign()),
            Err(NameError::Hashed) => match self.read_meta(kind, &key, || format!("`{key}`")).await? {
                Found::Entry(mut entry) => Ok(entry.path.pop()),
                Found::Nothing | Found::Tombstone(_) => Ok(None),
                Found::Damaged(_, error) => Err(error),
            },
            Err(error) => Err(foreign().with_source(error)),
        }
    }
}
