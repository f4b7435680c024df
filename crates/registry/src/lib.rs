//! The OCI Distribution Specification over a [`Store`](bulla::Store): a registry whose every byte is sealed at rest.
//!
//! Blobs are the store's; what a registry knows beside them (repositories, tags, links, manifests, referrers) are its meta
//! objects. There is no other state, so several nodes may serve one bucket.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test"))]

pub mod access;
pub mod server;
