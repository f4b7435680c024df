//! Any bytes as a manifest, behind a line with what the client says that it is: what is taken is read again as the same, which
//! gc relies on, and can be served.
#![no_main]

use std::collections::HashSet;

use bulla_registry::ErrorCode;
use bulla_registry::manifest::Parsed;
use libfuzzer_sys::fuzz_target;

/// The longest media type.
const MAX_TYPE_LEN: usize = 255;

fuzz_target!(|input: &[u8]| {
    let end = input.iter().position(|&byte| byte == b'\n').unwrap_or(input.len());
    let (kind, bytes) = (&input[..end], input.get(end + 1..).unwrap_or_default());
    let Ok(kind) = std::str::from_utf8(kind) else { return };
    let parsed = match Parsed::new((!kind.is_empty()).then_some(kind), bytes) {
        Ok(parsed) => parsed,
        Err(error) => {
            assert_eq!(error.code(), ErrorCode::ManifestInvalid);
            return;
        }
    };
    let text = std::str::from_utf8(bytes).expect("a manifest is UTF-8");
    assert!(text.trim_start().starts_with('{'), "a manifest is an object");
    let kind = &parsed.media_type;
    assert!(kind.len() <= MAX_TYPE_LEN && kind.contains('/'), "{kind}");
    assert!(kind.bytes().all(|byte| byte.is_ascii_graphic()), "{kind} can't be in a header");
    assert!(parsed.artifact_type.as_ref().is_none_or(|kind| kind.len() <= MAX_TYPE_LEN));
    let needs: HashSet<_> = parsed.needs.iter().collect();
    assert_eq!(needs.len(), parsed.needs.len(), "something is needed twice");
    let again = Parsed::new(Some(kind), bytes).expect("what was taken can be read");
    assert_eq!(again, parsed, "one manifest, one meaning");
});
