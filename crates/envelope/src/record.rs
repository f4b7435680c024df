//! The log: `store/00000001.cbor …`, one record per change, each holding the store's *whole* state.
//!
//! ```text
//! object = [1, body: bstr, mac: bstr]                              deterministic CBOR
//! mac    = HMAC-SHA-512(record key, label ‖ body)                  64 bytes
//!        | HMAC(old root's key, …) ‖ HMAC(new root's key, …)       128 bytes, while a root is pending
//! ```
//!
//! Only the newest record counts; `history` names every earlier one by its hash, so that a reader who remembers
//! one of them notices a log that went back or forked. FORMAT.md §8.
//!
//! This module refuses to know how the log is read from a bucket, and which changes are allowed.

mod check;
mod codec;
mod signed;

use crate::envelope::Wrap;
use crate::ids::{RootId, StoreId, StoreKeyId};

pub use self::signed::{
    MacMismatch, SignedRecord, UnverifiedRecord, log_key, object_hash, parse_log_key, stub,
};

/// The largest record number, which its eight digits in [`log_key`] can show.
pub const MAX_RECORD_NUMBER: u64 = 99_999_999;
/// KEKs in one record.
pub const MAX_KEKS: usize = 128;
/// Roots in one record.
pub const MAX_ROOTS: usize = 16;
/// Groups of wraps of one root.
pub const MAX_GROUPS: usize = 16;
/// Wraps in one group: how many parties share a root.
pub const MAX_GROUP_MEMBERS: usize = 8;
/// Parties beside the first.
pub const MAX_OTHER_PARTIES: usize = MAX_GROUP_MEMBERS - 1;
/// Store keys in one record.
pub const MAX_STORE_KEYS: usize = 128;

/// The state of a store after one change: the body of a log record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// 1 for the first record, then one more each time.
    pub number: u64,
    /// [`object_hash`] of every earlier record, in order: `number - 1` of them.
    pub history: Vec<[u8; 32]>,
    /// The store, the same in every record.
    pub store: StoreId,
    /// What wraps DEKs.
    pub mode: Mode,
    /// R: how long unwrapped secrets may be used after the KEK last unwrapped the root, in ms.
    pub revocation_bound_ms: u64,
    /// As whom the KEK is used: `system` or an id of the provider's. Of several parties, the first's.
    pub identity: String,
    /// The KEK as it was configured; without a version a rotation goes to the newest. Of several parties, the first's.
    pub key_id: String,
    /// Every KEK version that may wrap anything in this store.
    pub keks: Vec<KekEntry>,
    /// The active root, and others while reroot is under way.
    pub roots: Vec<RootEntry>,
    /// The active store key, and others while envelopes still need them.
    pub store_keys: Vec<StoreKeyEntry>,
    /// When the store was made, in ms since 1970-01-01 UTC.
    pub created: u64,
    /// When the KEK was last rotated, in ms since 1970-01-01 UTC.
    pub rotated: Option<u64>,
    /// Whose the KEK is.
    pub managed: Managed,
    /// When this record was written, in ms since 1970-01-01 UTC by its writer's clock.
    pub written: u64,
    /// Whoever else holds a share of the root, in the order of a group's members after the first.
    pub other_parties: Vec<PartyEntry>,
}

/// A party beside the first: its KEK is needed as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartyEntry {
    /// As whom its KEK is used: `system` or an id of its provider's.
    pub identity: String,
    /// Its KEK as it was configured, with a version or without.
    pub key_id: String,
}

/// What wraps DEKs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mode {
    /// The active store key: KEK rotation touches the log only.
    Hierarchical,
    /// The KEK itself: it sees every blob.
    Direct,
}

/// Whose the KEK is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Managed {
    /// The service's own, made with the store.
    Service,
    /// The customer's.
    Customer,
}

/// A version of a KEK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KekEntry {
    /// The provider's versioned key id.
    pub kid: String,
    /// The algorithm it wraps with.
    pub alg: String,
    /// Whether new wraps are made under it.
    pub state: KekState,
    /// Since when it is in this state, in ms since 1970-01-01 UTC.
    pub since: u64,
}

/// Whether new wraps are made under a KEK.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KekState {
    /// Yes.
    Active,
    /// No: what it wrapped is being wrapped again under an active one.
    Retiring,
}

/// A root and who can unwrap it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootEntry {
    /// Its id, part of object keys.
    pub id: RootId,
    /// Which role it has.
    pub state: RootState,
    /// Any group opens; every member of it is needed. The value of a group's only member is the root, wrapped;
    /// the values of several are wrapped shares, whose XOR is the root, one for each party in their order. Empty for a
    /// retiring root.
    pub groups: Vec<Vec<Wrap>>,
    /// A retiring root, wrapped (AES-KW) under a key derived from the active one; absent for the others.
    pub parent: Option<[u8; 40]>,
}

/// Which role a root has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RootState {
    /// Signs the log and seals what is new.
    Active,
    /// Opens what was not sealed again yet.
    Retiring,
    /// Will be active in a later record: named, and signing, for the first time.
    Pending,
}

/// A store key, wrapped under a key derived from a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreKeyEntry {
    /// Its id.
    pub id: StoreKeyId,
    /// Whether it wraps and unwraps.
    pub state: StoreKeyState,
    /// The root that wraps it.
    pub root: RootId,
    /// The store key, wrapped (AES-KW).
    pub value: [u8; 40],
    /// Since when it is in this state, in ms since 1970-01-01 UTC.
    pub since: u64,
}

/// Whether a store key wraps and unwraps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreKeyState {
    /// Wraps and unwraps.
    Active,
    /// Unwraps, until every DEK is wrapped under the active one.
    Retiring,
    /// Nothing is wrapped under it any more; kept for a grace period, then removed.
    Retired,
}
