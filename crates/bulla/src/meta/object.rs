//! One meta object: its key, its bytes, and what stands in its place.

use bulla_envelope::MAX_OBJECT_LEN;
use bulla_envelope::envelope::EnvelopeHeader;
use bulla_envelope::meta::{MetaKeys, MetaKind, MetaRecord};
use bytes::Bytes;

use super::{Meta, MetaEntry, MetaVersion, describe};
use crate::bucket::{Object, UpdateVersion};
use crate::error::{Error, Result};
use crate::store::StoreInner;
use crate::unlock::Unlocked;

/// What stands at a path.
#[derive(Debug)]
pub(super) enum Found {
    Nothing,
    Tombstone(UpdateVersion),
    Entry(MetaEntry),
    Damaged(UpdateVersion, Error),
}

impl Found {
    /// What a write that replaces it is conditional on; `None`: that nothing is there.
    pub(super) fn version(self) -> Option<UpdateVersion> {
        match self {
            Self::Nothing => None,
            Self::Tombstone(version) => Some(version),
            Self::Entry(entry) => Some(entry.version.stored),
            Self::Damaged(version, error) => {
                tracing::warn!(%error, "replacing a damaged meta object");
                Some(version)
            }
        }
    }
}

impl Meta {
    pub(super) async fn read(&self, kind: MetaKind, path: &[&str]) -> Result<Found> {
        let inner = self.store.inner();
        let key = inner.meta_key(&*inner.gate.secrets(inner).await?, kind, path);
        let what = || describe(kind, path);
        inner.read_meta(kind, &key, what).await
    }
}

impl StoreInner {
    pub(super) fn meta_key(&self, keys: &Unlocked, kind: MetaKind, path: &[&str]) -> String {
        keys.root.name_key(kind.name()).meta_key(&keys.root_id, kind, path)
    }

    pub(super) fn seal_meta(
        &self,
        keys: &Unlocked,
        kind: MetaKind,
        path: &[&str],
        record: &MetaRecord,
    ) -> Result<(String, Bytes)> {
        let (meta, names) = (keys.root.meta_key(), keys.root.name_key(kind.name()));
        let key = names.meta_key(&keys.root_id, kind, path);
        let mut salt = [0; 24];
        self.parts.runtime.random().fill(&mut salt);
        let header = EnvelopeHeader { store: keys.store(), root: keys.root_id };
        let keys = MetaKeys { meta: &meta, names: &names };
        let object = record
            .seal(self.parts.crypto, keys, header, kind, salt)
            .map_err(|rule| Error::invalid(rule.rule()))?;
        Ok((key, Bytes::from(object)))
    }

    /// Reads and opens what is at `key`; `what` names it in errors.
    pub(super) async fn read_meta(
        &self,
        kind: MetaKind,
        key: &str,
        what: impl Fn() -> String,
    ) -> Result<Found> {
        let Some(object) = self.bucket.get(key, MAX_OBJECT_LEN).await? else { return Ok(Found::Nothing) };
        if object.is_tombstone() {
            return Ok(Found::Tombstone(object.version));
        }
        // The lease may have ended while the object was on its way: keys are asked for when they are used.
        let keys = self.gate.secrets(self).await?;
        let found = match self.open_meta(&keys, kind, key, &object) {
            Ok(record) => Found::Entry(MetaEntry {
                path: record.path,
                payload: record.payload.into(),
                modified: object.last_modified,
                version: MetaVersion { stored: object.version, nonce: record.nonce },
            }),
            Err(error) => {
                let error = Error::corrupt(format!("{} does not authenticate", what())).with_source(error);
                Found::Damaged(object.version, error)
            }
        };
        // And once more before anything of it is released.
        self.gate.secrets(self).await?;
        Ok(found)
    }

    fn open_meta(
        &self,
        keys: &Unlocked,
        kind: MetaKind,
        key: &str,
        object: &Object,
    ) -> Result<MetaRecord, bulla_envelope::meta::OpenMetaError> {
        let header = EnvelopeHeader { store: keys.store(), root: keys.root_id };
        let (meta, names) = (keys.root.meta_key(), keys.root.name_key(kind.name()));
        let keys = MetaKeys { meta: &meta, names: &names };
        MetaRecord::open(self.parts.crypto, keys, header, kind, key, &object.bytes)
    }
}
