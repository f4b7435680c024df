//! The `encryption` block of a registry's ARM template, as `init --encryption FILE` takes it.
//!
//! ```json
//! { "status": "enabled", "keyVaultProperties": { "identity": "CLIENT_ID", "keyIdentifier": "KEY_ID" } }
//! ```
//!
//! Names and `status` may have any letter case, as Azure takes them. What `az acr encryption show` and `bulla status` add
//! of their own may stand in it too; a name that nobody writes there is refused, because it may be a mistyped one.

use std::path::Path;

use bulla_kek::Identity;
use serde_json::{Map, Value};

use crate::exit::{Failure, Result};

/// The largest file that is read, in bytes: a block is a few hundred.
const MAX_LEN: u64 = 1 << 20;

/// What may stand in a block, in lower case.
const OF_BLOCK: [&str; 3] = ["status", "keyvaultproperties", "managedby"];
/// What may stand in `keyVaultProperties`, in lower case: what is to be, and what only an answer has.
const OF_KEY: [&str; 5] =
    ["identity", "keyidentifier", "versionedkeyidentifier", "keyrotationenabled", "lastkeyrotationtimestamp"];

/// What a block asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// `"status": "disabled"`: a service-managed key.
    ServiceManaged,
    /// `"status": "enabled"`: this key, used as this identity.
    CustomerManaged { key: String, identity: Identity },
}

/// Reads the block in a file.
pub(crate) fn read(path: &Path) -> Result<Wanted> {
    let meta = std::fs::metadata(path).map_err(|error| Failure::file("read", path, error))?;
    if meta.len() > MAX_LEN {
        return Err(Failure::invalid(format!(
            "{} is larger than 1 MiB: no encryption block",
            path.display()
        )));
    }
    let text = std::fs::read_to_string(path).map_err(|error| Failure::file("read", path, error))?;
    parse(&text).map_err(|failure| {
        Failure::invalid(format!("{}: {}", path.display(), failure.message)).with_fix(
            "write { \"status\": \"enabled\", \"keyVaultProperties\": { \"identity\": \"ID\", \"keyIdentifier\": \"KEY_ID\" } }",
        )
    })
}

fn parse(text: &str) -> Result<Wanted> {
    let value: Value =
        serde_json::from_str(text).map_err(|error| Failure::invalid("not JSON").with_source(error))?;
    let mut block = object(value, "the encryption block")?;
    // The block with its name, as it is cut from a template.
    if block.len() == 1
        && let Some(inner) = block.remove("encryption")
    {
        block = object(inner, "encryption")?;
    }
    only(&block, &OF_BLOCK)?;
    let status = text_of(&block, "status")?.ok_or_else(|| Failure::invalid("`status` is missing"))?;
    let properties = match block.remove("keyvaultproperties") {
        None | Some(Value::Null) => None,
        Some(properties) => Some(object(properties, "keyVaultProperties")?),
    };
    match (status.to_ascii_lowercase().as_str(), properties) {
        ("enabled", Some(properties)) => {
            only(&properties, &OF_KEY)?;
            let key = text_of(&properties, "keyidentifier")?;
            let key = key.ok_or_else(|| Failure::invalid("`keyVaultProperties.keyIdentifier` is missing"))?;
            let identity = match text_of(&properties, "identity")? {
                Some(text) => identity(&text)?,
                None => return Err(Failure::invalid("`keyVaultProperties.identity` is missing")),
            };
            Ok(Wanted::CustomerManaged { key, identity })
        }
        ("enabled", None) => {
            Err(Failure::invalid("`status` is enabled, so `keyVaultProperties` must say which key"))
        }
        ("disabled", None) => Ok(Wanted::ServiceManaged),
        ("disabled", Some(_)) => {
            Err(Failure::invalid("`status` is disabled, so `keyVaultProperties` has nothing to say"))
        }
        _ => Err(Failure::invalid("`status` is neither enabled nor disabled")),
    }
}

