//! The registry as its clients see it: requests on real sockets, over a store in a folder.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod blobs;
mod bucket;
mod client;
mod discovery;
mod hostile;
mod manifests;
mod model;
mod mount;
mod nodes;
mod referrers;
mod revoked;
mod support;
mod uploads;
