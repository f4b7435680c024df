//! The registry as its clients see it: requests on real sockets, over a store in a folder.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

// Tokens and TLS of the tests need a back end that signs.
#[cfg(feature = "aws-lc")]
mod access;
mod adopt;
mod blobs;
mod bucket;
mod client;
mod collect;
mod conformance;
mod discovery;
mod distribution;
mod every;
#[cfg(feature = "aws-lc")]
mod framing;
mod hostile;
mod lazy;
mod manifests;
mod model;
mod mount;
mod needs;
mod nodes;
mod pending;
mod referrers;
mod revoked;
#[cfg(feature = "aws-lc")]
mod served;
#[cfg(feature = "aws-lc")]
mod server;
mod sim;
mod support;
#[cfg(feature = "aws-lc")]
mod tokens;
mod uploads;
