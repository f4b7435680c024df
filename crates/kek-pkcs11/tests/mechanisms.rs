//! Which mechanism is used for which key, what is missing, and what a key does not allow.

use bulla_envelope::secret::Secret;
use bulla_kek::{
    DenyReason, Exposure, Identity, KekErrorKind, KekProvider, KeyKind, SystemRandom, WrapAlgorithm,
    WrappedKey,
};
use cryptoki::context::Pkcs11;
use cryptoki::object::Attribute;

use crate::support::{describe, key, options, provider, wrap};
use crate::token::{Kind, LABEL, on_token};

fn chosen(test: &str, kind: Kind, words: &'static str, sha1: bool, wanted: WrapAlgorithm, len: usize) {
    on_token(test, kind, async |token| {
        token.manage(words);
        let mut options = options(&token);
        options.allow_oaep_sha1 = sha1;
        let provider = provider(options);
        let described = describe(&provider, "k").await.unwrap();
        assert_eq!(described.algorithm, Some(wanted));
        let wrapped = wrap(&provider, "k").await.unwrap();
        assert_eq!((wrapped.wrapped.alg, wrapped.wrapped.value.len()), (wanted, len));
        wrapped.unwrap(&provider).await.unwrap();
    });
}

macro_rules! chosen {
    ($($name:ident: $kind:ident $words:literal $sha1:literal => $alg:ident $len:literal;)*) => {$(
        #[test]
        fn $name() {
            let test = concat!("mechanisms::", stringify!($name));
            chosen(test, Kind::$kind, $words, $sha1, WrapAlgorithm::$alg, $len);
        }
    )*};
}

chosen! {
    kryoptic_wraps_by_encrypting_with_key_wrap: Kryoptic "aes k 01 no-wrap no-unwrap" false => A256Kw 40;
    kryoptic_wraps_objects_where_the_key_may_not_encrypt: Kryoptic "aes k 01 no-encrypt no-decrypt" false => A256Kw 40;
    kryoptic_keeps_to_the_mechanisms_a_key_allows: Kryoptic "aes k 01 only-gcm" false => A256GcmKw 60;
    softhsm_has_no_key_wrap_that_encrypts: SoftHsm "aes k 01" false => A256GcmKw 60;
    softhsm_wraps_objects_where_the_key_may_not_encrypt: SoftHsm "aes k 01 no-encrypt no-decrypt" false => A256Kw 40;
    kryoptic_has_oaep_with_sha256: Kryoptic "rsa k 01 bits=3072" true => RsaOaep256 384;
    softhsm_has_oaep_with_sha1_where_that_is_allowed: SoftHsm "rsa k 01" true => RsaOaep 256;
    softhsm_unwraps_objects_with_oaep: SoftHsm "rsa k 01 no-encrypt no-decrypt" true => RsaOaep 256;
}

#[test]
fn sha1_is_used_only_where_somebody_decided_so() {
    on_token("mechanisms::sha1_is_used_only_where_somebody_decided_so", Kind::SoftHsm, async |token| {
        token.manage("rsa k 01");
        let strict = provider(options(&token));
        let error = describe(&strict, "k").await.unwrap_err();
        assert_eq!(error.kind(), KekErrorKind::Invalid, "{error}");
        for word in ["RSA-2048", "CKM_RSA_PKCS_OAEP with SHA-256", "AES-256", "BULLA_PKCS11_ALLOW_OAEP_SHA1"]
        {
            assert!(error.to_string().contains(word), "{word}: {error}");
        }
        // A record in the bucket decides no more than a description.
        let mut allowing = options(&token);
        allowing.allow_oaep_sha1 = true;
        let wrapped = wrap(&provider(allowing), "k").await.unwrap();
        let error = wrapped.unwrap(&strict).await.unwrap_err();
        assert_eq!(error.kind(), KekErrorKind::Invalid, "{error}");
    });
}

