//! What Bulla writes, and the keys it writes it under: secrets, Cobblestone-256, names, envelopes, log records.
//!
//! Everything here is a function of its arguments. The crate knows no object store, no key service and no clock; it never
//! awaits, never blocks and asks no operating system for anything. Randomness is a [`random::RandomSource`] that the caller
//! hands in, cryptography a [`crypto::CryptoProvider`] chosen once.
//!
//! ```text
//! Root ─ derive ─► RecordKey  NameKey  EnvelopeKey  MetaKey  UploadKey  KeyWrappingKey  Anchor
//!                     │          │         │                                 │ AES-KW
//!                  record.rs  names.rs  envelope.rs ◄── Dek ◄── StoreKey ◄───┘
//!                                          │             │ AES-KW
//!                                          └─ cobblestone.rs ─► crypto.rs (aws_lc | rust_crypto)
//! ```
//!
//! Bytes from a bucket are hostile. Every decoder and opener in here is total: any input gives a value or a typed error,
//! never a panic, and no unauthenticated plaintext leaves it.
#![forbid(unsafe_code)]
// Time and randomness are the caller's, so that a simulation can drive them.
#![warn(clippy::disallowed_methods, clippy::disallowed_types)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test"))]

pub mod audit;
pub mod cobblestone;
pub mod context;
pub mod crypto;
pub mod derive;
pub mod digest;
pub mod envelope;
pub mod ids;
pub mod job;
pub mod keywrap;
pub mod meta;
pub mod names;
pub mod object;
pub mod random;
pub mod record;
pub mod secret;
pub mod session;

mod base32;
mod cbor;

pub use cbor::{DecodeError, InvalidRecord, MAX_OBJECT_LEN};
