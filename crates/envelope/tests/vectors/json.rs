//! Records as JSON, in the words of FORMAT.md, so that foreign code can build the same bytes from them.

use bulla_envelope::envelope::{BlobRecord, Wrap};
use bulla_envelope::record::{KekState, LogRecord, Managed, Mode, RootState, StoreKeyState};
use data_encoding::HEXLOWER;
use serde_json::{Value, json};

pub(super) fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

pub(super) fn unhex(value: &Value) -> Vec<u8> {
    HEXLOWER.decode(text(value).as_bytes()).unwrap()
}

pub(super) fn unhex_array<const N: usize>(value: &Value) -> [u8; N] {
    unhex(value).try_into().unwrap()
}

pub(super) fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

pub(super) fn wrap(wrap: &Wrap) -> Value {
    json!({ "kid": wrap.kid, "alg": wrap.alg, "value": hex(&wrap.value) })
}

pub(super) fn blob_record(record: &BlobRecord) -> Value {
    let extents = record.extents.iter().map(|extent| {
        json!({
            "id": hex(extent.name.as_bytes()),
            "length": extent.len,
            "salt": hex(&extent.header.salt),
            "commitment": hex(&extent.header.commitment),
        })
    });
    let mut value = json!({
        "algorithm": record.digest.algorithm().as_str(),
        "digest": hex(record.digest.as_bytes()),
        "size": record.size,
        "blob_id": hex(record.blob.as_bytes()),
        "extents": extents.collect::<Vec<_>>(),
        "created": record.created,
        "dek_root_id": hex(record.dek_root.as_bytes()),
    });
    if let Some(expires) = record.expires {
        value["expires"] = expires.into();
    }
    if let Some(there_since) = record.there_since {
        value["there_since"] = there_since.into();
    }
    if let Some(inline) = &record.inline {
        value["inline"] = hex(inline).into();
    }
    value
}

pub(super) fn log_record(record: &LogRecord) -> Value {
    let keks = record.keks.iter().map(|kek| {
        let state = if kek.state == KekState::Active { 0 } else { 1 };
        json!({ "kid": kek.kid, "alg": kek.alg, "state": state, "since": kek.since })
    });
    let roots = record.roots.iter().map(|root| {
        let state = match root.state {
            RootState::Active => 0,
            RootState::Retiring => 1,
            RootState::Pending => 2,
            other => panic!("no code for {other:?}"),
        };
        let groups = root.groups.iter().map(|group| group.iter().map(wrap).collect::<Vec<_>>());
        json!({
            "id": hex(root.id.as_bytes()),
            "state": state,
            "groups": groups.collect::<Vec<_>>(),
            "parent": root.parent.map(|parent| hex(&parent)),
        })
    });
    let store_keys = record.store_keys.iter().map(|key| {
        let state = match key.state {
            StoreKeyState::Active => 0,
            StoreKeyState::Retiring => 1,
            StoreKeyState::Retired => 2,
            other => panic!("no code for {other:?}"),
        };
        json!({
            "id": hex(key.id.as_bytes()),
            "state": state,
            "root_id": hex(key.root.as_bytes()),
            "value": hex(&key.value),
            "since": key.since,
        })
    });
    let mut value = json!({
        "number": record.number,
        "history": record.history.iter().map(|hash| hex(hash)).collect::<Vec<_>>(),
        "store_id": hex(record.store.as_bytes()),
        "mode": if record.mode == Mode::Hierarchical { 0 } else { 1 },
        "revocation_bound": record.revocation_bound_ms,
        "identity": record.identity,
        "key_id": record.key_id,
        "keks": keks.collect::<Vec<_>>(),
        "roots": roots.collect::<Vec<_>>(),
        "store_keys": store_keys.collect::<Vec<_>>(),
        "created": record.created,
        "managed": if record.managed == Managed::Service { 0 } else { 1 },
        "written": record.written,
    });
    if let Some(rotated) = record.rotated {
        value["rotated"] = rotated.into();
    }
    if !record.other_parties.is_empty() {
        let parties = record.other_parties.iter();
        let parties = parties.map(|party| json!({ "identity": party.identity, "key_id": party.key_id }));
        value["other_parties"] = parties.collect();
    }
    value
}
