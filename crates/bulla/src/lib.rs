//! Bulla: an envelope-encryption storage engine for container registries.
//!
//! A [`Store`] keeps content-addressed blobs in any object store, every blob under a data key (DEK) of its own. DEKs are
//! wrapped under store keys, these under the store's root, and the root under a key that the *customer* controls (KEK),
//! through a [`KekProvider`](bulla_kek::KekProvider). Rotating the KEK re-wraps one secret and touches no data. Taking it
//! away makes every byte unreadable within the revocation bound; giving it back heals by itself.
//!
//! This crate is the only one that does object I/O. It knows `bulla-kek` and `bulla-envelope` only: providers are injected,
//! and time, tasks and randomness come through [`Runtime`](bulla_kek::Runtime).
//!
//! ```text
//! Engine ─► Store ─┬─ upload ─ sealing ─ commit      put: extents first, the envelope is the commit point
//!                  ├─ blob ─ range                   get: ranged GETs of whole chunks
//!                  ├─ envelopes ─ cache              decoded envelopes, no longer than the lease
//!                  ├─ gate ─ unlock                  lease, secrets, keeper
//!                  ├─ rotate, preflight, log         configuration and keys
//!                  ├─ gc ─ horizon                   removes data that no envelope names
//!                  ├─ verify                         checks all of it
//!                  └─ bucket                         object_store, made even
//! ```
// The README's example is a test of this crate.
#![cfg_attr(doctest, doc = include_str!("../../../README.md"))]
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test"))]
// Time, tasks and randomness come through `bulla_kek::Runtime`, so that a simulation can drive them.
#![warn(clippy::disallowed_methods, clippy::disallowed_types)]

mod audit;
mod blob;
pub mod bucket;
mod buffers;
mod commit;
mod count;
mod create;
mod deks;
mod delete;
mod engine;
mod envelopes;
mod error;
mod events;
mod extents;
mod gate;
mod gc;
mod horizon;
mod jobs;
mod list;
mod log;
mod log_claims;
#[cfg(feature = "locked-memory")]
mod memory;
mod meta;
mod pace;
mod party;
mod preflight;
pub mod range;
mod renew;
mod rewrap;
mod rotate;
mod sealing;
mod session;
mod shred;
mod status;
mod store;
mod sweep;
mod unlock;
mod upload;
mod verify;

pub use bulla_envelope::crypto::CryptoProvider;
pub use bulla_envelope::derive::Anchor;
pub use bulla_envelope::digest::{Algorithm, Digest, ParseDigestError};
pub use bulla_envelope::ids::{BlobId, SessionId, StoreId, StoreKeyId};
pub use bulla_envelope::meta::MetaKind;
pub use bulla_envelope::record::{Managed, Mode, StoreKeyState};
/// The audit log's formats: entries, checkpoints, exports, the keys that sign and verify them.
pub mod audit_format {
    pub use bulla_envelope::audit::{
        Checkpoint, CheckpointError, Entry, Export, NoteError, ParseKeyError, Proof, ProofError, Proven,
        PublicKey, SigningKey, StoreLogMark, Verified, VerifyError,
    };
}
/// The key side, as an embedder needs it: what a provider implements, how keys are named, what a runtime gives.
pub mod kek {
    pub use bulla_kek::{
        BoxFuture, DenyReason, Exposure, Identity, InvalidKeyId, KekError, KekErrorKind, KekProvider,
        KeyDescription, KeyId, KeyKind, KeyUri, LeaseState, Now, Protection, Providers, Runtime, Scheme,
        SystemRandom, TokioRuntime, WrapAlgorithm, WrappedKey, async_trait,
    };
}

pub use self::audit::{AuditLog, AuditMode};
pub use self::blob::{Blob, BlobInfo};
pub use self::bucket::{Bucket, StoreUrl};
pub use self::count::Count;
pub use self::create::{CreateOptions, OpenOptions, Trust};
pub use self::engine::{Engine, EngineBuilder};
pub use self::error::{Error, ErrorKind, Result};
#[cfg(feature = "metrics")]
pub use self::events::describe_metrics;
pub use self::events::{Action, Event, EventSink, Outcome, SweepCount};
pub use self::gate::{FollowedVersions, KeyFailure, KeyReport, KeyState, KeyStateWatch};
pub use self::gc::{GcOptions, GcProgress, GcReport, Tally};
pub use self::list::BlobEntry;
pub use self::log::RecordMark;
pub use self::log_claims::{ClaimedKek, LogClaims};
#[cfg(feature = "locked-memory")]
pub use self::memory::{HeldSecrets, held_secrets, lock_secrets};
pub use self::meta::{Meta, MetaEntry, MetaPage, MetaVersion, MetaWrite};
pub use self::party::{Party, PartyKey};
pub use self::rewrap::Rewrap;
pub use self::rotate::{RotateOptions, Rotation};
pub use self::session::{Session, SessionEntry, SessionOptions};
pub use self::shred::Shredded;
pub use self::status::{PartyStatus, Status};
pub use self::store::Store;
pub use self::sweep::{SweepEvent, SweepOptions, SweepPhase, SweepProgress};
pub use self::upload::{PutOptions, PutResult, Upload};
pub use self::verify::{Damage, VerifyEvent, VerifyOptions, VerifyProgress, VerifyReport};
