//! The scenarios that a reader refuses, each at the step it says: `decode`, `unwrap`, `open`, `verify` or `name`.

mod envelopes;
mod records;

use bulla_envelope::crypto::CryptoProvider;
use bulla_envelope::digest::{Algorithm, Digest};
use bulla_envelope::ids::RootId;
use serde_json::{Value, json};

use super::json::hex;
use super::{Vectors, exports, passing, run, sealed};
use crate::samples;

/// Name, step, and the vector without either.
type Failing = (&'static str, &'static str, Value);

pub(super) fn all() -> Vectors {
    let vectors =
        [envelopes::all(), records::all(), names(), anchors(), sealed::failing(), exports::failing()];
    vectors
        .into_iter()
        .flatten()
        .map(|(name, step, vector)| (name.to_owned(), failing(step, vector)))
        .collect()
}

/// The vector with the step at which it fails, and the error.
fn failing(step: &str, mut vector: Value) -> Value {
    let (_, error) = run::run(CryptoProvider::rust_crypto(), &vector).expect_err("a failing vector fails");
    vector["fails"] = step.into();
    vector["error"] = error.into();
    vector
}

// FORMAT-N1, FORMAT-N3
fn names() -> Vec<Failing> {
    let sealed = samples::root().name_key("repository").seal_name("repository", "meta/r", b"library/busybox");
    let name = |about: &str, kind: &str, parent: &str, component: &str| {
        json!({
            "about": about,
            "kind": "name",
            "root": hex(samples::root().expose()),
            "name_kind": kind,
            "parent": parent,
            "name": hex(b"library/busybox"),
            "hashed": false,
            "component": component,
        })
    };
    let digest = Digest::of(Algorithm::Sha256, &samples::plaintext(100));
    let blob_key = |about: &str, replace: &dyn Fn(&str) -> String| {
        let mut vector = passing::blob_key(about, samples::root_id(), &digest);
        vector["key"] = replace(vector["key"].as_str().unwrap()).into();
        vector
    };
    let other_root = RootId::from_bytes([0; 16]);
    vec![
        (
            "name_moved_to_another_parent",
            "name",
            name("under another parent", "repository", "meta/s", &sealed),
        ),
        ("name_of_another_kind", "name", name("asked for as a tag", "tag", "meta/r", &sealed)),
        (
            "name_upper_case",
            "name",
            name("not the canonical base32", "repository", "meta/r", &sealed.to_uppercase()),
        ),
        ("name_truncated", "name", name("cut short", "repository", "meta/r", &sealed[..24])),
        ("name_too_short_for_its_siv", "name", name("less than 16 bytes", "repository", "meta/r", "aa")),
        (
            "blob_key_in_another_directory",
            "name",
            blob_key("`ab` is not the first byte", &|key| {
                let mut parts: Vec<&str> = key.split('/').collect();
                parts[2] = if parts[2] == "00" { "01" } else { "00" };
                parts.join("/")
            }),
        ),
        (
            "blob_key_under_another_root_id",
            "name",
            blob_key("moved to another root's directory", &|key| {
                key.replace(&samples::root_id().to_string(), &other_root.to_string())
            }),
        ),
        ("blob_key_with_a_suffix", "name", blob_key("something follows", &|key| format!("{key}.tmp"))),
    ]
}

// FORMAT-A1
fn anchors() -> Vec<Failing> {
    let anchor = samples::root().anchor().to_string();
    let (prefix, base32) = anchor.split_once(':').unwrap();
    vec![
        ("anchor_upper_case", "decode", passing::anchor("base32 is lower-case", &anchor.to_uppercase())),
        ("anchor_without_prefix", "decode", passing::anchor("the prefix is missing", base32)),
        (
            "anchor_of_another_version",
            "decode",
            passing::anchor("the prefix has a version", &format!("bulla-anchor-v2:{base32}")),
        ),
        (
            "anchor_truncated",
            "decode",
            passing::anchor("a character is missing", &format!("{prefix}:{}", &base32[..51])),
        ),
        ("anchor_with_a_space", "decode", passing::anchor("a space follows", &format!("{anchor} "))),
    ]
}