#[test]
fn missing_mechanisms_are_named() {
    on_token("mechanisms::missing_mechanisms_are_named", Kind::SoftHsm, async |token| {
        token.manage("aes k 01");
        // Read once in the life of a process, and this one has not loaded the module yet.
        token.configure("slots.mechanisms = CKM_AES_KEY_GEN");
        let provider = provider(options(&token));
        let error = describe(&provider, "k").await.unwrap_err();
        assert_eq!(error.kind(), KekErrorKind::Invalid, "{error}");
        for word in ["CKM_AES_GCM", "CKM_AES_KEY_WRAP", "is missing", "use an RSA key"] {
            assert!(error.to_string().contains(word), "{word}: {error}");
        }
        // What was wrapped when they were there is not lost, and not damaged either.
        let versioned = key("k").with_version("01").unwrap();
        let alg = WrapAlgorithm::A256GcmKw;
        let unwrapped = provider.unwrap_key(&versioned, &Identity::System, alg, &[7; 60]).await;
        let error = unwrapped.unwrap_err();
        assert_eq!(error.kind(), KekErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("A256GCMKW"), "{error}");
    });
}

#[test]
fn a_key_that_wants_the_pin_at_every_use_is_refused() {
    on_token("mechanisms::a_key_that_wants_the_pin_at_every_use_is_refused", Kind::SoftHsm, async |token| {
        token.manage("rsa k 01 always");
        let error = describe(&provider(options(&token)), "k").await.unwrap_err();
        assert_eq!(error.kind(), KekErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains("CKA_ALWAYS_AUTHENTICATE"), "{error}");
    });
}

/// What is missing is said first of what the key permits.
#[test]
fn a_way_that_fails_is_named_before_one_that_is_not_permitted() {
    on_token(
        "mechanisms::a_way_that_fails_is_named_before_one_that_is_not_permitted",
        Kind::SoftHsm,
        async |token| {
            token.manage("rsa k 01 no-unwrap");
            let error = describe(&provider(options(&token)), "k").await.unwrap_err();
            assert!(
                error.to_string().contains("SHA-256 for C_Encrypt and C_Decrypt does not work"),
                "{error}"
            );
        },
    );
}

#[test]
fn small_keys_fit_nothing() {
    on_token("mechanisms::small_keys_fit_nothing", Kind::Kryoptic, async |token| {
        token.manage("aes small 01 bits=128");
        token.manage("rsa weak 01 bits=1024");
        let provider = provider(options(&token));
        let small = describe(&provider, "small").await.unwrap();
        assert_eq!((small.kind, small.algorithm), (KeyKind::Aes { bits: 128 }, None));
        let weak = describe(&provider, "weak").await.unwrap();
        assert_eq!(weak.algorithm, None);
        assert!(weak.kind.to_string().contains("2048"), "{}", weak.kind);
    });
}

fn permission_taken_and_given(test: &str, kind: Kind) {
    on_token(test, kind, async |token| {
        token.manage("aes k 01");
        let provider = provider(options(&token));
        let wrapped = wrap(&provider, "k").await.unwrap();
        token.manage("set k 01 stop-decrypt stop-unwrap");
        let error = wrapped.unwrap(&provider).await.unwrap_err();
        assert_eq!(error.kind(), KekErrorKind::Denied(DenyReason::OperationNotPermitted), "{error}");
        let described = describe(&provider, "k").await.unwrap();
        assert!(
            described.permits("wrapKey") && !described.permits("unwrapKey"),
            "{:?}",
            described.operations
        );
        token.manage("set k 01 may-decrypt may-unwrap");
        wrapped.unwrap(&provider).await.unwrap();
    });
}

#[test]
fn softhsm_a_key_that_may_not_unwrap_is_denied_until_it_may() {
    permission_taken_and_given(
        "mechanisms::softhsm_a_key_that_may_not_unwrap_is_denied_until_it_may",
        Kind::SoftHsm,
    );
}

#[test]
fn kryoptic_a_key_that_may_not_unwrap_is_denied_until_it_may() {
    permission_taken_and_given(
        "mechanisms::kryoptic_a_key_that_may_not_unwrap_is_denied_until_it_may",
        Kind::Kryoptic,
    );
}

fn destroyed(test: &str, kind: Kind) {
    on_token(test, kind, async |token| {
        token.manage("rsa k 01");
        token.manage("aes k 02");
        let mut options = options(&token);
        options.allow_oaep_sha1 = true;
        let provider = provider(options);
        let wrapped = wrap(&provider, "k").await.unwrap();
        token.manage("destroy k 02");
        let error = wrapped.unwrap(&provider).await.unwrap_err();
        assert_eq!(error.kind(), KekErrorKind::Denied(DenyReason::NotFound), "{error}");
        // The version before it is the newest now.
        assert_eq!(describe(&provider, "k").await.unwrap().key.version(), Some("01"));
    });
}

