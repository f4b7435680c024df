//! The public behaviour of `bulla-envelope`. One binary, because every binary costs link time.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod cobblestone_properties;
mod cobblestone_vectors;
mod crypto_aead;
mod crypto_rsa;
mod derivations;
mod keywrap;
mod names;
mod secrets;
mod support;
