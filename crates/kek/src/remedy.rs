//! What a key's owner types to undo a refusal.
//!
//! Whoever reads the error may never have seen the vault, so the text names the whole command. Commands stand between
//! backticks. What can't be known from the key is in capitals: `DIR`, `SCOPE`.

use std::fmt;
use std::path::Path;

use crate::error::DenyReason;
use crate::key_id::{KeyId, Scheme};
use crate::key_uri::KeyUri;

/// How the owner of `key` gives it back to `identity` after a refusal for this reason.
pub fn restore(reason: DenyReason, key: &KeyUri, identity: &str) -> String {
    let (place, name) = (Place::of(key), key.name());
    match place {
        Place::Local(dir) => restore_local(reason, &dir, name, key.version(), identity),
        Place::Azure { host, vault, hsm } => {
            restore_azure(reason, &Azure { key, host, vault, hsm }, identity)
        }
        Place::Token(on) => restore_token(reason, on),
    }
}

/// How the owner makes `key` where there is none.
pub fn create(key: &KeyUri) -> String {
    let name = key.name();
    if key.version().is_some() && !matches!(Place::of(key), Place::Token(_)) {
        // Nobody can make a version of that name.
        return format!(
            "check name and version, or leave the version out to have the newest: {}",
            unversioned(key)
        );
    }
    match Place::of(key) {
        Place::Local(dir) => {
            format!("check the name, or make it: `bulla vault key create {dir} --name {name}`")
        }
        Place::Azure { vault, hsm: false, .. } => format!(
            "check the name, or make it: `az keyvault key create --vault-name {vault} --name {name} --kty RSA --size 3072 \
             --ops wrapKey unwrapKey`"
        ),
        Place::Azure { vault, hsm: true, .. } => format!(
            "check the name, or make it: `az keyvault key create --hsm-name {vault} --name {name} --kty oct-HSM --size 256 \
             --ops wrapKey unwrapKey`"
        ),
        Place::Token(on) => format!(
            "check the label, or make it: `pkcs11-tool --module MODULE --token-label '{}' --login --keygen --key-type AES:32 \
             --sensitive --private --label '{name}' --id {}`",
            on.host(),
            on.version().unwrap_or("01")
        ),
    }
}

fn unversioned(key: &KeyUri) -> String {
    let text = key.to_string();
    match key.version().and_then(|version| text.strip_suffix(version)) {
        Some(start) => start.trim_end_matches('/').to_owned(),
        None => text,
    }
}

/// Where a key is, as far as its name tells.
enum Place<'a> {
    /// A local vault's folder, or `DIR` where it is not known.
    Local(Dir<'a>),
    Azure {
        host: &'a str,
        vault: &'a str,
        hsm: bool,
    },
    Token(&'a KeyId),
}

struct Dir<'a>(Option<&'a Path>);

impl fmt::Display for Dir<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(dir) => dir.display().fmt(f),
            None => f.write_str("DIR"),
        }
    }
}

struct Azure<'a> {
    key: &'a KeyUri,
    host: &'a str,
    vault: &'a str,
    hsm: bool,
}

impl<'a> Place<'a> {
    fn of(key: &'a KeyUri) -> Self {
        match key {
            KeyUri::VaultFolder { dir, .. } => Self::Local(Dir(Some(dir))),
            KeyUri::Portable(key) => match key.scheme() {
                Scheme::Vault => Self::Local(Dir(None)),
                Scheme::KeyVault => Self::of_host(key),
                Scheme::Pkcs11 => Self::Token(key),
            },
        }
    }

    /// Outside Azure's domains it is the local vault's server that speaks like a key vault, whatever it is called.
    fn of_host(key: &'a KeyId) -> Self {
        match key.azure_vault() {
            Some((vault, domain)) => {
                Self::Azure { host: key.host(), vault, hsm: domain.starts_with("managedhsm.") }
            }
            None => Self::Local(Dir(None)),
        }
    }
}