fn identity(text: &str) -> Result<Identity> {
    let text = if text.eq_ignore_ascii_case("system") { "system" } else { text };
    text.parse().map_err(|error| {
        Failure::invalid(format!("`keyVaultProperties.identity`: {error}")).with_source(error)
    })
}

/// The object with its names in lower case.
fn object(value: Value, what: &str) -> Result<Map<String, Value>> {
    let Value::Object(object) = value else {
        return Err(Failure::invalid(format!("{what} is not an object")));
    };
    let mut lower = Map::new();
    for (name, value) in object {
        if lower.insert(name.to_ascii_lowercase(), value).is_some() {
            return Err(Failure::invalid(format!("`{name}` stands in {what} twice")));
        }
    }
    Ok(lower)
}

fn only(object: &Map<String, Value>, known: &[&str]) -> Result<()> {
    match object.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(Failure::invalid(format!("`{name}` does not belong there"))),
        None => Ok(()),
    }
}

fn text_of(object: &Map<String, Value>, name: &str) -> Result<Option<String>> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if !text.is_empty() => Ok(Some(text.clone())),
        Some(_) => Err(Failure::invalid(format!("`{name}` is not a text"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn customer(key: &str, identity: &str) -> Wanted {
        Wanted::CustomerManaged { key: key.to_owned(), identity: identity.parse().unwrap() }
    }

    #[test]
    fn a_block_is_read_in_any_letter_case() {
        let camel = r#"{"status":"enabled","keyVaultProperties":{"identity":"id-1","keyIdentifier":"https://v.example/keys/K"}}"#;
        let upper = r#"{"STATUS":"Enabled","KEYVAULTPROPERTIES":{"Identity":"id-1","KeyIdentifier":"https://v.example/keys/K"}}"#;
        let named = format!(r#"{{"encryption":{camel}}}"#);
        for text in [camel, upper, &named] {
            assert_eq!(parse(text).unwrap(), customer("https://v.example/keys/K", "id-1"));
        }
    }

    #[test]
    fn the_system_assigned_identity_in_any_case() {
        let text = r#"{"status":"enabled","keyVaultProperties":{"identity":"System","keyIdentifier":"k"}}"#;
        assert_eq!(parse(text).unwrap(), customer("k", "system"));
    }

    #[test]
    fn what_status_prints_can_be_given_back() {
        let shown = r#"{"keyVaultProperties":{"identity":"web","keyIdentifier":"k","keyRotationEnabled":true,
            "lastKeyRotationTimestamp":null,"versionedKeyIdentifier":"k/1"},"status":"enabled"}"#;
        assert_eq!(parse(shown).unwrap(), customer("k", "web"));
        let service = r#"{"keyVaultProperties":null,"managedBy":"service","status":"disabled"}"#;
        assert_eq!(parse(service).unwrap(), Wanted::ServiceManaged);
    }

    #[test]
    fn what_is_incomplete_or_mistyped_is_refused_by_name() {
        for (text, word) in [
            ("{", "not JSON"),
            ("[]", "object"),
            ("{}", "`status`"),
            (r#"{"status":"on"}"#, "`status`"),
            (r#"{"status":"enabled"}"#, "keyVaultProperties"),
            (r#"{"status":"enabled","keyVaultProperties":{"identity":"i"}}"#, "keyIdentifier"),
            (r#"{"status":"enabled","keyVaultProperties":{"keyIdentifier":"k"}}"#, "identity"),
            (
                r#"{"status":"enabled","keyVaultProperties":{"identity":"a b","keyIdentifier":"k"}}"#,
                "identity",
            ),
            (r#"{"status":"enabled","keyVaultProperties":{"identity":1,"keyIdentifier":"k"}}"#, "identity"),
            (r#"{"status":"disabled","keyVaultProperties":{"keyIdentifier":"k"}}"#, "disabled"),
            (r#"{"status":"disabled","Status":"enabled"}"#, "twice"),
            (r#"{"status":"disabled","keyVaultProperty":null}"#, "keyvaultproperty"),
        ] {
            let failure = parse(text).unwrap_err();
            assert!(failure.message.contains(word), "{text}: {}", failure.message);
        }
    }
}
