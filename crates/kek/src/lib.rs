//! Key-encryption keys: who holds them, how they are named, how they fail, and for how long what they
//! unwrapped may be used.
//!
//! - [`KekProvider`] is what a Key Vault, an HSM or the local vault implements; [`conformance`] is the suite
//!   that each of them passes.
//! - [`KeyId`] names a key portably (it can stand in a bucket); [`KeyUri`] is what a user types.
//! - [`KekError`] tells *denied* (wipe, report) from *unavailable* (wait) from *invalid* (damage or a mistake).
//! - [`remedy`] has the command that undoes a refusal.
//! - [`Lease`] is the revocation bound: a state machine without I/O and without a clock.
//! - [`Runtime`] is the seam through which the engine and the providers get time, tasks and randomness, so that
//!   a simulation can drive all of it from a seed.
//!
//! This crate never sees an object store and never holds a key-encryption key.

#![forbid(unsafe_code)]
// Time, tasks and randomness come through `Runtime` only.
#![warn(clippy::disallowed_methods, clippy::disallowed_types)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test"))]

pub mod conformance;
mod error;
mod identity;
mod key_id;
mod key_uri;
mod lease;
mod observed;
mod percent;
mod provider;
mod providers;
pub mod remedy;
mod runtime;
mod tokio_runtime;

pub use async_trait::async_trait;

pub use self::error::{DenyReason, KekError, KekErrorKind};
pub use self::identity::{Identity, InvalidIdentity};
pub use self::key_id::{InvalidKeyId, KeyId, Scheme};
pub use self::key_uri::KeyUri;
pub use self::lease::{Lease, LeaseEnd, LeaseOptions, LeaseState, Next, Probe};
pub use self::observed::{Observed, ObservedCall, Observer, Operation};
pub use self::provider::{
    Exposure, KekProvider, KeyDescription, KeyKind, Protection, UnknownAlgorithm, WrapAlgorithm, WrappedKey,
};
pub use self::providers::Providers;
pub use self::runtime::{BoxFuture, Now, Runtime, compute};
pub use self::tokio_runtime::{SystemRandom, TokioRuntime};
