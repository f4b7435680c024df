//! The crate as others use it: vectors, other implementations, and bytes that nobody should accept. One binary, because
//! every binary costs link time.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod architecture_doc;
mod audit;
mod audit_export;
mod cbor_value;
mod cobblestone_properties;
mod cobblestone_vectors;
mod crypto_aead;
mod crypto_rsa;
mod derivations;
mod envelopes;
mod format_doc;
mod interop;
mod jobs;
mod keywrap;
mod log;
mod meta;
mod names;
mod samples;
mod secrets;
mod sessions;
mod support;
mod vectors;