fn restore_local(
    reason: DenyReason,
    dir: &Dir<'_>,
    name: &str,
    version: Option<&str>,
    identity: &str,
) -> String {
    let version = version.map(|version| format!(" --version {version}")).unwrap_or_default();
    match reason {
        DenyReason::IdentityUnknown => format!(
            "see that `bulla vault serve {dir}` knows the identity {identity} (--identity), and that it has a policy (`bulla \
             vault set-policy {dir} --identity {identity} --key-permissions get wrapKey unwrapKey`)"
        ),
        DenyReason::Forbidden => format!(
            "grant it: `bulla vault set-policy {dir} --identity {identity} --key-permissions get wrapKey unwrapKey`"
        ),
        DenyReason::Disabled => format!("`bulla vault key enable {dir} --name {name}{version}`"),
        DenyReason::Deleted => format!("`bulla vault key recover {dir} --name {name}`"),
        DenyReason::NotFound => {
            format!("restore the vault {dir} from a backup: without this key the store can't be read")
        }
        DenyReason::OperationNotPermitted => {
            format!("`bulla vault key set-attributes {dir} --name {name}{version} --ops wrapKey unwrapKey`")
        }
        DenyReason::Firewall => {
            format!("let this machine in: `bulla vault network-rule {dir} --add CIDR`")
        }
        DenyReason::Expired | DenyReason::NotYetValid => format!(
            "`bulla vault key set-attributes {dir} --name {name}{version} --expires DATE`, or rotate to another version"
        ),
    }
}

/// Tokens have their vendors' tools; what can be named is the attribute.
fn restore_token(reason: DenyReason, key: &KeyId) -> String {
    let token = key.host();
    match reason {
        DenyReason::IdentityUnknown | DenyReason::Forbidden | DenyReason::Firewall => {
            format!("give the user PIN of the token {token}: `BULLA_PKCS11_PIN_FILE=FILE`")
        }
        DenyReason::OperationNotPermitted | DenyReason::Disabled => format!(
            "set `CKA_DECRYPT` (or `CKA_UNWRAP`, whichever it had) of {key} to true again, with the token's own tool"
        ),
        DenyReason::NotFound | DenyReason::Deleted => format!(
            "restore {key} from the token's backup, or insert the right `{token}`: without this key the store can't be read"
        ),
        DenyReason::Expired => format!("set a later `CKA_END_DATE` of {key}, or rotate to another version"),
        DenyReason::NotYetValid => {
            format!("set an earlier `CKA_START_DATE` of {key}, or rotate to another version")
        }
    }
}

