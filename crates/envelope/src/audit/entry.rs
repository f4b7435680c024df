//! One entry: what was done, by whom, with which key version, and how it ended.
//!
//! ```text
//! [1, first: time, last: time, count, node, action, outcome, reason|null, identity|null, [key id…],
//!  store key id|null, [number, hash]|null, [seen, left, failed]|null, latency: µs]
//! ```
//!
//! Its bytes are a leaf of the tree. There is no place in it for a secret: ids, words, times and counts only.

#![deny(clippy::indexing_slicing)]

use crate::cbor::{DecodeError, InvalidRecord, Reader, Writer, require, require_canonical};
use crate::envelope::{MAX_KID_LEN, MAX_TIME, check_text};
use crate::ids::StoreKeyId;

use super::StoreLogMark;

/// Characters in a node's name, and in a reason.
const MAX_WORD_LEN: usize = 64;
/// As many as a group has members.
const MAX_KEYS: usize = 8;
/// Elements of an entry.
const ELEMENTS: u64 = 14;

/// One entry of an audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When it happened: ms since 1970-01-01 UTC. Of several alike, the first.
    pub first: u64,
    /// Of several alike, the last; else the same.
    pub last: u64,
    /// How many alike there were, at least 1.
    pub count: u64,
    /// The node that it happened on: 1 to 64 printable characters.
    pub node: String,
    /// What was done.
    pub action: Action,
    /// How it ended.
    pub outcome: Outcome,
    /// Why the provider said no, in one word.
    pub reason: Option<String>,
    /// As whom a provider was asked.
    pub identity: Option<String>,
    /// Which KEKs, with their versions where they are known; at most 8.
    pub keys: Vec<String>,
    /// Which store key.
    pub store_key: Option<StoreKeyId>,
    /// The store's newest log record at that time.
    pub log: Option<StoreLogMark>,
    /// What a sweep counted.
    pub swept: Option<SweepCount>,
    /// How long it took, in µs. Of several alike, the longest.
    pub latency_us: u64,
}

/// What a sweep found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "a count has these parts")]
pub struct SweepCount {
    /// Envelopes and upload sessions that were looked at.
    pub seen: u64,
    /// How many of them are under the old key.
    pub left: u64,
    /// How many did not open, so that nobody can say what they are under.
    pub failed: u64,
}

/// An enumeration in the format: its values are the positions in the list, its words are for logs, metrics and JSON.
macro_rules! codes {
    ($(#[$doc:meta])* $name:ident, $what:literal: $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// A stable word for logs, metrics and JSON.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }

            fn code(self) -> u64 {
                let code = Self::ALL.iter().zip(0_u64..).find(|(known, _)| **known == self);
                code.expect("ALL has every variant").1
            }

            fn read(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
                let code = usize::try_from(input.uint($what)?).ok();
                code.and_then(|code| Self::ALL.get(code)).copied().ok_or(DecodeError::Malformed($what))
            }
        }
    };
}

codes! {
    /// What was done, or was about to be.
    Action, "the action":
    /// A provider was asked what a key is.
    Describe = "describe",
    /// A provider was asked to wrap a secret.
    Wrap = "wrap",
    /// A provider was asked to unwrap one.
    Unwrap = "unwrap",
    /// A store was made.
    Create = "create",
    /// A store was opened.
    Open = "open",
    /// The lease was renewed: the root unwrapped anew, or not.
    Renew = "renew",
    /// The key's owner has taken the key away: everything unwrapped was wiped.
    Deny = "deny",
    /// The key's owner has given the key back.
    Restore = "restore",
    /// A request was refused because of what a provider last said, or did not say.
    Refuse = "refuse",
    /// A rotation wrote the record under which both the old and the new key open the store.
    RotateBegin = "rotate_begin",
    /// A rotation wrote the record that leaves the new key alone.
    RotateEnd = "rotate_end",
    /// A new store key, or in direct mode a new KEK version, was brought in: the sweep begins.
    SweepBegin = "sweep_begin",
    /// A sweep counted what is left under the old key.
    SweepEnd = "sweep_end",
    /// A key that nothing is under any more was retired.
    Retire = "retire",
    /// The last wrap of a retired key was destroyed.
    Shred = "shred",
    /// The audit log was begun.
    AuditBegin = "audit_begin",
    /// Entries were dropped, as many as `count` says: there was no room for them while nothing could be sealed.
    AuditLost = "audit_lost",
}

