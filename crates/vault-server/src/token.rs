//! Bearer tokens: JWT (RFC 7519) signed with HMAC-SHA-256 under a key derived from the vault's.
//!
//! ```text
//! token = base64url(header) "." base64url(claims) "." base64url(HMAC-SHA-256(token key, all before the last "."))
//! ```
//!
//! Written out, because the one header that is ever valid is compared as text: no token chooses its algorithm. Nothing is
//! stored, so a token can't be taken back; what its identity may do is looked up at every request.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bulla_envelope::secret::Secret;
use bulla_kek::Identity;
use bulla_vault::{Vault, VaultError};
use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::Zeroizing;

/// `{"typ":"JWT","alg":"HS256"}`
const HEADER: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9";
/// Far above what is issued here.
const MAX_LEN: usize = 4096;

/// Issues and checks the tokens of one vault.
pub struct Tokens {
    key: Secret<32>,
    vault: String,
    tenant: String,
}

/// What a token is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Audience {
    /// This vault, whatever host name its server has.
    Vault,
    /// The server that names this resource in its challenge.
    Resource(String),
    /// The token endpoint, as a workload's federated token.
    TokenExchange,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    aud: String,
    iss: String,
    iat: u64,
    nbf: u64,
    exp: u64,
    /// The identity; `sub` and `appid` repeat it for those who look there.
    oid: String,
    sub: String,
    appid: String,
    tid: String,
    ver: String,
}

impl Tokens {
    /// What Entra ID calls the audience of federated tokens.
    const EXCHANGE: &str = "api://AzureADTokenExchange";

    /// Those of this vault. Takes as long as opening it.
    ///
    /// # Errors
    /// If the passphrase is missing or wrong, or the vault can't be read.
    pub fn new(vault: &Vault) -> Result<Self, VaultError> {
        Ok(Self { key: vault.token_key()?, vault: vault.id().to_owned(), tenant: tenant(vault.id()) })
    }

    /// The tenant that the server says it belongs to: a UUID made from the vault's id.
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// A token that lets its bearer be this identity for so long.
    pub fn issue(&self, identity: &Identity, audience: &Audience, ttl: Duration) -> Zeroizing<String> {
        self.issue_at(SystemTime::now(), identity, audience, ttl)
    }

    fn issue_at(
        &self,
        now: SystemTime,
        identity: &Identity,
        audience: &Audience,
        ttl: Duration,
    ) -> Zeroizing<String> {
        let now = seconds(now);
        let claims = Claims {
            aud: self.audience(audience),
            iss: self.issuer(),
            iat: now,
            nbf: now,
            exp: now.saturating_add(ttl.as_secs()),
            oid: identity.to_string(),
            sub: identity.to_string(),
            appid: identity.to_string(),
            tid: self.tenant.clone(),
            ver: "1.0".into(),
        };
        let claims = serde_json::to_vec(&claims).expect("claims are text and numbers");
        let mut token = Zeroizing::new(format!("{HEADER}.{}", BASE64URL_NOPAD.encode(&claims)));
        let mac = self.mac(token.as_bytes()).finalize().into_bytes();
        token.push('.');
        token.push_str(&BASE64URL_NOPAD.encode(&mac));
        token
    }

    /// As whom the bearer may act; `None` unless the token is this vault's, is valid now and is for one of the audiences.
    pub(crate) fn identity(&self, token: &str, audiences: &[Audience]) -> Option<Identity> {
        self.identity_at(SystemTime::now(), token, audiences)
    }

    fn identity_at(&self, now: SystemTime, token: &str, audiences: &[Audience]) -> Option<Identity> {
        if token.len() > MAX_LEN {
            return None;
        }
        let (signed, mac) = token.rsplit_once('.')?;
        let claims = signed.strip_prefix(HEADER)?.strip_prefix('.')?;
        let mac = BASE64URL_NOPAD.decode(mac.as_bytes()).ok()?;
        self.mac(signed.as_bytes()).verify_slice(&mac).ok()?;
        let claims: Claims = serde_json::from_slice(&BASE64URL_NOPAD.decode(claims.as_bytes()).ok()?).ok()?;
        let now = seconds(now);
        let fits = claims.iss == self.issuer()
            && claims.nbf <= now
            && now < claims.exp
            && audiences.iter().any(|audience| self.audience(audience) == claims.aud);
        if fits { claims.oid.parse().ok() } else { None }
    }