fn restore_azure(reason: DenyReason, at: &Azure<'_>, identity: &str) -> String {
    let Azure { key, host, vault, hsm } = at;
    let name = key.name();
    let vault_option = if *hsm { "--hsm-name" } else { "--vault-name" };
    // The machine's own identity has no name that its owner could type.
    let assignee = if identity == "system" { "PRINCIPAL_ID" } else { identity };
    match reason {
        DenyReason::Forbidden if *hsm => format!(
            "give it get, wrapKey and unwrapKey: `az keyvault role assignment create --hsm-name {vault} --role \"Managed HSM \
             Crypto Service Encryption User\" --assignee {assignee} --scope /keys/{name}`"
        ),
        DenyReason::Forbidden => format!(
            "give it get, wrapKey and unwrapKey: `az role assignment create --role \"Key Vault Crypto Service Encryption \
             User\" --assignee {assignee} --scope SCOPE`, or where the vault has access policies `az keyvault set-policy \
             --name {vault} --spn {assignee} --key-permissions get wrapKey unwrapKey`; both take effect after minutes"
        ),
        DenyReason::IdentityUnknown => format!(
            "see that the identity {identity} exists and is assigned to this machine (`az identity show`, `az vm identity \
             assign`), and that {host} is in its tenant"
        ),
        DenyReason::Firewall if *hsm => format!(
            "let this machine in: `az keyvault network-rule add --hsm-name {vault} --ip-address ADDRESS`, or use a private \
             endpoint"
        ),
        DenyReason::Firewall => format!(
            "let this machine in: `az keyvault network-rule add --name {vault} --ip-address ADDRESS`, or use a private \
             endpoint"
        ),
        DenyReason::Disabled => format!("`az keyvault key set-attributes --id {key} --enabled true`"),
        DenyReason::Deleted => {
            format!("`az keyvault key recover {vault_option} {vault} --name {name}`")
        }
        DenyReason::NotFound => format!(
            "restore it (`az keyvault key restore {vault_option} {vault} --file FILE`): without this key the store can't be \
             read"
        ),
        DenyReason::OperationNotPermitted => {
            format!("`az keyvault key set-attributes --id {key} --ops wrapKey unwrapKey`")
        }
        DenyReason::Expired => format!(
            "`az keyvault key set-attributes --id {key} --expires DATE`, or rotate to another version"
        ),
        DenyReason::NotYetValid => format!(
            "`az keyvault key set-attributes --id {key} --not-before DATE`, or rotate to another version"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REASONS: [DenyReason; 9] = [
        DenyReason::Forbidden,
        DenyReason::Disabled,
        DenyReason::Deleted,
        DenyReason::NotFound,
        DenyReason::Expired,
        DenyReason::NotYetValid,
        DenyReason::OperationNotPermitted,
        DenyReason::IdentityUnknown,
        DenyReason::Firewall,
    ];

    fn every(key: &str, tool: &str) -> Vec<String> {
        let key: KeyUri = key.parse().unwrap();
        let texts: Vec<String> = REASONS.iter().map(|reason| restore(*reason, &key, "web")).collect();
        for (text, reason) in texts.iter().zip(REASONS) {
            let backup = reason == DenyReason::NotFound;
            assert!(text.contains(tool) || backup && text.contains("backup"), "{reason:?}: {text}");
        }
        texts
    }

    #[test]
    fn every_refusal_has_a_command_that_undoes_it() {
        every("vault+file:///srv/v/keys/k", "/srv/v");
        every("https://localhost:8443/keys/k", "bulla vault");
        every("https://acme.vault.internal/keys/k", "bulla vault");
        every("vault:aaaaaaaaaaaaaaaaaaaaaaaaaa/keys/k", "bulla vault");
        let azure = every("https://contoso.vault.azure.net/keys/k/0123", "az ");
        assert!(azure[1].contains("--id https://contoso.vault.azure.net/keys/k/0123 --enabled true"));
        assert!(azure[2].contains("recover --vault-name contoso --name k"));
        let hsm = every("https://contoso.managedhsm.azure.net/keys/k", "az ");
        assert!(hsm[2].contains("recover --hsm-name contoso --name k"));
        assert!(hsm[0].contains("--assignee web"));
        every("pkcs11:token=HSM;object=k", "HSM");
    }

    #[test]
    fn the_machines_own_identity_is_named_by_its_principal() {
        let key = "https://contoso.vault.azure.net/keys/k".parse().unwrap();
        assert!(restore(DenyReason::Forbidden, &key, "system").contains("--spn PRINCIPAL_ID"));
    }

    #[test]
    fn keys_are_made_where_they_are_looked_for() {
        for (key, command) in [
            ("vault+file:///srv/v/keys/k", "bulla vault key create /srv/v --name k"),
            ("https://localhost:8443/keys/k", "bulla vault key create DIR --name k"),
            (
                "https://contoso.vault.azure.net/keys/k",
                "az keyvault key create --vault-name contoso --name k --kty RSA",
            ),
            ("https://contoso.managedhsm.azure.net/keys/k", "--hsm-name contoso --name k --kty oct-HSM"),
            ("pkcs11:token=My%20HSM;object=k", "--token-label 'My HSM' --login --keygen --key-type AES:32"),
        ] {
            let text = create(&key.parse().unwrap());
            assert!(text.contains(command), "{text}");
        }
    }

    #[test]
    fn a_version_that_is_not_there_is_a_wrong_name() {
        let text = create(&"https://contoso.vault.azure.net/keys/k/0123".parse().unwrap());
        assert!(text.ends_with(": https://contoso.vault.azure.net/keys/k"), "{text}");
    }
}
