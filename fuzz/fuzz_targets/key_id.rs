//! Any text as a key id, a key as users type it, an identity: what is read is written so that it reads the same.
#![no_main]

use bulla_kek::{Identity, KeyId, KeyUri};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(key) = text.parse::<KeyId>() {
        let canonical = key.to_string();
        assert_eq!(canonical.parse().as_ref(), Ok(&key), "the canonical text is another key");
        assert!(key.same_key(&key.without_version()));
        if let Some(version) = key.version() {
            assert_eq!(key.without_version().with_version(version).as_ref(), Ok(&key));
        }
        assert!(key.name().len() <= KeyId::MAX_NAME_LEN);
        // Nothing in a key id may lead to a module or a PIN: a token, an object, its id, and no query.
        if let Some(path) = canonical.strip_prefix("pkcs11:") {
            let known = |part: &str| ["token=", "object=", "id="].iter().any(|name| part.starts_with(name));
            assert!(path.split(';').all(known) && !path.contains('?'), "{canonical}");
        }
    }
    if let Ok(uri) = text.parse::<KeyUri>() {
        assert_eq!(uri.to_string().parse().as_ref(), Ok(&uri), "the canonical text is another key");
    }
    if let Ok(identity) = text.parse::<Identity>() {
        assert_eq!(identity.to_string().parse().as_ref(), Ok(&identity));
    }
});
