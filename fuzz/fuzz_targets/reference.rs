//! Any text as a repository's name, a tag, a digest or either of these: what is taken is written as it was read, and leads
//! nowhere else in a path, a header or a log.
#![no_main]

use bulla_registry::{MAX_NAME_LEN, MAX_TAG_LEN, Reference, RepositoryName, Tag, parse_digest};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(name) = text.parse::<RepositoryName>() {
        assert_eq!(name.to_string(), text);
        assert!(text.len() <= MAX_NAME_LEN && !text.contains(".."), "{text}");
        assert!(text.split('/').all(|part| part.starts_with(|c: char| c.is_ascii_alphanumeric())), "{text}");
        assert!(
            text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b'/'))
        );
    }
    let (tag, digest) = (text.parse::<Tag>(), parse_digest(text));
    if let Ok(tag) = &tag {
        assert_eq!(tag.to_string(), text);
        assert!(text.len() <= MAX_TAG_LEN && !text.contains(['/', ':']) && text.is_ascii(), "{text}");
    }
    if let Ok(digest) = &digest {
        assert_eq!(digest.to_string(), text, "one digest, one text");
    }
    match text.parse::<Reference>() {
        Ok(Reference::Tag(of)) => assert_eq!(tag.ok(), Some(of)),
        Ok(Reference::Digest(of)) => assert_eq!(digest.ok(), Some(of)),
        Err(_) => assert!(tag.is_err() && digest.is_err(), "{text} is something"),
    }
});
