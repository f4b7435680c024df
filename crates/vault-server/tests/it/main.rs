//! The server over a real vault, asked over HTTPS as any client asks.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod access;
mod keys;
mod support;
mod tokens;
mod transport;
