//! The registry's parts on real sockets, asked as any client asks.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
// Clients and tokens of the tests need TLS and signatures.
#![cfg(feature = "aws-lc")]

mod access;
mod served;
mod server;
mod tokens;
