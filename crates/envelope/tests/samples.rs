//! A store with fixed keys, from which vectors and tests take their records.

use bulla_envelope::cobblestone;
use bulla_envelope::context::extent_context;
use bulla_envelope::crypto::CryptoProvider;
use bulla_envelope::digest::{Algorithm, Digest};
use bulla_envelope::envelope::{BlobRecord, Envelope, EnvelopeHeader, Extent, Wrap};
use bulla_envelope::ids::{BlobId, ExtentName, RootId, StoreId, StoreKeyId};
use bulla_envelope::record::{
    KekEntry, KekState, LogRecord, Managed, Mode, PartyEntry, RootEntry, RootState, StoreKeyEntry,
    StoreKeyState,
};
use bulla_envelope::secret::{Dek, Root, StoreKey};

/// 2026-01-02T03:04:05.006Z.
pub(crate) const CREATED: u64 = 1_767_323_045_006;

pub(crate) const KEK_1: &str =
    "https://bulla-example.vault.azure.net/keys/layers/0123456789abcdef0123456789abcdef";
pub(crate) const KEK_2: &str =
    "https://bulla-example.vault.azure.net/keys/layers/fedcba9876543210fedcba9876543210";
pub(crate) const KEK_PARTNER: &str = "pkcs11:token=partner;object=escrow;id=%01";

/// `first`, `first + 1`, …
pub(crate) fn bytes<const N: usize>(first: u8) -> [u8; N] {
    let mut next = first;
    [(); N].map(|()| {
        let byte = next;
        next = next.wrapping_add(1);
        byte
    })
}

/// The bytes that sample blobs consist of: byte i is i mod 251.
pub(crate) fn plaintext(len: usize) -> Vec<u8> {
    (0_u8..251).cycle().take(len).collect()
}

pub(crate) fn root() -> Root {
    Root::from_slice(&bytes::<32>(0x00)).unwrap()
}

pub(crate) fn new_root() -> Root {
    Root::from_slice(&bytes::<32>(0x20)).unwrap()
}

pub(crate) fn store_key() -> StoreKey {
    StoreKey::from_slice(&bytes::<32>(0x40)).unwrap()
}

pub(crate) fn dek() -> Dek {
    Dek::from_slice(&bytes::<32>(0x60)).unwrap()
}

pub(crate) fn store_id() -> StoreId {
    StoreId::from_bytes(bytes(0x80))
}

pub(crate) fn root_id() -> RootId {
    RootId::from_bytes(bytes(0x90))
}

pub(crate) fn new_root_id() -> RootId {
    RootId::from_bytes(bytes(0xa0))
}

pub(crate) fn store_key_id() -> StoreKeyId {
    StoreKeyId::from_bytes(bytes(0xb0))
}

pub(crate) fn new_store_key_id() -> StoreKeyId {
    StoreKeyId::from_bytes(bytes(0xc0))
}

pub(crate) fn header() -> EnvelopeHeader {
    EnvelopeHeader { store: store_id(), root: root_id() }
}

/// The DEK under the store key.
pub(crate) fn wraps() -> Vec<Wrap> {
    vec![Wrap::under_store_key(&store_key_id(), store_key().wrap_key(dek().expose()))]
}

/// The salt of an envelope's sealed part.
pub(crate) fn salt() -> [u8; 24] {
    bytes(0xe0)
}

/// A blob of `plaintext`, inline.
pub(crate) fn inline_record(algorithm: Algorithm, plaintext: &[u8]) -> BlobRecord {
    BlobRecord {
        digest: Digest::of(algorithm, plaintext),
        size: u64::try_from(plaintext.len()).unwrap(),
        blob: BlobId::from_bytes(bytes(0xd0)),
        extents: Vec::new(),
        inline: Some(plaintext.to_vec()),
        created: CREATED,
        dek_root: root_id(),
        expires: None,
        there_since: None,
    }
}

/// A blob in extents of these lengths, and the extents' messages.
pub(crate) fn extents_record(crypto: &'static CryptoProvider, lens: &[usize]) -> (BlobRecord, Vec<Vec<u8>>) {
    let whole = plaintext(lens.iter().sum());
    let mut record = BlobRecord { inline: None, ..inline_record(Algorithm::Sha256, &whole) };
    let context = extent_context(&store_id(), &record.blob);
    let mut rest = whole.as_slice();
    let mut messages = Vec::new();
    for (number, len) in (1_u8..).zip(lens) {
        let (part, after) = rest.split_at(*len);
        rest = after;
        let message = cobblestone::seal(crypto, dek().expose(), &context, [number; 24], part);
        record.extents.push(Extent {
            name: ExtentName::from_bytes([0x10 + number; 16]),
            len: u64::try_from(*len).unwrap(),
            header: cobblestone::Header::from_bytes(&message[..56]).unwrap(),
        });
        messages.push(message);
    }
    (record, messages)
}

pub(crate) fn seal(crypto: &'static CryptoProvider, record: &BlobRecord) -> Envelope {
    Envelope::seal(crypto, &root().envelope_key(), header(), wraps(), &dek(), record, salt()).unwrap()
}

pub(crate) fn open(envelope: &Envelope, requested: &Digest) -> BlobRecord {
    let crypto = CryptoProvider::rust_crypto();
    envelope.open(crypto, &root().envelope_key(), &dek(), requested).unwrap()
}

