//! The operations themselves, on a thread that may block.

use std::net::SocketAddr;

use bulla_kek::{Identity, KeyKind};
use bulla_vault::{
    Algorithm, AttributeChanges, CreateKey, ImportKey, KeyBundle, KeyItem, KeyOperation, KeyUse, Manner,
    PrivateKey, Vault, VaultError, VaultErrorKind,
};
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::paging::Query;
use crate::reply::Refusal;
use crate::route::Route;
use crate::wire::{self, CreateBody, ImportBody, SecretBytes, UpdateBody, UseBody};

/// One request whose sender is known.
pub(crate) struct Call {
    pub(crate) route: Route,
    pub(crate) identity: Identity,
    pub(crate) peer: Option<SocketAddr>,
    /// `https://HOST[:PORT]`
    pub(crate) host: String,
    pub(crate) query: Query,
    pub(crate) body: Zeroizing<Vec<u8>>,
}

/// What is answered.
pub(crate) struct Done {
    /// `None`: 204.
    pub(crate) body: Option<Value>,
    /// The version that was made or used.
    pub(crate) version: Option<String>,
}

impl Call {
    pub(crate) fn run(&self, vault: &Vault) -> Result<Done, Refusal> {
        self.query.check_version()?;
        self.authorize(vault)?;
        match &self.route {
            Route::List => {
                self.page("keys", vault.list_keys().map_err(|error| Refusal::of_change("", &error))?)
            }
            Route::ListDeleted => {
                let items = vault.list_deleted_keys().map_err(|error| Refusal::of_change("", &error))?;
                self.page("deletedkeys", items)
            }
            Route::Versions { name } => {
                let items = vault.list_versions(name).map_err(|error| gone(name, &error))?;
                self.page(&format!("keys/{name}/versions"), items)
            }
            Route::Get { name, version } => {
                self.key(vault.show_key(name, version.as_deref()).map_err(|error| gone(name, &error)))
            }
            Route::GetDeleted { name } => {
                self.key(vault.show_deleted_key(name).map_err(|error| gone(name, &error)))
            }
            Route::Create { name } => self.key(create(vault, name, wire::parse(&self.body)?)),
            Route::Import { name } => self.key(import(vault, name, wire::parse(&self.body)?)),
            Route::Update { name, version } => {
                self.key(update(vault, name, version.as_deref(), wire::parse(&self.body)?))
            }
            Route::Delete { name } => self.key(vault.delete_key(name).map_err(|error| gone(name, &error))),
            Route::Recover { name } => self.key(vault.recover_key(name).map_err(|error| gone(name, &error))),
            Route::Purge { name } => {
                vault.purge_key(name).map_err(|error| gone(name, &error))?;
                Ok(Done { body: None, version: None })
            }
            Route::Use { operation, name, version } => {
                self.use_key(vault, *operation, name, version.as_deref(), wire::parse(&self.body)?)
            }
        }
    }

    /// The firewall first, then the policy; both as they are now.
    fn authorize(&self, vault: &Vault) -> Result<(), Refusal> {
        let failed = |error| Refusal::of_change("", &error);
        let rules = vault.network_rules().map_err(failed)?;
        // Who can't be placed is from no network that a rule names.
        let address = self.peer.map_or(std::net::Ipv4Addr::UNSPECIFIED.into(), |peer| peer.ip());
        let identity = &self.identity;
        if !rules.permit(address, identity) {
            let message = format!(
                "Client address is not authorized and caller is not a trusted service.\r\nClient address: {address}\r\n\
                 Caller: oid={identity}\r\nVault: {}",
                vault.id()
            );
            return Err(Refusal::forbidden("ForbiddenByFirewall", message));
        }
        let permission = self.route.permission();
        if !vault.permits(identity, permission).map_err(failed)? {
            let message = format!(
                "The user, group or application 'oid={identity}' does not have keys {permission} permission on key vault \
                 '{}'.",
                vault.id()
            );
            return Err(Refusal::forbidden("ForbiddenByPolicy", message));
        }
        Ok(())
    }

    fn key(&self, bundle: Result<KeyBundle, Refusal>) -> Result<Done, Refusal> {
        let bundle = bundle?;
        Ok(Done { body: Some(wire::key(&self.host, &bundle)), version: Some(bundle.version) })
    }

    fn page(&self, path: &str, items: Vec<KeyItem>) -> Result<Done, Refusal> {
        let mut items: Vec<_> = items
            .iter()
            .map(|item| {
                let key = item.version.clone().unwrap_or_else(|| item.name.to_ascii_lowercase());
                (key, wire::item(&self.host, item))
            })
            .collect();
        items.sort_by(|(left, _), (right, _)| left.cmp(right));
        let body = self.query.page(&format!("{}/{path}", self.host), items)?;
        Ok(Done { body: Some(body), version: None })
    }

    fn use_key(
        &self,
        vault: &Vault,
        operation: KeyOperation,
        name: &str,
        version: Option<&str>,
        body: UseBody,
    ) -> Result<Done, Refusal> {
        let algorithm: Algorithm = body.alg.parse().map_err(|error: bulla_vault::UnknownAlgorithm| {
            Refusal::bad_parameter(format!("The algorithm is not supported: {error}."))
        })?;
        let what = KeyUse { name, version, operation, algorithm, input: &body.value.0 };
        let used = vault
            .use_key(&self.identity, Manner::Service, &what)
            .map_err(|error| Refusal::of_use(operation.as_str(), name, &error))?;
        let kid = format!("{}/keys/{}/{}", self.host, used.name, used.version);
        let body = json!({ "kid": kid, "value": BASE64URL_NOPAD.encode(&used.output) });
        Ok(Done { body: Some(body), version: Some(used.version) })
    }
}

