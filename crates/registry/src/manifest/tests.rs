use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn parse(value: &Value) -> Result<Parsed> {
    Parsed::new(None, value.to_string().as_bytes())
}

fn digest(of: &str) -> String {
    Digest::of(bulla::Algorithm::Sha256, of.as_bytes()).to_string()
}

#[test]
fn what_an_image_needs() {
    let part = |kind: &str, of: &str| json!({"mediaType": kind, "digest": digest(of), "size": 1});
    let image = json!({
        "schemaVersion": 2,
        "config": part("a/config", "c"),
        "layers": [
            part("a/layer", "l"),
            part("application/vnd.oci.image.layer.nondistributable.v1.tar", "elsewhere"),
        ],
        "subject": part("a/subject", "s"),
        "annotations": {"k": "v"},
    });
    let parsed = parse(&image).unwrap();
    let blob = |of: &str| Need::Blob(digest(of).parse().unwrap());
    assert_eq!(parsed.needs, [blob("c"), blob("l")]);
    assert_eq!(parsed.media_type, OCI_MANIFEST, "by its shape");
    assert_eq!(parsed.subject, Some(digest("s").parse().unwrap()));
    assert_eq!(parsed.artifact_type.as_deref(), Some("a/config"));
    assert_eq!(parsed.annotations["k"], "v");
    let mut typed = image;
    typed["artifactType"] = json!("x/y");
    assert_eq!(parse(&typed).unwrap().artifact_type.as_deref(), Some("x/y"));
}

#[test]
fn what_an_index_needs() {
    let index =
        json!({"schemaVersion": 2, "manifests": [{"mediaType": "a/b", "digest": digest("m"), "size": 1}]});
    let parsed = parse(&index).unwrap();
    assert_eq!(parsed.needs, [Need::Manifest(digest("m").parse().unwrap())]);
    assert_eq!((parsed.media_type.as_str(), parsed.artifact_type), (OCI_INDEX, None));
}

#[test]
fn an_empty_list_may_be_null() {
    let config = json!({"mediaType": "a/b", "digest": digest("c"), "size": 1});
    let image = parse(&json!({"schemaVersion": 2, "config": config, "layers": null})).unwrap();
    assert_eq!((image.media_type.as_str(), image.needs.len()), (OCI_MANIFEST, 1));
    let index = parse(&json!({"schemaVersion": 2, "manifests": null})).unwrap();
    assert_eq!((index.media_type.as_str(), index.needs.len()), (OCI_INDEX, 0));
    assert!(parse(&json!({"schemaVersion": 2, "config": config})).is_err(), "no list at all");
}

/// What serde takes for an object is not always one to everybody else.
#[test]
fn lists_are_no_objects() {
    let config = json!(["a/b", digest("c"), 1]);
    let kind = Some("application/vnd.example+json");
    for list in [
        json!([]),
        json!([2, OCI_MANIFEST, null, {"mediaType": "a/b", "digest": digest("c")}, []]),
        json!({"schemaVersion": 2, "config": config, "layers": []}),
        json!({"schemaVersion": 2, "manifests": [config]}),
    ] {
        let error = Parsed::new(kind, list.to_string().as_bytes()).unwrap_err();
        assert_eq!(error.code(), ErrorCode::ManifestInvalid, "{list}");
    }
}

#[test]
fn sizes_are_what_clients_can_read() {
    let of = |size: &str| {
        let part = format!(r#"{{"mediaType": "a/b", "digest": "{}", "size": {size}}}"#, digest("c"));
        let image = format!(r#"{{"schemaVersion": 2, "config": {part}, "layers": []}}"#);
        Parsed::new(None, image.as_bytes())
    };
    for size in ["0", "1", "9223372036854775807", "null"] {
        assert!(of(size).is_ok(), "{size}");
    }
    for size in ["-1", "9223372036854775808", "18446744073709551616", "1e999", "1.5", "\"1\"", "[]"] {
        assert_eq!(of(size).unwrap_err().code(), ErrorCode::ManifestInvalid, "{size}");
    }
}

#[test]
fn a_manifest_is_utf8_to_its_last_unknown_field() {
    for text in [&b"{\"x\": \"\xff\"}"[..], b"\xef\xbb\xbf{}", b"{\"\xc3\": 1}"] {
        let error = Parsed::new(Some("application/vnd.example+json"), text).unwrap_err();
        assert_eq!(error.code(), ErrorCode::ManifestInvalid);
    }
}

/// It is listed with the referrers of a subject, whose entries are bounded.
#[test]
fn an_artifact_type_has_the_length_of_a_media_type() {
    for (own, of_config) in [(256, 3), (0, 256)] {
        let config = json!({"mediaType": "c".repeat(of_config), "digest": digest("c"), "size": 1});
        let image =
            json!({"schemaVersion": 2, "artifactType": "a".repeat(own), "config": config, "layers": []});
        assert_eq!(parse(&image).unwrap_err().code(), ErrorCode::ManifestInvalid);
    }
}

#[test]
fn a_parameter_of_the_content_type_is_not_looked_at() {
    let index = br#"{"schemaVersion":2,"manifests":[]}"#;
    let parsed = Parsed::new(Some("application/vnd.oci.image.index.v1+json; charset=utf-8"), index).unwrap();
    assert_eq!(parsed.media_type, OCI_INDEX);
}

proptest! {
    #[test]
    fn any_bytes_give_an_answer(bytes: Vec<u8>, kind in proptest::option::of(".{0,300}")) {
        let _ = Parsed::new(kind.as_deref(), &bytes);
    }

    /// What is served as a media type can be a header's value.
    #[test]
    fn a_media_type_is_one(kind in ".{0,40}") {
        let body = json!({"mediaType": kind}).to_string();
        if let Ok(parsed) = Parsed::new(None, body.as_bytes()) {
            prop_assert!(axum::http::HeaderValue::from_str(&parsed.media_type).is_ok());
        }
    }
}
