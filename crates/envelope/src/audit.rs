//! The audit log: what happened to a store's keys, in an order that can't be changed afterwards. FORMAT.md §17.
//!
//! ```text
//! audit/00000001.cbor ◄─ audit/00000002.cbor ◄─ …        batches, sealed, each with its predecessor's hash
//!        │ entries                │ entries
//!        ▼                        ▼
//!   leaf 0 … leaf k          leaf k+1 …                   a Merkle tree (RFC 6962) over all entries
//!                                  │ root
//!                                  ▼
//!                             checkpoint                  signed by the operator, kept outside the bucket
//! ```
//!
//! The batches' chain shows whoever has the store's root that the log is whole; a checkpoint shows it to everybody else,
//! who needs the entries, the checkpoint and the operator's public key.

mod base64;
mod batch;
mod checkpoint;
mod entry;
mod export;
mod note;
mod proof;
mod tree;

pub use self::batch::{AUDIT_PREFIX, Batch, MAX_BATCH, OpenBatchError, audit_key, parse_audit_key};
pub use self::checkpoint::{Checkpoint, CheckpointError, StoreLogMark};
pub use self::entry::{Action, Entry, Outcome, SweepCount};
pub use self::export::{Export, Verified, VerifyError};
pub use self::note::{NoteError, ParseKeyError, PublicKey, SigningKey};
pub use self::proof::{Proof, ProofError, Proven};
pub use self::tree::root_of;
