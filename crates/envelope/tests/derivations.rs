//! Known answers, so that a format can't drift. They were computed with Python's `hmac` and `cryptography`, not with this
//! crate: a change here is a change of the format.
//! FORMAT-K1, FORMAT-K2, FORMAT-N1.

use bulla_envelope::cobblestone;
use bulla_envelope::derive::{Anchor, ParseAnchorError};
use bulla_envelope::digest::{Algorithm, Digest};
use bulla_envelope::ids::{ExtentName, RootId};
use bulla_envelope::names::{extent_key, extent_of_key};
use bulla_envelope::secret::{Dek, Root};
use data_encoding::HEXLOWER;

use crate::support::providers;

fn root() -> Root {
    Root::from_slice(&(0..32).collect::<Vec<u8>>()).unwrap()
}

fn dek() -> Dek {
    Dek::from_slice(&(100..132).collect::<Vec<u8>>()).unwrap()
}

#[test]
fn keys() {
    let root = root();
    let derived = [
        root.record_key().expose(),
        root.envelope_key().expose(),
        root.meta_key().expose(),
        root.upload_key().expose(),
        root.audit_key().expose(),
        root.store_key_wrapping_key().expose(),
        root.retired_root_wrapping_key().expose(),
        root.envelope_key().with_dek(&dek()).expose(),
    ]
    .map(|key| HEXLOWER.encode(key));
    let expected = [
        "9f4255dc6d0fb3e17b7bf1c78618981940308d750cb122e4f5cf594c19a1e080",
        "a9739e957fe7f7b8cf1ab87f02484fd0dad010437dedcda39b4ef141646ed1c2",
        "64febde5e2d8c4e1787252e844229e862459323d7498fcc388568f67f64b2cff",
        "6918960785299463cec995768a12e53c1c0846bfd9e9a57b669676e93a95043a",
        "6755ea12f1b8950f5557aadc0e67fcee5f9647bb334d41d9442fb08b6a89174e",
        "95fe88e9e7edee9ad0e2cb334df871416754b09fa2793d156de184eda0171417",
        "53c8d12cfc31ad26dc2c8c1a4ee07855e66118389d9f114e9af275847ad185b3",
        "d2778416c02e67e7f410b27607936ad0f7c04d1d99f7e88a408da0e1b9272fd8",
    ];
    assert_eq!(derived, expected);
    assert_eq!(
        HEXLOWER.encode(root.name_key("blob").expose()),
        "4537d03e661097a279f212980fa8d2bb6114e61c8bcf8c1d517ef2df240843f7\
         c9af2058aee8c13fc53c0ed8745ffbae73713bdccf185faab23c5748f17ec5f8"
    );
    assert_ne!(root.name_key("blob").expose(), root.name_key("repo").expose());
}

#[test]
fn anchor() {
    let text = "bulla-anchor-v1:wqn3seawgpu7gs7janclvtxhnc3xyimths5k72pgdtl7fkgpwhda";
    let anchor = root().anchor();
    assert_eq!(anchor.to_string(), text);
    assert!(text.parse::<Anchor>().unwrap().ct_eq(&anchor));
    assert_eq!(Anchor::from_bytes(*anchor.as_bytes()), anchor);
    assert_eq!(format!("{anchor:?}"), format!("Anchor({text})"));
    assert!(!Root::from_slice(&[0; 32]).unwrap().anchor().ct_eq(&anchor));
    for bad in [
        &text[1..],
        &text[..text.len() - 1],
        &text.to_uppercase(),
        &text.replace("v1", "v2"),
        &format!("{text}a"),
        "",
    ] {
        assert_eq!(bad.parse::<Anchor>(), Err(ParseAnchorError), "{bad}");
    }
}

#[test]
fn mac_of_a_log_record() {
    let key = root().record_key();
    let mac = key.mac(b"body");
    assert_eq!(
        HEXLOWER.encode(&mac),
        "69d2aa60dd63fa74d8be88d8deb8f3ae96e8225755a48944e7259ae5f9a71d50\
         4c5dae33cd4ce624f45fb2a7dfe6c2fd79e252f92c02b7d53fab3a5da8d29866"
    );
    assert!(key.verify(b"body", &mac));
    assert!(!key.verify(b"Body", &mac));
    assert!(!key.verify(b"body", &mac[..63]));
    assert!(!key.verify(b"body", &[]));
    assert!(!Root::from_slice(&[0; 32]).unwrap().record_key().verify(b"body", &mac));
}

#[test]
fn wrapped_store_key() {
    let wrapped = root().store_key_wrapping_key().wrap_key(dek().expose());
    assert_eq!(
        HEXLOWER.encode(&wrapped),
        "dd6b9f72690bfd05a2cf0ecbeb262afbdedc63c23c65b5c5b9518ce5e2fbaf1ef365d9a7ec9f4d3b"
    );
}

#[test]
fn names() {
    let root_id = RootId::from_bytes([7; 16]);
    let key = root().name_key("blob");
    for (algorithm, expected) in [
        (
            Algorithm::Sha256,
            "blobs/a4dqobyha4dqobyha4dqobyha4/72/ojrpml2w2hwguboxvijm7luxthiezeuwq6phqzsli2snor6bp6briwjhsodhy5mt2jgo\
             hfyqzmkqvebtvzywj4i",
        ),
        (
            Algorithm::Sha512,
            "blobs/a4dqobyha4dqobyha4dqobyha4/4e/jymjbt4o7wfdwj5vvxrb6n2gqc6gcivqjfxbluyugjuw3nr3rwyrjnwnt5lawk2k6x4r\
             pwwhyylzlp5fxzoay4dly3s5h5lxuxbq5frunfwcus7qjpwo3ezrqwi2bv2fj5cky4fhhi",
        ),
    ] {
        let digest = Digest::of(algorithm, b"bulla");
        assert_eq!(key.blob_key(&root_id, &digest), expected);
        assert_eq!(key.digest_of_blob_key(&root_id, expected), Ok(digest));
    }
    let short = key.seal_name("repo", "meta/x", b"library/alpine");
    assert_eq!(short, "atyw7b62e76sfuvgrzr6sxyrap74mhnmvt5dltjap6bnqzyn");
    let long = key.seal_name("repo", "meta/x", &[b'n'; 110]);
    assert_eq!(long, "_ujn5komsmzrxpthxnuj4yuttqf5tzliedgjoehjybjhdvhp7z7va");

    let extent = ExtentName::from_bytes([0x7f; 16]);
    assert_eq!(extent_key(&extent), "data/7f/p57x6737p57x6737p57x6737p4");
    assert_eq!(extent_of_key(&extent_key(&extent)), Some(extent));
}

#[test]
fn cobblestone_message() {
    let salt = std::array::from_fn(|index| u8::try_from(index).unwrap());
    for crypto in providers() {
        let message = cobblestone::seal(crypto, root().expose(), b"context", salt, b"bulla");
        assert_eq!(
            HEXLOWER.encode(&message),
            "000102030405060708090a0b0c0d0e0f1011121314151617\
             df742f353aed4b5f935ed5ae3c3ac1765fa08bf416ddc4635a59153ff0b00d89\
             380a28d2be04395db5489e4e61ae6235b0c09b29d2"
        );
    }
}