/// What stands for a root wrapped with RSA-OAEP, which is different every time.
pub(crate) fn rsa_value(first: u8) -> Vec<u8> {
    bytes::<256>(first).to_vec()
}

pub(crate) fn wrap(kid: &str, first: u8) -> Wrap {
    Wrap { kid: kid.to_owned(), alg: "RSA-OAEP-256".to_owned(), value: rsa_value(first) }
}

pub(crate) fn kek(kid: &str, state: KekState) -> KekEntry {
    KekEntry { kid: kid.to_owned(), alg: "RSA-OAEP-256".to_owned(), state, since: CREATED }
}

pub(crate) fn active_root(groups: Vec<Vec<Wrap>>) -> RootEntry {
    RootEntry { id: root_id(), state: RootState::Active, groups, parent: None }
}

pub(crate) fn active_store_key() -> StoreKeyEntry {
    StoreKeyEntry {
        id: store_key_id(),
        state: StoreKeyState::Active,
        root: root_id(),
        value: root().store_key_wrapping_key().wrap_key(store_key().expose()),
        since: CREATED,
    }
}

/// The first record of a store in hierarchical mode.
pub(crate) fn first_record() -> LogRecord {
    LogRecord {
        number: 1,
        history: Vec::new(),
        store: store_id(),
        mode: Mode::Hierarchical,
        revocation_bound_ms: 60_000,
        identity: "system".to_owned(),
        key_id: "https://bulla-example.vault.azure.net/keys/layers".to_owned(),
        keks: vec![kek(KEK_1, KekState::Active)],
        roots: vec![active_root(vec![vec![wrap(KEK_1, 1)]])],
        store_keys: vec![active_store_key()],
        created: CREATED,
        rotated: None,
        managed: Managed::Customer,
        written: CREATED,
        other_parties: Vec::new(),
    }
}

/// The record while the KEK is replaced: either of two groups opens the root.
pub(crate) fn rotating_record() -> LogRecord {
    LogRecord {
        number: 2,
        history: vec![first_record().sign(&root().record_key()).unwrap().hash()],
        keks: vec![kek(KEK_1, KekState::Retiring), kek(KEK_2, KekState::Active)],
        roots: vec![active_root(vec![vec![wrap(KEK_1, 1)], vec![wrap(KEK_2, 2)]])],
        rotated: Some(CREATED + 1000),
        written: CREATED + 1000,
        ..first_record()
    }
}

/// A store whose root two parties share.
pub(crate) fn two_party_record() -> LogRecord {
    LogRecord {
        keks: vec![kek(KEK_1, KekState::Active), kek(KEK_PARTNER, KekState::Active)],
        roots: vec![active_root(vec![vec![wrap(KEK_1, 3), wrap(KEK_PARTNER, 4)]])],
        other_parties: vec![PartyEntry {
            identity: "escrow".to_owned(),
            key_id: "pkcs11:token=partner;object=escrow".to_owned(),
        }],
        ..first_record()
    }
}

/// The record while a second party is brought in: the first alone still opens the root.
pub(crate) fn joining_record() -> LogRecord {
    LogRecord {
        number: 2,
        history: vec![first_record().sign(&root().record_key()).unwrap().hash()],
        roots: vec![active_root(vec![vec![wrap(KEK_1, 1)], vec![wrap(KEK_1, 3), wrap(KEK_PARTNER, 4)]])],
        written: CREATED + 1000,
        ..two_party_record()
    }
}

/// The record that names a new root for the first time.
pub(crate) fn pending_record() -> LogRecord {
    let pending = RootEntry {
        id: new_root_id(),
        state: RootState::Pending,
        groups: vec![vec![wrap(KEK_1, 5)]],
        parent: None,
    };
    let mut record = LogRecord {
        number: 2,
        history: vec![first_record().sign(&root().record_key()).unwrap().hash()],
        written: CREATED + 2000,
        ..first_record()
    };
    record.roots.push(pending);
    record
}

/// The record after that: the new root is active and wraps the old one, and each has a store key.
pub(crate) fn retiring_record() -> LogRecord {
    let pending = pending_record().sign_pending(&root().record_key(), &new_root().record_key()).unwrap();
    let mut record = pending_record();
    record.number = 3;
    record.history.push(pending.hash());
    record.roots = vec![
        RootEntry {
            id: root_id(),
            state: RootState::Retiring,
            groups: Vec::new(),
            parent: Some(new_root().retired_root_wrapping_key().wrap_key(root().expose())),
        },
        RootEntry { id: new_root_id(), state: RootState::Active, ..record.roots[1].clone() },
    ];
    record.store_keys[0].state = StoreKeyState::Retiring;
    record.store_keys.push(StoreKeyEntry {
        id: new_store_key_id(),
        state: StoreKeyState::Active,
        root: new_root_id(),
        value: new_root().store_key_wrapping_key().wrap_key(&bytes(0x50)),
        since: CREATED + 3000,
    });
    record.written = CREATED + 3000;
    record
}

/// A store whose DEKs the KEK wraps itself, under the service's own key.
pub(crate) fn direct_record() -> LogRecord {
    LogRecord {
        mode: Mode::Direct,
        managed: Managed::Service,
        identity: "registry réplica 7".to_owned(),
        ..first_record()
    }
}
