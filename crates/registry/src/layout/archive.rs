//! A layout in one file: a tar, as `skopeo copy … oci-archive:x.tar`, `docker save` and `docker buildx` write it.
//!
//! ```text
//! read    one pass over the headers ─► name → where its bytes are      contents are then read where they are
//! write   oci-layout ─► contents as they come ─► index.json ─► its name
//! ```

mod read;
mod write;

pub(super) use self::read::Archive;
pub(super) use self::write::ArchiveWriter;