/// Where a conflict means that the key is deleted, or isn't: as good as not there.
fn gone(name: &str, error: &VaultError) -> Refusal {
    match error.kind() {
        VaultErrorKind::Conflict => Refusal::not_found(name),
        _ => Refusal::of_change(name, error),
    }
}

fn create(vault: &Vault, name: &str, body: CreateBody) -> Result<KeyBundle, Refusal> {
    not_released(body.release_policy.is_some() || body.attributes.exportable == Some(true))?;
    if body.public_exponent.is_some_and(|exponent| exponent != 65_537) {
        return Err(Refusal::bad_parameter("The public exponent of new keys is 65537."));
    }
    let (base, hsm) = key_type(&body.kty)?;
    let kind = match base {
        Base::Rsa => KeyKind::Rsa { bits: body.key_size.unwrap_or(2048) },
        Base::Aes => KeyKind::Aes { bits: body.key_size.unwrap_or(256) },
    };
    let mut options = CreateKey::new(name, kind);
    options.hsm = hsm;
    options.enabled = body.attributes.enabled.unwrap_or(true);
    options.not_before = wire::time(body.attributes.nbf)?;
    options.expires = wire::time(body.attributes.exp)?;
    options.key_ops = body.key_ops.filter(|ops| !ops.is_empty()).unwrap_or_else(|| base.operations());
    options.tags = body.tags.unwrap_or_default();
    vault.create_key(&options).map_err(|error| Refusal::of_change(name, &error))
}

fn import(vault: &Vault, name: &str, body: ImportBody) -> Result<KeyBundle, Refusal> {
    not_released(body.release_policy.is_some() || body.attributes.exportable == Some(true))?;
    let jwk = body.key;
    let (base, hsm) = key_type(&jwk.kty)?;
    let missing =
        || Refusal::bad_parameter("The key is not whole: RSA keys have n, e, d, p and q, symmetric ones k.");
    let part = |part: Option<SecretBytes>| part.map(|SecretBytes(bytes)| bytes).ok_or_else(missing);
    let private = match base {
        Base::Rsa => PrivateKey::Rsa {
            n: part(jwk.n)?.to_vec(),
            e: part(jwk.e)?.to_vec(),
            d: part(jwk.d)?,
            p: part(jwk.p)?,
            q: part(jwk.q)?,
        },
        Base::Aes => PrivateKey::Aes(part(jwk.k)?),
    };
    let mut options = CreateKey::new(name, private.kind());
    options.hsm = hsm || body.hsm == Some(true);
    options.enabled = body.attributes.enabled.unwrap_or(true);
    options.not_before = wire::time(body.attributes.nbf)?;
    options.expires = wire::time(body.attributes.exp)?;
    options.key_ops = jwk.key_ops.filter(|ops| !ops.is_empty()).unwrap_or_else(|| base.operations());
    options.tags = body.tags.unwrap_or_default();
    vault.import_key(&ImportKey { options, private }).map_err(|error| Refusal::of_change(name, &error))
}

fn update(vault: &Vault, name: &str, version: Option<&str>, body: UpdateBody) -> Result<KeyBundle, Refusal> {
    let changes = AttributeChanges {
        enabled: body.attributes.enabled,
        not_before: wire::time(body.attributes.nbf)?.map(Some),
        expires: wire::time(body.attributes.exp)?.map(Some),
        key_ops: body.key_ops,
        tags: body.tags,
    };
    vault.set_attributes(name, version, &changes).map_err(|error| gone(name, &error))
}

#[derive(Clone, Copy)]
enum Base {
    Rsa,
    Aes,
}

impl Base {
    /// What Key Vault gives a key that none are asked for.
    fn operations(self) -> Vec<String> {
        let operations: &[&str] = match self {
            Self::Rsa => &["encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey"],
            Self::Aes => &["encrypt", "decrypt", "wrapKey", "unwrapKey"],
        };
        operations.iter().map(|&operation| operation.to_owned()).collect()
    }
}

/// The type, and whether an HSM is asked for.
fn key_type(kty: &str) -> Result<(Base, bool), Refusal> {
    let upper = kty.to_ascii_uppercase();
    let (base, hsm) = match upper.strip_suffix("-HSM") {
        Some(base) => (base, true),
        None => (upper.as_str(), false),
    };
    match base {
        "RSA" => Ok((Base::Rsa, hsm)),
        "OCT" => Ok((Base::Aes, hsm)),
        _ => Err(Refusal::bad_parameter("This vault keeps keys of type RSA, RSA-HSM, oct and oct-HSM.")),
    }
}

/// Nothing private leaves the vault.
fn not_released(asked: bool) -> Result<(), Refusal> {
    if asked {
        return Err(Refusal::bad_parameter(
            "This vault releases no keys: leave out exportable and release_policy.",
        ));
    }
    Ok(())
}
