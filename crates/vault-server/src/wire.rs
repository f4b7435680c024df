//! Bodies of requests and answers, as Key Vault's REST API has them.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bulla_vault::{KeyAttributes, KeyBundle, KeyItem};
use data_encoding::BASE64URL_NOPAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::reply::Refusal;

/// `POST /keys/NAME/create`
#[derive(Deserialize)]
pub(crate) struct CreateBody {
    pub(crate) kty: String,
    pub(crate) key_size: Option<u32>,
    pub(crate) public_exponent: Option<u64>,
    pub(crate) key_ops: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) attributes: AttributesBody,
    #[serde(default)]
    pub(crate) tags: Option<BTreeMap<String, String>>,
    pub(crate) release_policy: Option<Value>,
}

/// `PUT /keys/NAME`
#[derive(Deserialize)]
pub(crate) struct ImportBody {
    pub(crate) key: JwkBody,
    #[serde(default, alias = "Hsm")]
    pub(crate) hsm: Option<bool>,
    #[serde(default)]
    pub(crate) attributes: AttributesBody,
    #[serde(default)]
    pub(crate) tags: Option<BTreeMap<String, String>>,
    pub(crate) release_policy: Option<Value>,
}

/// A private key (RFC 7518 §6.3.2, §6.4). The CRT values follow from the rest.
#[derive(Deserialize)]
pub(crate) struct JwkBody {
    pub(crate) kty: String,
    pub(crate) key_ops: Option<Vec<String>>,
    pub(crate) n: Option<SecretBytes>,
    pub(crate) e: Option<SecretBytes>,
    pub(crate) d: Option<SecretBytes>,
    pub(crate) p: Option<SecretBytes>,
    pub(crate) q: Option<SecretBytes>,
    pub(crate) k: Option<SecretBytes>,
}

/// `PATCH /keys/NAME[/VERSION]`
#[derive(Deserialize)]
pub(crate) struct UpdateBody {
    pub(crate) key_ops: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) attributes: AttributesBody,
    pub(crate) tags: Option<BTreeMap<String, String>>,
}

/// `POST /keys/NAME[/VERSION]/wrapkey` and its like.
#[derive(Deserialize)]
pub(crate) struct UseBody {
    pub(crate) alg: String,
    pub(crate) value: SecretBytes,
}

#[derive(Deserialize, Default)]
pub(crate) struct AttributesBody {
    pub(crate) enabled: Option<bool>,
    pub(crate) nbf: Option<u64>,
    pub(crate) exp: Option<u64>,
    pub(crate) exportable: Option<bool>,
}

/// Base64url, which may be a secret: wiped when dropped.
pub(crate) struct SecretBytes(pub(crate) Zeroizing<Vec<u8>>);

impl<'de> Deserialize<'de> for SecretBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        // RFC 7515 has no padding; some clients write it all the same.
        BASE64URL_NOPAD
            .decode(text.trim_end_matches('=').as_bytes())
            .map(|bytes| Self(Zeroizing::new(bytes)))
            // The decoder's own message repeats a byte of what may be a secret.
            .map_err(|_| serde::de::Error::custom("a value is not base64url"))
    }
}

/// The body, whatever its content type says. The message never repeats what is in it.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| {
        let what = match error.classify() {
            serde_json::error::Category::Data => "a field is missing or of the wrong type",
            _ => "it is not JSON",
        };
        let at = format!("line {}, column {}", error.line(), error.column());
        Refusal::bad_parameter(format!("The request's body can't be used: {what} ({at})."))
    })
}

/// A time in seconds since 1970.
pub(crate) fn time(seconds: Option<u64>) -> Result<Option<SystemTime>, Refusal> {
    seconds
        .map(|seconds| {
            UNIX_EPOCH
                .checked_add(Duration::from_secs(seconds))
                .ok_or_else(|| Refusal::bad_parameter("A time is out of range."))
        })
        .transpose()
}

/// A key; `host` is `https://HOST[:PORT]`.
pub(crate) fn key(host: &str, bundle: &KeyBundle) -> Value {
    let KeyBundle { key, name, version, .. } = bundle;
    let mut body = json!({
        "key": { "kid": format!("{host}/keys/{name}/{version}"), "kty": key.kty, "key_ops": key.key_ops },
        "attributes": attributes(&bundle.attributes),
    });
    for (field, value) in [("n", &key.n), ("e", &key.e)] {
        if let Some(value) = value {
            body["key"][field] = json!(value);
        }
    }
    if !bundle.tags.is_empty() {
        body["tags"] = json!(bundle.tags);
    }
    deletion(host, name, bundle.deleted_date, &mut body);
    body
}

/// One line of a listing.
pub(crate) fn item(host: &str, item: &KeyItem) -> Value {
    let mut kid = format!("{host}/keys/{}", item.name);
    if let Some(version) = &item.version {
        kid.push('/');
        kid.push_str(version);
    }
    let mut body = json!({ "kid": kid, "attributes": attributes(&item.attributes) });
    if !item.tags.is_empty() {
        body["tags"] = json!(item.tags);
    }
    deletion(host, &item.name, item.deleted_date, &mut body);
    body
}

/// No `scheduledPurgeDate` and no `recoverableDays`: this vault purges nothing by itself.
fn deletion(host: &str, name: &str, deleted: Option<u64>, body: &mut Value) {
    if let Some(deleted) = deleted {
        body["recoveryId"] = json!(format!("{host}/deletedkeys/{name}"));
        body["deletedDate"] = json!(deleted);
    }
}

fn attributes(attributes: &KeyAttributes) -> Value {
    let mut body = json!({
        "enabled": attributes.enabled,
        "created": attributes.created,
        "updated": attributes.updated,
        "recoveryLevel": attributes.recovery_level,
    });
    for (field, value) in [("nbf", attributes.nbf), ("exp", attributes.exp)] {
        if let Some(value) = value {
            body[field] = json!(value);
        }
    }
    body
}