#[test]
fn softhsm_a_destroyed_key_is_denied() {
    destroyed("mechanisms::softhsm_a_destroyed_key_is_denied", Kind::SoftHsm);
}

#[test]
fn kryoptic_a_destroyed_key_is_denied() {
    destroyed("mechanisms::kryoptic_a_destroyed_key_is_denied", Kind::Kryoptic);
}

#[test]
fn the_newest_version_is_the_latest_start_date_then_the_highest_id() {
    on_token(
        "mechanisms::the_newest_version_is_the_latest_start_date_then_the_highest_id",
        Kind::Kryoptic,
        async |token| {
            let provider = provider(options(&token));
            for (words, newest) in [
                ("aes k 09", "09"),
                ("aes k 0a", "0a"),
                ("aes k 0100", "0100"),
                ("aes k 03 start=20200101", "03"),
                ("aes k 02 start=20210101", "02"),
                ("aes k ffff start=20200601", "02"),
            ] {
                token.manage(words);
                let described = describe(&provider, "k").await.unwrap();
                assert_eq!(described.key.version(), Some(newest), "after {words}");
            }
        },
    );
}

#[test]
fn keys_that_can_not_be_told_apart_are_refused() {
    on_token("mechanisms::keys_that_can_not_be_told_apart_are_refused", Kind::SoftHsm, async |token| {
        token.manage("aes twin 01");
        token.manage("aes twin 01");
        token.manage("aes nameless none");
        let provider = provider(options(&token));
        for (name, word) in [("twin", "one id"), ("nameless", "CKA_ID")] {
            let error = describe(&provider, name).await.unwrap_err();
            assert_eq!(error.kind(), KekErrorKind::Invalid, "{error}");
            assert!(error.to_string().contains(word), "{error}");
        }
    });
}

#[test]
fn dates_that_softhsm_can_not_read_back_stop_wrapping_only() {
    on_token(
        "mechanisms::dates_that_softhsm_can_not_read_back_stop_wrapping_only",
        Kind::SoftHsm,
        async |token| {
            token.manage("aes k 01");
            let provider = provider(options(&token));
            let wrapped = wrap(&provider, "k").await.unwrap();
            token.manage("set k 01 end=20991231");
            wrapped.unwrap(&provider).await.unwrap();
            let Err(error) = wrap(&provider, "k").await else { panic!("it wrapped") };
            assert_eq!(error.kind(), KekErrorKind::Invalid, "{error}");
            assert!(error.to_string().contains("date"), "{error}");
        },
    );
}

fn protection(test: &str, kind: Kind) {
    on_token(test, kind, async |token| {
        token.manage("aes kept 01 keep");
        token.manage("aes plain 01");
        let provider = provider(options(&token));
        let kept = describe(&provider, "kept").await.unwrap().protection;
        assert!(kept.soft_delete && kept.purge_protection);
        let plain = describe(&provider, "plain").await.unwrap().protection;
        assert!(!plain.soft_delete && !plain.purge_protection);
    });
}

#[test]
fn softhsm_a_key_that_can_not_be_destroyed_is_protected() {
    protection("mechanisms::softhsm_a_key_that_can_not_be_destroyed_is_protected", Kind::SoftHsm);
}

#[test]
fn kryoptic_a_key_that_can_not_be_destroyed_is_protected() {
    protection("mechanisms::kryoptic_a_key_that_can_not_be_destroyed_is_protected", Kind::Kryoptic);
}

fn exposure(test: &str, kind: Kind) {
    on_token(test, kind, async |token| {
        token.manage("aes kept 01");
        token.manage("rsa pair 01");
        token.manage("aes open 01 extractable");
        token.manage("aes plain 01 plain");
        token.manage("aes late 01 extractable");
        token.manage("set late 01 confine");
        let mut options = options(&token);
        options.allow_oaep_sha1 = true;
        let provider = provider(options);
        for (label, exposure) in [
            ("kept", Exposure::Never),
            ("pair", Exposure::Never),
            ("open", Exposure::Now),
            ("plain", Exposure::Now),
            ("late", Exposure::Before),
        ] {
            assert_eq!(describe(&provider, label).await.unwrap().protection.exposure, exposure, "{label}");
        }
    });
}

