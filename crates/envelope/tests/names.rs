//! Sealed names: round trips, binding to kind and place, and what is not a name.
//! FORMAT-N1, FORMAT-N2, FORMAT-N3.

use bulla_envelope::digest::{Algorithm, Digest};
use bulla_envelope::ids::{ExtentName, RootId};
use bulla_envelope::names::{
    BLOB_KIND, MAX_COMPONENT_LEN, NameError, blobs_prefix, extent_key, extent_of_key,
};
use bulla_envelope::secret::{NameKey, Root};
use proptest::prelude::*;

use crate::support::Seeded;

fn key() -> NameKey {
    Root::random(&Seeded::new(1)).name_key(BLOB_KIND)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn short_names_round_trip_where_they_were_sealed(
        kind in "[a-z]{0,8}", parent in "[a-z2-7/]{0,40}", name in proptest::collection::vec(any::<u8>(), 0..=109),
    ) {
        let key = key();
        let component = key.seal_name(&kind, &parent, &name);
        prop_assert!(component.len() <= MAX_COMPONENT_LEN);
        prop_assert!(component.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7')));
        prop_assert_eq!(&key.seal_name(&kind, &parent, &name), &component);
        prop_assert_eq!(key.open_name(&kind, &parent, &component), Ok(name));
        prop_assert_eq!(key.open_name("other-kind", &parent, &component), Err(NameError::Invalid));
        prop_assert_eq!(key.open_name(&kind, "Elsewhere", &component), Err(NameError::Invalid));
        let other = Root::random(&Seeded::new(2)).name_key(BLOB_KIND);
        prop_assert_eq!(other.open_name(&kind, &parent, &component), Err(NameError::Invalid));
    }

    #[test]
    fn long_names_are_hashed(name in proptest::collection::vec(any::<u8>(), 110..2000)) {
        let key = key();
        let component = key.seal_name("repo", "meta", &name);
        prop_assert_eq!(component.len(), 53);
        prop_assert!(component.starts_with('_'));
        prop_assert_eq!(key.open_name("repo", "meta", &component), Err(NameError::Hashed));
        prop_assert_eq!(&key.seal_name("repo", "meta", &name), &component);
        prop_assert_ne!(&key.seal_name("tag", "meta", &name), &component);
        prop_assert_ne!(&key.seal_name("repo", "data", &name), &component);
        prop_assert_ne!(&key.seal_name("repo", "meta", &name[1..]), &component);
    }

    #[test]
    fn no_text_makes_opening_panic(text in any::<String>(), ascii in "[a-z2-7_/]{0,260}") {
        let root = RootId::from_bytes([7; 16]);
        for text in [text, ascii] {
            prop_assert!(key().open_name("repo", "meta", &text).is_err());
            prop_assert!(key().digest_of_blob_key(&root, &text).is_err());
            prop_assert_eq!(extent_of_key(&text), None);
        }
    }
}

#[test]
fn the_longest_reversible_name_fills_the_component() {
    assert_eq!(key().seal_name("repo", "meta", &[1; 109]).len(), MAX_COMPONENT_LEN);
}

#[test]
fn any_changed_character_is_refused() {
    let key = key();
    let component = key.seal_name("repo", "meta", b"library/alpine");
    for index in 0..component.len() {
        for other in ["a", "z", "2", "7", "A", "1", "=", ""] {
            let mut changed = component.clone();
            changed.replace_range(index..=index, other);
            if changed != component {
                assert_eq!(key.open_name("repo", "meta", &changed), Err(NameError::Invalid), "{changed}");
            }
        }
    }
}

#[test]
fn blob_keys_round_trip_and_nothing_else_opens() {
    let (key, root, other) = (key(), RootId::from_bytes([7; 16]), RootId::from_bytes([8; 16]));
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let digest = Digest::of(algorithm, b"bulla");
        let path = key.blob_key(&root, &digest);
        assert!(path.starts_with(&blobs_prefix(&root)));
        assert!(path.len() <= 900);
        assert_eq!(key.digest_of_blob_key(&root, &path), Ok(digest));

        let (directory, name) = path.rsplit_once('/').unwrap();
        let shard = &directory[directory.len() - 2..];
        let wrong_shard =
            path.replacen(&format!("/{shard}/"), if shard == "00" { "/01/" } else { "/00/" }, 1);
        for wrong in [
            wrong_shard,
            name.to_owned(),
            format!("/{path}"),
            format!("prefix/{path}"),
            format!("{path}/"),
            format!("{path}a"),
            path.to_uppercase(),
            path.replacen(&root.to_string(), &other.to_string(), 1),
        ] {
            assert_eq!(key.digest_of_blob_key(&root, &wrong), Err(NameError::Invalid), "{wrong}");
        }
        assert_eq!(key.digest_of_blob_key(&other, &path), Err(NameError::Invalid));
    }
}

#[test]
fn a_sealed_name_that_is_no_digest_is_no_blob() {
    let (key, root) = (key(), RootId::from_bytes([7; 16]));
    let parent = format!("blobs/{root}");
    for name in [b"".as_slice(), b"sha256", b"sha256 too short", &[b"sha384".as_slice(), &[0; 48]].concat()] {
        let component = key.seal_name(BLOB_KIND, &parent, name);
        assert_eq!(
            key.digest_of_blob_key(&root, &format!("{parent}/00/{component}")),
            Err(NameError::Invalid)
        );
    }
}

#[test]
fn only_the_exact_key_is_an_extent() {
    let name = ExtentName::random(&Seeded::new(3));
    let key = extent_key(&name);
    assert_eq!(extent_of_key(&key), Some(name));
    for wrong in [
        name.to_string(),
        format!("/{key}"),
        format!("data/{name}"),
        format!("data/zz/{name}"),
        key.to_uppercase(),
        format!("{key}/"),
        String::new(),
    ] {
        assert_eq!(extent_of_key(&wrong), None, "{wrong}");
    }
}
