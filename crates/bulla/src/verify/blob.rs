//! One blob: its envelope, its data objects, and where asked for every byte of them.

use std::sync::Arc;

use bulla_envelope::MAX_OBJECT_LEN;
use bulla_envelope::cobblestone::sealed_len;
use bulla_envelope::digest::{Digest, Hasher};
use bulla_envelope::envelope::Extent;
use bulla_envelope::names::extent_key;
use futures::TryStreamExt;

use super::Run;
use crate::blob::pieces;
use crate::bucket::Entry;
use crate::envelopes::{Found, OpenedBlob};
use crate::error::{ErrorKind, Result};
use crate::gc::{Named, Tally};

/// How often a blob that others keep replacing is looked at again.
const ATTEMPTS: usize = 5;

/// An object, and what is wrong with it.
type Fault = (String, String);

impl Run<'_> {
    pub(super) async fn check_entry(&self, entry: Entry) -> Result<()> {
        let digest = match self.inner.named(&entry).await? {
            Named::Blob(digest) => digest,
            Named::Tombstone => return Ok(()),
            Named::Foreign => {
                self.damaged(None, entry.key, "is no envelope of this store".to_owned());
                self.advance(1, 0);
                return Ok(());
            }
        };
        let fault = if entry.size > MAX_OBJECT_LEN as u64 {
            Some((entry.key, format!("has {} bytes, more than an envelope may have", entry.size)))
        } else {
            self.check_blob(&digest, &entry.key).await?
        };
        if let Some((object, what)) = fault {
            self.damaged(Some(digest), object, what);
        }
        self.advance(1, 0);
        Ok(())
    }

    async fn check_blob(&self, digest: &Digest, key: &str) -> Result<Option<Fault>> {
        let read = self.is_chosen();
        let mut last: Option<(Arc<OpenedBlob>, Fault)> = None;
        for _ in 0..ATTEMPTS {
            let opened = match self.inner.patiently(|| self.inner.read_envelope(digest)).await? {
                Found::Blob(opened) => opened,
                // Deleted since it was listed.
                Found::Nothing | Found::Tombstone(_) => return Ok(None),
                Found::Damaged(_, error) => return Ok(Some((key.to_owned(), error.to_string()))),
            };
            // The same envelope twice, and still at fault: nobody has replaced it and collected its data meanwhile.
            if let Some((before, fault)) = last
                && before.record.extents == opened.record.extents
            {
                return Ok(Some(fault));
            }
            match self.check_opened(&opened, key, read).await? {
                Some(fault) => last = Some((opened, fault)),
                None => return Ok(None),
            }
        }
        Ok(last.map(|(_, fault)| fault))
    }

    async fn check_opened(&self, opened: &Arc<OpenedBlob>, key: &str, read: bool) -> Result<Option<Fault>> {
        for extent in &opened.record.extents {
            if let Some(fault) = self.check_extent(extent).await? {
                return Ok(Some(fault));
            }
        }
        if !read {
            return Ok(None);
        }
        let digest = &opened.record.digest;
        let mut hasher = Hasher::new(digest.algorithm());
        let mut start = 0;
        // One extent after the other, so that a fault is one object's.
        let lens = opened.record.extents.iter().map(|extent| extent.len);
        let lens = if opened.record.inline.is_some() { vec![opened.record.size] } else { lens.collect() };
        for (at, len) in lens.into_iter().enumerate() {
            let mut stream = pieces(Arc::clone(&self.inner), Arc::clone(opened), start..start + len);
            loop {
                match stream.try_next().await {
                    Ok(Some(bytes)) => hasher.update(&bytes),
                    Ok(None) => break,
                    Err(error) if error.kind() == ErrorKind::Corrupt => {
                        let object = opened.record.extents.get(at).map(|extent| extent_key(&extent.name));
                        return Ok(Some((object.unwrap_or_else(|| key.to_owned()), error.to_string())));
                    }
                    Err(error) => return Err(error),
                }
            }
            start += len;
            self.advance(0, sealed_len(len).unwrap_or(len));
        }
        if hasher.finish() != *digest {
            return Ok(Some((key.to_owned(), format!("the content of {digest} has another digest"))));
        }
        self.state().report.read += Tally { objects: 1, bytes: opened.record.size };
        Ok(None)
    }

    /// Whether the data object is there, at exactly its length.
    pub(super) async fn check_extent(&self, extent: &Extent) -> Result<Option<Fault>> {
        let expected = sealed_len(extent.len);
        let listed = self.data.binary_search_by_key(&extent.name, |(name, _)| *name);
        if let Ok(at) = listed {
            self.state().named[at / 64] |= 1 << (at % 64);
            if Some(self.data[at].1) == expected {
                return Ok(None);
            }
        }
        // Written since the data was listed, or at fault.
        let key = extent_key(&extent.name);
        Ok(match self.inner.bucket.head(&key).await? {
            Some(entry) if Some(entry.size) == expected => None,
            Some(entry) => {
                let what = format!("has {} bytes instead of {}", entry.size, expected.unwrap_or_default());
                Some((key, what))
            }
            None => Some((key, "is missing".to_owned())),
        })
    }

    /// Whether this blob is one of those to be read.
    fn is_chosen(&self) -> bool {
        let mut bytes = [0; 4];
        self.inner.parts.runtime.random().fill(&mut bytes);
        f64::from(u32::from_be_bytes(bytes)) < self.share * (f64::from(u32::MAX) + 1.0)
    }
}