codes! {
    /// How it ended.
    Outcome, "the outcome":
    /// As asked.
    Done = "done",
    /// The provider said no.
    Denied = "denied",
    /// No answer, or no useful one.
    Unavailable = "unavailable",
    /// Too many requests.
    Throttled = "throttled",
    /// The call or its data was wrong: an unfit key, a damaged wrap.
    Invalid = "invalid",
    /// Somebody else was first.
    Conflict = "conflict",
    /// There is no such store.
    NotFound = "not_found",
    /// What is stored does not check out: altered, rolled back, forged.
    Corrupt = "corrupt",
    /// A bug.
    Internal = "internal",
}

impl Entry {
    /// The entry's bytes: a leaf of the tree. FORMAT-T2.
    ///
    /// # Errors
    ///
    /// [`InvalidRecord`] if the entry breaks a rule of the format.
    pub fn encode(&self) -> Result<Vec<u8>, InvalidRecord> {
        self.check()?;
        Ok(self.write())
    }

    /// Reads an entry.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for anything but the deterministic encoding of an entry of this version.
    pub fn decode(leaf: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(leaf)?;
        if input.versioned_array()? != ELEMENTS {
            return Err(DecodeError::Malformed("the entry's array"));
        }
        let entry = Self {
            first: input.uint("the first time")?,
            last: input.uint("the last time")?,
            count: input.uint("the count")?,
            node: input.text("the node")?.to_owned(),
            action: Action::read(&mut input)?,
            outcome: Outcome::read(&mut input)?,
            reason: input.nullable(|input| Ok(input.text("the reason")?.to_owned()))?,
            identity: input.nullable(|input| Ok(input.text("the identity")?.to_owned()))?,
            keys: input.list(1, MAX_KEYS, "the keys", |input| Ok(input.text("a key id")?.to_owned()))?,
            store_key: input
                .nullable(|input| Ok(StoreKeyId::from_bytes(input.fixed("the store key id")?)))?,
            log: input.nullable(|input| {
                input.exact_array(2, "the log record")?;
                Ok(StoreLogMark { number: input.uint("its number")?, hash: input.fixed("its hash")? })
            })?,
            swept: input.nullable(|input| {
                input.exact_array(3, "the count of a sweep")?;
                Ok(SweepCount {
                    seen: input.uint("what was seen")?,
                    left: input.uint("what is left")?,
                    failed: input.uint("what failed")?,
                })
            })?,
            latency_us: input.uint("the latency")?,
        };
        input.finish()?;
        entry.check()?;
        require_canonical(leaf, &entry.write())?;
        Ok(entry)
    }

    fn write(&self) -> Vec<u8> {
        let mut out = Writer::new(256);
        out.array(14).uint(crate::cbor::VERSION);
        out.uint(self.first).uint(self.last).uint(self.count).text(&self.node);
        out.uint(self.action.code()).uint(self.outcome.code());
        for word in [&self.reason, &self.identity] {
            match word {
                Some(word) => out.text(word),
                None => out.null(),
            };
        }
        out.array(self.keys.len());
        for key in &self.keys {
            out.text(key);
        }
        match &self.store_key {
            Some(id) => out.bytes(id.as_bytes()),
            None => out.null(),
        };
        match &self.log {
            Some(log) => out.array(2).uint(log.number).bytes(&log.hash),
            None => out.null(),
        };
        match &self.swept {
            Some(swept) => out.array(3).uint(swept.seen).uint(swept.left).uint(swept.failed),
            None => out.null(),
        };
        out.uint(self.latency_us);
        out.finish()
    }

    fn check(&self) -> Result<(), InvalidRecord> {
        require(
            self.first <= self.last && self.last <= MAX_TIME,
            "times are in order and before the year 10000",
        )?;
        require(self.count >= 1, "an entry is of one event at least")?;
        check_text(&self.node, MAX_WORD_LEN, "a node's name is 1 to 64 printable characters")?;
        if let Some(reason) = &self.reason {
            check_text(reason, MAX_WORD_LEN, "a reason is 1 to 64 printable characters")?;
        }
        if let Some(identity) = &self.identity {
            check_text(identity, MAX_KID_LEN, "an identity is 1 to 512 printable characters")?;
        }
        require(self.keys.len() <= MAX_KEYS, "an entry names at most 8 keys")?;
        self.keys.iter().try_for_each(|key| {
            check_text(key, MAX_KID_LEN, "a key id is 1 to 512 printable ASCII characters")
        })
    }
}
