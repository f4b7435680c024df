//! Exports of an audit log and proofs of single entries: texts that are believed with a public key alone.
#![allow(
    clippy::unwrap_in_result,
    reason = "only what the vector may fail at is an error; the rest is a broken vector"
)]

use bulla_envelope::audit::{Export, Proof, PublicKey};
use serde_json::{Value, json};

use super::json::text;
use super::run::{Failure, at};
use crate::audit_export::{export, key};
use crate::cbor_value::Cbor;

pub(super) fn passing() -> Vec<(&'static str, Value)> {
    let (nine, _) = export(9);
    let proof = |index| Proof::of(&nine, index).unwrap().encode();
    vec![
        ("audit_export", export_vector("nine entries", &nine.encode())),
        ("audit_export_of_one_entry", export_vector("the tree is a leaf", &export(1).0.encode())),
        ("audit_proof", proof_vector("the fifth of nine entries", &proof(4))),
        (
            "audit_proof_of_the_last_entry",
            proof_vector("whose only sibling is the rest of the tree", &proof(8)),
        ),
        (
            "audit_proof_in_a_log_of_one_entry",
            proof_vector("no hashes", &Proof::of(&export(1).0, 0).unwrap().encode()),
        ),
    ]
}

// FORMAT-T5, FORMAT-T6, FORMAT-T7
pub(super) fn failing() -> Vec<(&'static str, &'static str, Value)> {
    let export_text = export(9).0.encode();
    let swapped = {
        let mut lines: Vec<&str> = export_text.split('\n').collect();
        lines.swap(2, 3);
        lines.join("\n")
    };
    let removed = {
        let mut lines: Vec<&str> = export_text.split('\n').collect();
        lines.remove(3);
        lines.join("\n")
    };
    let proof = Proof::of(&export(9).0, 4).unwrap().encode();
    let short = {
        let mut lines: Vec<&str> = proof.split('\n').collect();
        lines.remove(4);
        lines.join("\n")
    };
    let changed = |from: &str, to: &str| proof.replacen(from, to, 1);
    vec![
        ("audit_export_without_title", "decode", export_vector("no title", &export_text[4..])),
        ("audit_export_entries_swapped", "verify", export_vector("entries changed places", &swapped)),
        ("audit_export_entry_removed", "verify", export_vector("an entry is missing", &removed)),
        (
            "audit_export_size_changed",
            "verify",
            export_vector("the count is made to fit", &removed.replacen("\n9\n", "\n8\n", 1)),
        ),
        (
            "audit_proof_index_with_a_zero",
            "decode",
            proof_vector("two spellings", &changed("index 4", "index 04")),
        ),
        (
            "audit_proof_at_another_index",
            "verify",
            proof_vector("another place", &changed("index 4", "index 5")),
        ),
        ("audit_proof_past_the_end", "verify", proof_vector("no such place", &changed("index 4", "index 9"))),
        ("audit_proof_too_short", "verify", proof_vector("a hash is missing", &short)),
    ]
}

fn export_vector(about: &str, export: &str) -> Value {
    let mut vector = json!({
        "about": about,
        "kind": "audit export",
        "public_key": key(1).public_key().to_string(),
        "text": export,
    });
    if let Ok(verified) = Export::decode(export).and_then(|export| export.verify(&key(1).public_key(), None))
    {
        let entries = verified.entries.iter().map(|entry| notation(&entry.encode().unwrap()));
        vector["entries"] = entries.collect();
    }
    vector
}

fn proof_vector(about: &str, proof: &str) -> Value {
    let mut vector = json!({
        "about": about,
        "kind": "audit proof",
        "public_key": key(1).public_key().to_string(),
        "text": proof,
    });
    if let Ok(proven) = Proof::decode(proof).and_then(|proof| proof.verify(&key(1).public_key())) {
        vector["index"] = proven.index.into();
        vector["entry"] = notation(&proven.entry.encode().unwrap()).into();
    }
    vector
}

fn notation(entry: &[u8]) -> String {
    Cbor::decode(entry).notation()
}

pub(super) fn run(vector: &Value) -> Result<(), Failure> {
    let (key, given) = (text(&vector["public_key"]).parse::<PublicKey>().unwrap(), text(&vector["text"]));
    if text(&vector["kind"]) == "audit proof" {
        let proof = Proof::decode(given).map_err(at("decode"))?;
        assert_eq!(proof.encode(), given);
        let proven = proof.verify(&key).map_err(at("verify"))?;
        assert_eq!(Some(proven.index), vector["index"].as_u64());
        assert_eq!(notation(&proven.entry.encode().unwrap()), text(&vector["entry"]));
        return Ok(());
    }
    let export = Export::decode(given).map_err(at("decode"))?;
    assert_eq!(export.encode(), given);
    let verified = export.verify(&key, None).map_err(at("verify"))?;
    let entries = verified.entries.iter().map(|entry| Value::from(notation(&entry.encode().unwrap())));
    assert_eq!(entries.collect::<Vec<_>>(), *vector["entries"].as_array().unwrap());
    Ok(())
}
