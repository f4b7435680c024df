//! OCI image layouts: folders with `oci-layout`, `index.json` and `blobs/`, as skopeo, umoci and others read and write them.
//!
//! ```text
//! import   index.json ─► each manifest: children and blobs first ─► itself ─► its tag
//! export   the manifest ─► children and blobs first ─► itself ─► referrers, if asked for ─► index.json, last
//! ```
//!
//! Every content is compared with its digest, on the way in by the put, on the way out before it gets its name. What is there
//! already is left alone, so both can be run again.

mod export;
mod import;

use std::io;
use std::path::{Path, PathBuf};

use bulla::Digest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::RegistryError;

pub use self::export::{Export, ExportOptions};
pub use self::import::{Import, ImportOptions};

/// What a layout calls the tag of a manifest.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const LAYOUT: &str = "oci-layout";
const INDEX: &str = "index.json";
/// How deep indexes may be within indexes: real ones are one or two. Who may push could make a chain of any length.
const MAX_DEPTH: usize = 16;
/// The longest index that is read, in bytes.
const MAX_INDEX: u64 = 16 << 20;

/// Why a layout can't be imported or exported. What was done until then stays; run it again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// The folder is no layout, or what was asked for is not in it.
    #[error("{0}")]
    Invalid(String),
    /// A file can't be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The registry can't be used, or refuses what is in the layout.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// `index.json`, with whatever else is in it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u64,
    #[serde(default)]
    manifests: Vec<Entry>,
    #[serde(flatten)]
    more: Map<String, Value>,
}

/// A descriptor, with whatever else is in it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    annotations: Map<String, Value>,
    #[serde(flatten)]
    more: Map<String, Value>,
}

impl Entry {
    fn name(&self) -> Option<&str> {
        self.annotations.get(REF_NAME).and_then(Value::as_str)
    }
}

impl Index {
    /// The index of the layout in `folder`; `None` where there is no layout.
    async fn read(folder: &Path) -> Result<Option<Self>, LayoutError> {
        let path = folder.join(INDEX);
        match tokio::fs::metadata(&path).await {
            Ok(meta) if meta.len() <= MAX_INDEX => {}
            Ok(_) => {
                return Err(LayoutError::Invalid(format!("{} is too long to be an index", path.display())));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(LayoutError::Io { path, source }),
        }
        let bytes = tokio::fs::read(&path).await.map_err(at(&path))?;
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| LayoutError::Invalid(format!("{} is no index: {error}", path.display())))
    }
}

fn too_deep(digest: &Digest) -> LayoutError {
    LayoutError::Invalid(format!("{digest} is within more than {MAX_DEPTH} indexes"))
}

/// Where a content is.
fn blob(folder: &Path, digest: &Digest) -> PathBuf {
    let text = digest.to_string();
    let (algorithm, hex) = text.split_once(':').unwrap_or_default();
    folder.join("blobs").join(algorithm).join(hex)
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> LayoutError + use<> {
    let path = path.to_owned();
    move |source| LayoutError::Io { path, source }
}
