//! Key ids: canonical text, exact refusals, no panic.

use proptest::prelude::*;

use super::*;

const VAULT: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaa";

fn parsed(text: &str) -> KeyId {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn refusal(text: &str) -> String {
    match text.parse::<KeyId>() {
        Ok(key) => panic!("{text} was taken as {key}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn key_vault_ids() {
    let key = parsed("https://Contoso.Vault.Azure.NET/keys/My-Key/0123abcd");
    assert_eq!(key.to_string(), "https://contoso.vault.azure.net/keys/My-Key/0123abcd");
    assert_eq!(
        (key.scheme(), key.host(), key.name()),
        (Scheme::KeyVault, "contoso.vault.azure.net", "My-Key")
    );
    assert_eq!(key.version(), Some("0123abcd"));
    assert_eq!(key.without_version().to_string(), "https://contoso.vault.azure.net/keys/My-Key");
    assert!(key.same_key(&parsed("https://contoso.vault.azure.net/keys/my-key")));
    assert!(!key.same_key(&parsed("https://contoso.vault.azure.net/keys/other")));
}

#[test]
fn what_is_pasted_is_made_canonical() {
    let (key, version) = ("https://contoso.vault.azure.net/keys/k", "0123456789abcdef0123456789abcdef");
    for text in ["https://contoso.vault.azure.net/keys/k/", "HTTPS://Contoso.Vault.Azure.NET:443/Keys/k"] {
        assert_eq!(parsed(text).to_string(), key);
        let versioned = format!("{}/{version}", text.trim_end_matches('/'));
        assert_eq!(parsed(&versioned).to_string(), format!("{key}/{version}"));
        assert_eq!(parsed(&format!("{versioned}/")).to_string(), format!("{key}/{version}"));
    }
}

#[test]
fn ports_are_kept_unless_default() {
    assert_eq!(parsed("https://localhost:443/keys/k").to_string(), "https://localhost/keys/k");
    assert_eq!(parsed("https://127.0.0.1:8443/Keys/k").to_string(), "https://127.0.0.1:8443/keys/k");
    assert_eq!(parsed("HTTPS://[0:0:0:0:0:0:0:1]:8443/keys/k").to_string(), "https://[::1]:8443/keys/k");
    assert_eq!(parsed("https://[::1]/keys/k").host(), "[::1]");
}

#[test]
fn vault_ids() {
    let key = parsed(&format!("vault:{}/keys/k/v1", VAULT.to_uppercase()));
    assert_eq!(key.to_string(), format!("vault:{VAULT}/keys/k/v1"));
    assert!(refusal("vault:short/keys/k").contains("26 base32"));
    assert!(refusal(&format!("vault:{}b/keys/k", &VAULT[1..])).contains("26 base32"));
}

#[test]
fn pkcs11_ids() {
    let key = parsed("pkcs11:object=a%20b;token=T(1);id=%01%aB");
    assert_eq!(key.to_string(), "pkcs11:token=T%281%29;object=a%20b;id=%01%AB");
    assert_eq!((key.host(), key.name(), key.version()), ("T(1)", "a b", Some("01ab")));
    assert_eq!(key.with_version("01AB"), Ok(key.clone()));
    assert!(key.with_version("1").is_err());
    assert!(!key.same_key(&parsed("pkcs11:token=T(1);object=A%20b")));
}

#[test]
fn local_configuration_is_refused_and_told_where_to_go() {
    for (text, attribute) in [
        ("pkcs11:token=T;object=K?module-path=/usr/lib/evil.so", "module-path"),
        ("pkcs11:token=T;object=K?module-name=evil", "module-name"),
        ("pkcs11:token=T;object=K?pin-value=1234", "pin-value"),
        ("pkcs11:token=T;object=K?pin-source=file:/etc/pin&x=y", "pin-source"),
        ("pkcs11:token=T;object=K;pin-value=1234", "pin-value"),
    ] {
        let why = refusal(text);
        assert!(why.contains(&format!("remove {attribute}")) && why.contains("local configuration"), "{why}");
        assert!(!why.contains("1234") && !why.contains("evil"), "{why}");
    }
    assert!(refusal("vault+file:///srv/v/keys/k").contains("vault:VAULTID"));
}

#[test]
fn refusals_name_the_fix() {
    for (text, fix) in [
        ("", "https://HOST/keys/NAME"),
        ("my-key", "pkcs11:token=TOKEN"),
        ("http://h/keys/k", "https://"),
        ("https:h/keys/k", "two slashes"),
        ("https://h", "/keys/NAME"),
        ("https://h/secrets/k", "/keys/"),
        ("https://h/keys", "1 to 127"),
        ("https://h/keys/", "1 to 127"),
        ("https://h/keys/a_b", "0-9, A-Z"),
        ("https://h/keys//", "1 to 127"),
        ("https://h/keys/k//", "version"),
        ("https://h/keys/k/v/x", "version"),
        ("https://h/keys/k?api-version=7.4", "?"),
        ("https://h/keys/k#x", "#"),
        ("https://me:secret@h/keys/k", "no user"),
        ("https:///keys/k", "DNS name"),
        ("https://h..x/keys/k", "DNS name"),
        ("https://-h/keys/k", "DNS name"),
        ("https://höst/keys/k", "ASCII"),
        ("https://h:0/keys/k", "1 to 65535"),
        ("https://h:+1/keys/k", "1 to 65535"),
        ("https://h:/keys/k", "1 to 65535"),
        ("https://[::g]/keys/k", "IPv6"),
        ("pkcs11:", "token=TOKEN"),
        ("pkcs11:token=T", "object= is missing"),
        ("pkcs11:object=T", "token= is missing"),
        ("pkcs11:token=T;object=K;token=T", "once"),
        ("pkcs11:token=T;object=K;serial=1", "remove serial="),
        ("pkcs11:token=T;object=K;colour=red", "only token"),
        ("pkcs11:token=My Token;object=K", "%20"),
        ("pkcs11:token=;object=K", "1 to 32"),
        ("pkcs11:token=%00;object=K", "control"),
        ("pkcs11:token=%ff;object=K", "UTF-8"),
        ("pkcs11:token=T;object=K;id=", "1 to 64"),
    ] {
        let why = refusal(text);
        assert!(why.contains(fix), "{text}: {why}");
        assert!(!why.contains("secret@"), "{why}");
    }
}

#[test]
fn long_parts_are_refused() {
    let long = "k".repeat(128);
    assert!(refusal(&format!("https://h/keys/{long}")).contains("127"));
    assert!(refusal(&format!("https://h/keys/k/{long}")).contains("127"));
    assert!(refusal(&format!("https://{}/keys/k", "a.".repeat(200) + "b")).contains("DNS"));
}

fn any_key() -> impl Strategy<Value = KeyId> {
    let word = "[0-9A-Za-z-]{1,127}";
    let label = "[^\\x00-\\x1f\\x7f-\\u{9f}]{1,8}";
    prop_oneof![
        ("[a-zA-Z0-9]{1,20}(\\.[a-z]{1,5}){0,3}(:[1-9][0-9]{0,3})?", word, proptest::option::of(word))
            .prop_map(|(host, name, version)| KeyId::key_vault(&host, &name, version.as_deref()).unwrap()),
        ("[a-z2-7]{25}[aeimquy4]", word, proptest::option::of(word))
            .prop_map(|(id, name, version)| KeyId::vault(&id, &name, version.as_deref()).unwrap()),
        (label, label, proptest::option::of(proptest::collection::vec(any::<u8>(), 1..=64)))
            .prop_map(|(token, object, id)| KeyId::pkcs11(&token, &object, id.as_deref()).unwrap()),
    ]
}

proptest! {
    #[test]
    fn display_then_parse_is_the_same(key in any_key()) {
        prop_assert_eq!(key.to_string().parse::<KeyId>(), Ok(key));
    }

    #[test]
    fn versions_come_and_go(key in any_key(), version in "[0-9a-f]{32}") {
        let versioned = key.with_version(&version).unwrap();
        prop_assert!(versioned.same_key(&key));
        prop_assert_eq!(versioned.version(), Some(version.as_str()));
        prop_assert_eq!(versioned.without_version(), key.without_version());
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,80}") {
        let _ = text.parse::<KeyId>();
    }

    #[test]
    fn no_near_miss_panics_and_what_parses_is_canonical(
        text in "(https://|vault:|pkcs11:|HTTPS:)[a-z:;=%?&/\\[\\]@.#0-9é-]{0,60}"
    ) {
        if let Ok(key) = text.parse::<KeyId>() {
            prop_assert_eq!(key.to_string().parse::<KeyId>(), Ok(key));
        }
    }
}
