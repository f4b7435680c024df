//! The server over a real vault, asked over HTTPS as any client asks.

// Nothing listens in a build without TLS.
#![cfg(any(feature = "aws-lc", feature = "ring"))]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod access;
mod hostile;
mod keys;
mod support;
mod tokens;
mod transport;
