//! The body of a log record: a CBOR map with ascending keys.
//!
//! ```text
//! {1: number, 2: [hash…], 3: store id, 4: mode, 5: R in ms, 6: identity, 7: key id,
//!  8: [[kid, alg, state, since]…], 9: [[root id, state, [[[kid, alg, value]…]…], parent|null]…],
//!  10: [[store key id, state, root id, value, since]…], 11: created, ?12: rotated, 13: managed, 14: written,
//!  ?15: [[identity, key id]…]}
//! ```

#![deny(clippy::indexing_slicing)]

use super::{
    KekEntry, KekState, LogRecord, MAX_GROUP_MEMBERS, MAX_GROUPS, MAX_KEKS, MAX_OTHER_PARTIES, MAX_ROOTS,
    MAX_STORE_KEYS, Managed, Mode, PartyEntry, RootEntry, RootState, StoreKeyEntry, StoreKeyState,
};
use crate::cbor::{DecodeError, Reader, Writer, require_canonical};
use crate::envelope::{Wrap, read_wrap, write_wrap};
use crate::ids::{RootId, StoreId, StoreKeyId};

/// An enumeration in the format: its values are the variants' positions in `ALL`.
trait Code: Copy + PartialEq + 'static {
    const ALL: &'static [Self];
    const WHAT: &'static str;

    fn write(self, out: &mut Writer) {
        let code = Self::ALL.iter().zip(0_u64..).find(|(known, _)| **known == self);
        out.uint(code.expect("ALL has every variant").1);
    }

    fn read(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let code = usize::try_from(input.uint(Self::WHAT)?).ok();
        code.and_then(|code| Self::ALL.get(code)).copied().ok_or(DecodeError::Malformed(Self::WHAT))
    }
}

impl Code for Mode {
    const ALL: &'static [Self] = &[Self::Hierarchical, Self::Direct];
    const WHAT: &'static str = "the mode";
}

impl Code for Managed {
    const ALL: &'static [Self] = &[Self::Service, Self::Customer];
    const WHAT: &'static str = "whose the KEK is";
}

impl Code for KekState {
    const ALL: &'static [Self] = &[Self::Active, Self::Retiring];
    const WHAT: &'static str = "a KEK's state";
}

impl Code for RootState {
    const ALL: &'static [Self] = &[Self::Active, Self::Retiring, Self::Pending];
    const WHAT: &'static str = "a root's state";
}

impl Code for StoreKeyState {
    const ALL: &'static [Self] = &[Self::Active, Self::Retiring, Self::Retired];
    const WHAT: &'static str = "a store key's state";
}

impl LogRecord {
    pub(super) fn encode(&self) -> Vec<u8> {
        self.encode_with_capacity(1024 + 34 * self.history.len())
    }

    fn encode_with_capacity(&self, capacity: usize) -> Vec<u8> {
        let mut out = Writer::new(capacity);
        let optional = [self.rotated.is_some(), !self.other_parties.is_empty()];
        out.map(13 + optional.into_iter().filter(|present| *present).count());
        out.uint(1).uint(self.number);
        out.uint(2).array(self.history.len());
        for hash in &self.history {
            out.bytes(hash);
        }
        out.uint(3).bytes(self.store.as_bytes());
        self.mode.write(out.uint(4));
        out.uint(5).uint(self.revocation_bound_ms);
        out.uint(6).text(&self.identity);
        out.uint(7).text(&self.key_id);
        out.uint(8).array(self.keks.len());
        for kek in &self.keks {
            write_kek(&mut out, kek);
        }
        out.uint(9).array(self.roots.len());
        for root in &self.roots {
            write_root(&mut out, root);
        }
        out.uint(10).array(self.store_keys.len());
        for key in &self.store_keys {
            write_store_key(&mut out, key);
        }
        out.uint(11).uint(self.created);
        if let Some(rotated) = self.rotated {
            out.uint(12).uint(rotated);
        }
        self.managed.write(out.uint(13));
        out.uint(14).uint(self.written);
        if !self.other_parties.is_empty() {
            out.uint(15).array(self.other_parties.len());
            for party in &self.other_parties {
                out.array(2).text(&party.identity).text(&party.key_id);
            }
        }
        out.finish()
    }

