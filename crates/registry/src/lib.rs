//! The OCI Distribution Specification over a [`Store`](bulla::Store): a registry whose every byte is sealed at rest.
//!
//! Blobs are the store's; what a registry knows beside them (repositories, tags, links, manifests, referrers) are its meta
//! objects. There is no other state, so several nodes may serve one bucket.
//!
//! ```text
//! Registry ─► Repository ─┬─ blobs ── links             a link makes a blob readable here
//!                         ├─ manifests ── manifest      what is put, and what it needs
//!                         └─ tags, referrers            and of the registry: catalog
//! facts, name, clock                                    meta objects, names, by which clock they age
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test"))]

pub mod access;
pub mod adopt;
mod blobs;
mod catalog;
mod clock;
mod collect;
mod error;
pub mod facts;
pub mod http;
pub mod layout;
mod links;
mod listing;
pub mod manifest;
mod manifests;
mod name;
mod referrers;
mod registry;
pub mod server;
mod tags;

pub use self::blobs::BlobStat;
pub use self::collect::{CollectOptions, CollectProgress, CollectReport};
pub use self::error::{ErrorCode, RegistryError, Result};
pub use self::facts::Descriptor;
pub use self::manifests::{Manifest, ManifestStat, PutManifest, PutManifestResult};
pub use self::name::{MAX_NAME_LEN, MAX_TAG_LEN, Reference, RepositoryName, Tag, parse_digest};
pub use self::registry::{Page, Registry, RegistryOptions, Repository};
pub use self::tags::Replaces;
