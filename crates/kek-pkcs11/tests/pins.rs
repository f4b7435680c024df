//! PINs: wrong, corrected, changed, locked. Kryoptic locks a token after ten wrong ones in a row.

use bulla_kek::{DenyReason, KekError, KekErrorKind};
use bulla_kek_pkcs11::{PinSource, Pkcs11Options};

use crate::support::{describe, options, provider, wrap};
use crate::token::{Kind, PIN, Token, on_token};

fn with_file(token: &Token, pin: &str) -> Pkcs11Options {
    let mut options = options(token);
    options.pin = PinSource::File(token.file("pin"));
    set(token, pin);
    options
}

fn set(token: &Token, pin: &str) {
    std::fs::write(token.file("pin"), format!("{pin}\n")).unwrap();
}

fn assert_refused(error: &KekError, word: &str) {
    assert_eq!(error.kind(), KekErrorKind::Denied(DenyReason::IdentityUnknown), "{error}");
    assert!(error.to_string().contains(word), "{error}");
}

fn a_wrong_pin_is_tried_once(test: &str, kind: Kind) {
    on_token(test, kind, async |token| {
        token.manage("aes k 01");
        let provider = provider(with_file(&token, "999999"));
        // All at once, then one after the other: a locked token would be the end of this test.
        let crowd = (0..20).map(|_| describe(&provider, "k"));
        for refused in futures::future::join_all(crowd).await {
            assert_refused(&refused.unwrap_err(), "PIN");
        }
        for _ in 0..20 {
            assert_refused(&describe(&provider, "k").await.unwrap_err(), "not tried again");
        }
        // Nor by a second provider in this process, and taking turns with another wrong one.
        let second = crate::support::provider(with_file(&token, "999999"));
        assert_refused(&describe(&second, "k").await.unwrap_err(), "not tried again");
        for pin in ["888888", "999999", "888888", "999999"].repeat(5) {
            set(&token, pin);
            assert_refused(&describe(&provider, "k").await.unwrap_err(), "PIN");
        }

        set(&token, PIN);
        wrap(&provider, "k").await.unwrap().unwrap(&provider).await.unwrap();
    });
}

#[test]
fn softhsm_a_wrong_pin_is_tried_once_and_a_corrected_one_works() {
    a_wrong_pin_is_tried_once(
        "pins::softhsm_a_wrong_pin_is_tried_once_and_a_corrected_one_works",
        Kind::SoftHsm,
    );
}

#[test]
fn kryoptic_a_wrong_pin_is_tried_once_and_a_corrected_one_works() {
    a_wrong_pin_is_tried_once(
        "pins::kryoptic_a_wrong_pin_is_tried_once_and_a_corrected_one_works",
        Kind::Kryoptic,
    );
}

/// A service that restarts with a wrong PIN, over and over, tries it anew each time: a PIN that changes stands for that.
#[test]
fn the_last_try_before_the_token_locks_is_left_to_people() {
    on_token("pins::the_last_try_before_the_token_locks_is_left_to_people", Kind::Kryoptic, async |token| {
        token.manage("aes k 01");
        let provider = provider(with_file(&token, "000000"));
        let mut last = String::new();
        for number in 0..15 {
            set(&token, &format!("10000{number}"));
            let error = describe(&provider, "k").await.unwrap_err();
            assert_refused(&error, "PIN");
            last = error.to_string();
        }
        assert!(last.contains("one more wrong PIN would lock"), "{last}");
        // Even the right one is not risked: nothing tells it from a wrong one.
        set(&token, PIN);
        assert_refused(&describe(&provider, "k").await.unwrap_err(), "one more wrong PIN");
        // The token is not locked, and somebody who logs in makes it usable again.
        token.manage("login");
        wrap(&provider, "k").await.unwrap().unwrap(&provider).await.unwrap();
    });
}

#[test]
fn a_locked_token_says_so_and_what_to_do() {
    on_token("pins::a_locked_token_says_so_and_what_to_do", Kind::Kryoptic, async |token| {
        token.manage("lock");
        let error = describe(&provider(options(&token)), "k").await.unwrap_err();
        assert_refused(&error, "security officer");
    });
}

#[test]
fn a_pin_that_is_changed_on_the_token_counts_from_the_next_login() {
    on_token(
        "pins::a_pin_that_is_changed_on_the_token_counts_from_the_next_login",
        Kind::SoftHsm,
        async |token| {
            token.manage("aes k 01");
            let provider = provider(with_file(&token, PIN));
            let wrapped = wrap(&provider, "k").await.unwrap();
            token.manage(&format!("pin {PIN} 161803"));
            // The session is logged in, and stays so.
            wrapped.unwrap(&provider).await.unwrap();
            token.remove();
            assert_eq!(wrapped.unwrap(&provider).await.unwrap_err().kind(), KekErrorKind::Unavailable);
            token.insert();
            assert_refused(&wrapped.unwrap(&provider).await.unwrap_err(), "PIN");
            set(&token, "161803");
            wrapped.unwrap(&provider).await.unwrap();
        },
    );
}

#[test]
fn a_missing_pin_file_is_an_outage_and_not_a_verdict() {
    on_token("pins::a_missing_pin_file_is_an_outage_and_not_a_verdict", Kind::SoftHsm, async |token| {
        token.manage("aes k 01");
        let options = with_file(&token, PIN);
        std::fs::remove_file(token.file("pin")).unwrap();
        let provider = provider(options);
        let error = describe(&provider, "k").await.unwrap_err();
        assert_eq!(error.kind(), KekErrorKind::Unavailable, "{error}");
        set(&token, PIN);
        describe(&provider, "k").await.unwrap();
    });
}

#[test]
fn no_pin_is_in_an_error_or_in_debug_output() {
    on_token("pins::no_pin_is_in_an_error_or_in_debug_output", Kind::Kryoptic, async |token| {
        let provider = provider(with_file(&token, "86753099"));
        let error = describe(&provider, "k").await.unwrap_err();
        let printed = format!("{error} {error:?} {provider:?}");
        assert!(!printed.contains("86753099"), "{printed}");
    });
}