    pub(super) fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(body)?;
        input.map("the body's map")?;
        input.key(1, "field 1")?;
        let number = input.uint("the number")?;
        input.key(2, "field 2")?;
        let history = input.list(34, usize::MAX, "the history", |input| input.fixed("a hash"))?;
        input.key(3, "field 3")?;
        let store = StoreId::from_bytes(input.fixed("the store id")?);
        input.key(4, "field 4")?;
        let mode = Mode::read(&mut input)?;
        input.key(5, "field 5")?;
        let revocation_bound_ms = input.uint("the revocation bound")?;
        input.key(6, "field 6")?;
        let identity = input.text("the identity")?.to_owned();
        input.key(7, "field 7")?;
        let key_id = input.text("the key id")?.to_owned();
        input.key(8, "field 8")?;
        let keks = input.list(7, MAX_KEKS, "the KEKs", read_kek)?;
        input.key(9, "field 9")?;
        let roots = input.list(21, MAX_ROOTS, "the roots", read_root)?;
        input.key(10, "field 10")?;
        let store_keys = input.list(79, MAX_STORE_KEYS, "the store keys", read_store_key)?;
        input.key(11, "field 11")?;
        let created = input.uint("the creation time")?;
        let rotated = input.optional_key(12).then(|| input.uint("the rotation time")).transpose()?;
        input.key(13, "field 13")?;
        let managed = Managed::read(&mut input)?;
        input.key(14, "field 14")?;
        let written = input.uint("the writing time")?;
        let other_parties = if input.optional_key(15) {
            input.list(5, MAX_OTHER_PARTIES, "the other parties", read_party)?
        } else {
            Vec::new()
        };
        input.finish()?;
        let record = Self {
            number,
            history,
            store,
            mode,
            revocation_bound_ms,
            identity,
            key_id,
            keks,
            roots,
            store_keys,
            created,
            rotated,
            managed,
            written,
            other_parties,
        };
        record.check()?;
        require_canonical(body, &record.encode_with_capacity(body.len()))?;
        Ok(record)
    }
}

fn write_kek(out: &mut Writer, kek: &KekEntry) {
    out.array(4).text(&kek.kid).text(&kek.alg);
    kek.state.write(out);
    out.uint(kek.since);
}

fn read_kek(input: &mut Reader<'_>) -> Result<KekEntry, DecodeError> {
    input.exact_array(4, "a KEK")?;
    Ok(KekEntry {
        kid: input.text("a KEK's kid")?.to_owned(),
        alg: input.text("a KEK's alg")?.to_owned(),
        state: KekState::read(input)?,
        since: input.uint("a KEK's time")?,
    })
}

fn read_party(input: &mut Reader<'_>) -> Result<PartyEntry, DecodeError> {
    input.exact_array(2, "a party")?;
    Ok(PartyEntry {
        identity: input.text("a party's identity")?.to_owned(),
        key_id: input.text("a party's key id")?.to_owned(),
    })
}

fn write_root(out: &mut Writer, root: &RootEntry) {
    out.array(4).bytes(root.id.as_bytes());
    root.state.write(out);
    out.array(root.groups.len());
    for group in &root.groups {
        out.array(group.len());
        for wrap in group {
            write_wrap(out, wrap);
        }
    }
    match &root.parent {
        Some(parent) => out.bytes(parent),
        None => out.null(),
    };
}

fn read_root(input: &mut Reader<'_>) -> Result<RootEntry, DecodeError> {
    input.exact_array(4, "a root")?;
    Ok(RootEntry {
        id: RootId::from_bytes(input.fixed("a root's id")?),
        state: RootState::read(input)?,
        groups: input.list(1, MAX_GROUPS, "a root's groups", |input| {
            input.list(Wrap::MIN_ENCODED_LEN, MAX_GROUP_MEMBERS, "a group's members", read_wrap)
        })?,
        parent: input.nullable(|input| input.fixed("a retiring root"))?,
    })
}

fn write_store_key(out: &mut Writer, key: &StoreKeyEntry) {
    out.array(5).bytes(key.id.as_bytes());
    key.state.write(out);
    out.bytes(key.root.as_bytes()).bytes(&key.value).uint(key.since);
}

fn read_store_key(input: &mut Reader<'_>) -> Result<StoreKeyEntry, DecodeError> {
    input.exact_array(5, "a store key")?;
    Ok(StoreKeyEntry {
        id: StoreKeyId::from_bytes(input.fixed("a store key's id")?),
        state: StoreKeyState::read(input)?,
        root: RootId::from_bytes(input.fixed("a store key's root id")?),
        value: input.fixed("a store key")?,
        since: input.uint("a store key's time")?,
    })
}
