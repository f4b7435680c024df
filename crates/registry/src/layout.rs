//! OCI image layouts: folders with `oci-layout`, `index.json` and `blobs/`, and archives of them, as skopeo, umoci and others read
//! and write them.
//!
//! ```text
//! import   index.json ─► each manifest: children and blobs first ─► itself ─► its tag
//! export   the manifest ─► children and blobs first ─► itself ─► referrers, if asked for ─► index.json, last
//! ```
//!
//! Every content is compared with its digest, on the way in by the put, on the way out before it gets its name. What is there
//! already is left alone, so both can be run again.

mod archive;
mod beside;
mod export;
mod import;
mod source;
mod target;

use std::fmt;
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
/// What `docker save` and skopeo's `docker-archive:` and `dir:` list images in, with or without a layout.
const DOCKER_IMAGES: &str = "manifest.json";
/// How deep indexes may be within indexes: real ones are one or two. Who may push could make a chain of any length.
const MAX_DEPTH: usize = 16;
/// The longest index that is read, in bytes.
const MAX_INDEX: u64 = 16 << 20;

/// Why a layout can't be imported or exported. What was done until then stays; run it again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// The folder or file is no layout, or nothing that the registry takes, or what was asked for is not in it.
    #[error("{0}")]
    Invalid(String),
    /// A content of the layout, or of the repository that is exported, is missing or not what its digest says. Get it again.
    #[error("{0}")]
    Damaged(String),
    /// The repository does not have what was asked for.
    #[error("{0}")]
    NotFound(String),
    /// There is something already where it was to be written.
    #[error("{0}")]
    Exists(String),
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

/// What is where in a layout; as it is displayed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Name {
    Layout,
    Index,
    Blob(Digest),
}

impl Name {
    /// What has this path; `None` for all that is no part of a layout.
    fn of(path: &str) -> Option<Self> {
        match path.strip_prefix("./").unwrap_or(path) {
            LAYOUT => Some(Self::Layout),
            INDEX => Some(Self::Index),
            path => {
                let (algorithm, hex) = path.strip_prefix("blobs/")?.split_once('/')?;
                format!("{algorithm}:{hex}").parse().ok().map(Self::Blob)
            }
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layout => f.write_str(LAYOUT),
            Self::Index => f.write_str(INDEX),
            Self::Blob(digest) => write!(f, "blobs/{}", digest.to_string().replace(':', "/")),
        }
    }
}

fn too_deep(digest: &Digest) -> LayoutError {
    LayoutError::Invalid(format!("{digest} is within more than {MAX_DEPTH} indexes"))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> LayoutError + use<> {
    let path = path.to_owned();
    move |source| LayoutError::Io { path, source }
}
