//! Accepting HTTP connections: so many at a time, none that keeps the server waiting, certificates that are read again
//! when they change. What is served is an axum router's business.
//!
//! ```text
//! TCP (stalled writes) ─ TLS (certificate of the moment) ─ HTTP/1.1 or 2 (heads: size, count, time) ─ bodies (pace, rest) ─► router
//! ```

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test"))]

mod listener;
mod pace;
mod rest;
mod tls;
mod watched;

pub use self::listener::{DropConnection, Limits, Listener};
pub use self::pace::Pace;
pub use self::tls::{TlsError, TlsFiles, certificates, check_files, provider, server_config};
pub use self::watched::Watched;