#[test]
fn softhsm_a_key_that_can_leave_its_token_is_told_apart() {
    exposure("mechanisms::softhsm_a_key_that_can_leave_its_token_is_told_apart", Kind::SoftHsm);
}

#[test]
fn kryoptic_a_key_that_can_leave_its_token_is_told_apart() {
    exposure("mechanisms::kryoptic_a_key_that_can_leave_its_token_is_told_apart", Kind::Kryoptic);
}

#[test]
fn an_algorithm_that_is_not_the_keys_is_invalid() {
    on_token("mechanisms::an_algorithm_that_is_not_the_keys_is_invalid", Kind::Kryoptic, async |token| {
        token.manage("aes a 01 only-gcm");
        token.manage("rsa r 01");
        let provider = provider(options(&token));
        let secret = Secret::random(&SystemRandom);
        for (name, alg, kind) in [
            ("a", WrapAlgorithm::RsaOaep256, KekErrorKind::Invalid),
            ("r", WrapAlgorithm::A256Kw, KekErrorKind::Invalid),
            ("r", WrapAlgorithm::A256GcmKw, KekErrorKind::Invalid),
            ("a", WrapAlgorithm::A256Kw, KekErrorKind::Denied(DenyReason::OperationNotPermitted)),
        ] {
            let versioned = key(name).with_version("01").unwrap();
            let wrapped = provider.wrap_key(&versioned, &Identity::System, alg, &secret).await;
            assert_eq!(wrapped.unwrap_err().kind(), kind, "{name} {alg}");
        }
    });
}

/// FORMAT-K4
#[test]
fn a_wrap_by_gcm_has_sixty_bytes_and_a_fresh_nonce() {
    on_token("mechanisms::a_wrap_by_gcm_has_sixty_bytes_and_a_fresh_nonce", Kind::SoftHsm, async |token| {
        token.manage("aes k 01");
        let provider = provider(options(&token));
        let (one, two) = (wrap(&provider, "k").await.unwrap(), wrap(&provider, "k").await.unwrap());
        assert_ne!(one.wrapped.value[..12], two.wrapped.value[..12]);
        let WrappedKey { key, alg, value } = one.wrapped;
        assert_eq!((alg, value.len()), (WrapAlgorithm::A256GcmKw, 60));
        let mut other_nonce = value.clone();
        other_nonce[0] ^= 1;
        for bad in [&value[..59], &[&value[..], &[0]].concat(), &other_nonce] {
            let error = provider.unwrap_key(&key, &Identity::System, alg, bad).await.unwrap_err();
            assert_eq!(error.kind(), KekErrorKind::Invalid, "{error}");
        }
    });
}

/// Where a secret has to be an object to be wrapped, nothing of it stays.
#[test]
fn no_secret_is_left_on_the_token() {
    on_token("mechanisms::no_secret_is_left_on_the_token", Kind::SoftHsm, async |token| {
        token.manage("aes k 01 no-encrypt no-decrypt");
        let provider = provider(options(&token));
        let wrapped = wrap(&provider, "k").await.unwrap();
        assert_eq!(wrapped.wrapped.alg, WrapAlgorithm::A256Kw);
        wrapped.unwrap(&provider).await.unwrap();
        // Session objects are seen by every session of the process, which is logged in.
        let pkcs11 = Pkcs11::new(&token.module).unwrap();
        let slots = pkcs11.get_slots_with_token().unwrap();
        let here = |slot: &_| pkcs11.get_token_info(*slot).unwrap().label() == LABEL;
        let session = pkcs11.open_ro_session(slots.into_iter().find(here).unwrap()).unwrap();
        assert_eq!(session.find_objects(&[Attribute::Token(true)]).unwrap().len(), 1, "the key");
        assert_eq!(session.find_objects(&[Attribute::Token(false)]).unwrap().len(), 0);
    });
}

#[test]
fn whoever_has_the_pin_is_the_tokens_one_user() {
    on_token("mechanisms::whoever_has_the_pin_is_the_tokens_one_user", Kind::Kryoptic, async |token| {
        token.manage("aes k 01");
        let provider = provider(options(&token));
        let registry = "registry".parse().unwrap();
        provider.describe(&key("k"), &registry).await.unwrap();
    });
}