    fn audience(&self, audience: &Audience) -> String {
        match audience {
            Audience::Vault => self.issuer(),
            Audience::Resource(resource) => resource.trim_end_matches('/').to_owned(),
            Audience::TokenExchange => Self::EXCHANGE.to_owned(),
        }
    }

    fn issuer(&self) -> String {
        format!("vault:{}", self.vault)
    }

    fn mac(&self, signed: &[u8]) -> Hmac<Sha256> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(self.key.expose()).expect("HMAC takes keys of any length");
        mac.update(signed);
        mac
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("vault", &self.vault).finish_non_exhaustive()
    }
}

/// Seconds since 1970; 0 before.
pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The 16 bytes of a vault's id in the form of a UUID.
fn tenant(vault: &str) -> String {
    let bytes = data_encoding::BASE32_NOPAD.decode(vault.to_ascii_uppercase().as_bytes()).unwrap_or_default();
    let hex = data_encoding::HEXLOWER.encode(&bytes);
    let part = |range: std::ops::Range<usize>| hex.get(range).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0..8), part(8..12), part(12..16), part(16..20), part(20..32))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VAULT: &str = "aaaqeayeaudaocajbifqydiob4";

    fn tokens(key: u8) -> Tokens {
        let key = Secret::from_slice(&[key; 32]).unwrap();
        Tokens { key, vault: VAULT.into(), tenant: tenant(VAULT) }
    }

    fn user() -> Identity {
        Identity::User("registry".into())
    }

    #[test]
    fn a_token_is_its_identity_for_its_time_and_audience() {
        let tokens = tokens(1);
        let (start, hour) = (UNIX_EPOCH + Duration::from_secs(1_800_000_000), Duration::from_secs(3600));
        let token = tokens.issue_at(start, &user(), &Audience::Vault, hour);
        let at = |time, audience| tokens.identity_at(time, &token, &[audience]);
        assert_eq!(at(start, Audience::Vault), Some(user()));
        assert_eq!(at(start + hour - Duration::from_secs(1), Audience::Vault), Some(user()));
        assert_eq!(at(start + hour, Audience::Vault), None, "expired");
        assert_eq!(at(start - Duration::from_secs(1), Audience::Vault), None, "not valid yet");
        assert_eq!(at(start, Audience::TokenExchange), None, "for something else");
        assert_eq!(at(start, Audience::Resource("https://localhost".into())), None);

        let resource = Audience::Resource("https://localhost:8443/".into());
        let token = tokens.issue_at(start, &Identity::System, &resource, hour);
        let same = Audience::Resource("https://localhost:8443".into());
        assert_eq!(tokens.identity_at(start, &token, &[Audience::Vault, same]), Some(Identity::System));
    }

    #[test]
    fn nothing_forged_is_anybody() {
        let tokens_1 = tokens(1);
        let token = tokens_1.issue(&user(), &Audience::Vault, Duration::from_secs(3600));
        let seen = |token: &str| tokens_1.identity(token, &[Audience::Vault]);
        assert_eq!(seen(&token), Some(user()));
        assert_eq!(tokens(2).identity(&token, &[Audience::Vault]), None, "another vault's");
        for at in 0..token.len() {
            let mut changed = token.as_bytes().to_vec();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            // The last character has two bits that mean nothing; strict decoding refuses those too.
            assert_eq!(seen(std::str::from_utf8(&changed).unwrap()), None, "at {at}");
        }
        let (rest, _) = token.rsplit_once('.').unwrap();
        let none = BASE64URL_NOPAD.encode(br#"{"typ":"JWT","alg":"none"}"#);
        let claims = rest.split_once('.').unwrap().1;
        for forged in
            [format!("{none}.{claims}."), format!("{rest}."), rest.to_owned(), String::new(), "..".into()]
        {
            assert_eq!(seen(&forged), None, "{forged}");
        }
        assert_eq!(seen(&"a.".repeat(1 << 20)), None);
    }

    #[test]
    fn a_tenant_looks_like_one() {
        assert_eq!(tenant(VAULT), "00010203-0405-0607-0809-0a0b0c0d0e0f");
    }
}
