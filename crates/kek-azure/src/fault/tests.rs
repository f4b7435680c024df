//! What identity endpoints say, as the SDK hands it on.

use azure_core::http::StatusCode;
use bulla_kek::KekErrorKind;
use proptest::prelude::*;

use super::*;

/// A credential's error over an endpoint's answer.
fn identity_says(status: u16, body: &str, headers: Headers) -> Fault {
    let raw = RawResponse::from_bytes(StatusCode::from(status), headers, body.as_bytes().to_vec());
    let kind = ErrorKind::HttpResponse {
        status: StatusCode::from(status),
        error_code: None,
        raw_response: Some(Box::new(raw)),
    };
    let inner = kind.into_error();
    Fault::of(&Error::with_error(ErrorKind::Credential, inner, "ManagedIdentityCredential failed"), "h")
}

fn kind(status: u16, body: &str) -> KekErrorKind {
    identity_says(status, body, Headers::new()).error.kind()
}

#[test]
fn an_identity_that_does_not_exist_is_unknown() {
    let unknown = KekErrorKind::Denied(DenyReason::IdentityUnknown);
    // Virtual machines, App Service, Entra.
    assert_eq!(kind(400, r#"{"error":"invalid_request","error_description":"Identity not found"}"#), unknown);
    assert_eq!(kind(400, r#"{"statusCode":400,"message":"No User Assigned Identity found"}"#), unknown);
    let entra = r#"{"error":"unauthorized_client","error_description":"AADSTS700016: Application with identifier 'x' was not found.\r\nTrace ID: 1","error_codes":[700016]}"#;
    assert_eq!(kind(400, entra), unknown);
    assert_eq!(
        kind(401, r#"{"error":"invalid_client","error_description":"AADSTS700024: expired"}"#),
        unknown
    );
    assert_eq!(kind(400, "<html>"), unknown);
    let text = identity_says(400, entra, Headers::new()).error.to_string();
    assert!(text.contains("AADSTS700016") && !text.contains('\n'), "{text}");
}

#[test]
fn an_identity_endpoint_in_trouble_is_an_outage() {
    for status in [404, 408, 410, 500, 502, 503, 504] {
        let fault = identity_says(status, "", Headers::new());
        assert_eq!((fault.error.kind(), fault.again), (KekErrorKind::Unavailable, Again::Later), "{status}");
    }
    let busy = r#"{"error":"temporarily_unavailable","error_description":"AADSTS90033"}"#;
    assert_eq!(kind(400, busy), KekErrorKind::Unavailable);
    let mut headers = Headers::new();
    headers.insert("retry-after", "3");
    let fault = identity_says(429, "", headers);
    assert_eq!(
        (fault.error.kind(), fault.again),
        (KekErrorKind::Throttled, Again::After(Duration::from_secs(3)))
    );
}

#[test]
fn an_identity_endpoint_that_is_not_there_is_an_outage() {
    let inner = Error::with_message(ErrorKind::Connection, "refused");
    let fault = Fault::of(&Error::with_error(ErrorKind::Credential, inner, "failed"), "h");
    assert_eq!(fault.error.kind(), KekErrorKind::Unavailable);
    assert!(fault.error.to_string().contains("identity endpoint"), "{}", fault.error);
}

#[test]
fn a_token_that_can_not_be_read_is_not_quoted() {
    let inner = Error::with_message(ErrorKind::DataConversion, "invalid type: string \"eyJsecret\"");
    let fault = Fault::of(&Error::with_error(ErrorKind::Credential, inner, "eyJsecret"), "h");
    assert_eq!(fault.error.kind(), KekErrorKind::Unavailable);
    assert!(!format!("{} {:?}", fault.error, fault.error).contains("eyJsecret"));
}

/// Of a vault.
fn vault_says(status: u16, body: &[u8]) -> Fault {
    let raw = RawResponse::from_bytes(StatusCode::from(status), Headers::new(), body.to_vec());
    of_answer(status, Some(&raw), "h")
}

proptest! {
    #[test]
    fn no_answer_panics_or_says_more_than_a_line(
        status in 100..1000u16,
        body in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..200),
            r#"\{"error":\{("code":"[A-Za-z]{0,30}",)?"message":"\PC{0,600}"(,"inner[eE]rror":\{"code":"[A-Za-z]{1,30}"\})?\}\}"#
                .prop_map(String::into_bytes),
        ],
    ) {
        for fault in [vault_says(status, &body), of_identity_answer(status, None)] {
            let text = fault.error.to_string();
            prop_assert!(text.len() < 1000 && !text.contains(['\n', '\r', '`']), "{}", text);
        }
        let kind = vault_says(status, &body).error.kind();
        // A refusal is never taken for anything else, and nothing else for a refusal.
        let denied = matches!(kind, KekErrorKind::Denied(_));
        prop_assert!(denied || !matches!(status, 401 | 403), "{:?}", kind);
        prop_assert!(!denied || matches!(status, 401 | 403 | 404 | 409), "{:?}", kind);
        prop_assert!(kind != KekErrorKind::Invalid || status == 400);
        prop_assert!((kind == KekErrorKind::Throttled) == (status == 429));
    }
}

#[test]
fn what_others_say_is_made_printable() {
    assert_eq!(printable("a\r\n\tb `c`\u{1b}[31m"), "a b c [31m");
    assert_eq!(printable(&format!("Bearer {} ends", "x".repeat(81))), "Bearer … ends");
    let resource = "'/subscriptions/00000000-0000-0000-0000-000000000000/resourcegroups/group/providers/microsoft.keyvault/vaults/v'";
    assert_eq!(printable(resource), resource);
    assert!(printable(&"é ".repeat(1000)).len() <= MAX_TEXT + '…'.len_utf8());
}

#[test]
fn codes_nest_by_either_spelling_and_not_for_ever() {
    let nested =
        serde_json::json!({ "code": "A", "innerError": { "code": "B", "innererror": { "code": "C" } } });
    assert_eq!(codes(&nested), ["A", "B", "C"]);
    let mut deep = serde_json::json!({ "code": "X" });
    for _ in 0..100 {
        deep = serde_json::json!({ "code": "X", "innererror": deep });
    }
    assert_eq!(codes(&deep).len(), MAX_DEPTH);
    for odd in ["null", "5", "[]", r#"{"code":5}"#, r#"{"code":"","innererror":"x"}"#] {
        assert!(codes(&serde_json::from_str(odd).unwrap()).is_empty(), "{odd}");
    }
}
