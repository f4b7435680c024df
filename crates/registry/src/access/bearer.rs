//! Bearer tokens of a token server, as Docker's registries have them (distribution's "Token Authentication Specification"):
//! JWTs (RFC 7519) that say what their bearer may do.
//!
//! ```text
//! without a token, or one that does not allow it ─► 401 Bearer realm="…",service="…",scope="repository:NAME:pull,push"
//! token ─► the key that it names, with that key's one algorithm ─► signature ─► iss, aud, exp, nbf ─► access
//! ```

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use axum::http::{HeaderMap, HeaderValue};
use bulla_listener::Watched;
use jsonwebtoken::{Validation, crypto, decode, decode_header};
use serde::Deserialize;

use super::keys::{self, Key};
use super::{Access, AccessError, Action, LOOK, Needs, Refused, authorization};

/// Far above what token servers issue.
const MAX_TOKEN: usize = 16 << 10;

/// Which tokens count.
#[derive(Clone, Debug)]
#[allow(clippy::exhaustive_structs, reason = "made by whoever sets access up, with all of them")]
pub struct BearerOptions {
    /// A file with the public key of the token server (PEM: RSA for RS256, P-256 for ES256, P-384 for ES384, Ed25519), or a
    /// JWK set. It is read again when it changes.
    pub keys: PathBuf,
    /// Who issues them: `iss`.
    pub issuer: String,
    /// What this registry is called there: `aud`.
    pub service: String,
    /// The URL where clients get them.
    pub realm: String,
}

/// Clients bring tokens that say what they may do.
pub struct Bearer {
    keys: Arc<Watched<Vec<Key>>>,
    options: BearerOptions,
}

/// What a token says, beside what [`Validation`] looks at.
#[derive(Deserialize)]
struct Claims {
    access: Option<Vec<Grant>>,
}

#[derive(Deserialize)]
struct Grant {
    r#type: String,
    name: String,
    #[serde(default)]
    actions: Vec<String>,
}

impl Bearer {
    /// Tokens as `options` say.
    ///
    /// # Errors
    /// If the file has no public keys, or one of the names can't be in a header.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn load(options: BearerOptions) -> Result<Self, AccessError> {
        // Other crates may have switched on another back end as well, and then the library does not choose. Who chose before
        // this is right as well.
        let _ = crypto::aws_lc::DEFAULT_PROVIDER.install_default();
        for (what, text) in
            [("issuer", &options.issuer), ("service", &options.service), ("realm", &options.realm)]
        {
            let quotable = |byte: u8| byte.is_ascii_graphic() && !b"\"\\".contains(&byte) || byte == b' ';
            if text.is_empty() || !text.bytes().all(quotable) {
                return Err(AccessError::new(format!(
                    "the {what} of tokens is printable ASCII without quotes"
                )));
            }
        }
        if !options.realm.starts_with("https://") && !options.realm.starts_with("http://") {
            return Err(AccessError::new(
                "the realm of tokens is the URL of the token server, such as https://auth.example/token",
            ));
        }
        let file = options.keys.clone();
        let keys = tokio::task::spawn_blocking(move || {
            Watched::load(vec![file.clone()], move || {
                let text = fs::read(&file).map_err(|error| {
                    AccessError::new(format!("the token keys {} can't be read", file.display()))
                        .because(error)
                })?;
                keys::parse(&text).map_err(|why| AccessError::new(format!("{}: {why}", file.display())))
            })
        });
        let keys = keys
            .await
            .map_err(|error| AccessError::new("the token keys could not be read").because(error))??;
        keys.watch(LOOK);
        Ok(Self { keys, options })
    }

    /// What the token grants; `None` if it does not hold.
    fn grants(&self, token: &str) -> Option<Vec<Grant>> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let id = decode_header(token).ok()?.kid;
        let keys = self.keys.get();
        // A key without an id, from a PEM file, may be any.
        let fits = |key: &&Key| key.id.is_none() || id.is_none() || key.id == id;
        let claims = keys.iter().filter(fits).find_map(|key| {
            let claims = decode::<Claims>(token, &key.key, &self.validation(key)).ok()?;
            Some(claims.claims)
        })?;
        Some(claims.access.unwrap_or_default())
    }

    fn validation(&self, key: &Key) -> Validation {
        let mut validation = Validation::new(key.algorithm);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.set_issuer(&[&self.options.issuer]);
        validation.set_audience(&[&self.options.service]);
        validation.validate_nbf = true;
        validation
    }

    fn challenge(&self, needs: Needs<'_>, error: Option<&str>) -> Refused {
        let BearerOptions { realm, service, .. } = &self.options;
        let mut challenge = format!(r#"Bearer realm="{realm}",service="{service}""#);
        match needs {
            Needs::Login => {}
            Needs::Catalog => challenge.push_str(r#",scope="registry:catalog:*""#),
            Needs::Repository { name, action } => {
                let actions = match action {
                    Action::Pull => "pull",
                    // Who pushes looks what is there.
                    Action::Push => "pull,push",
                    Action::Delete => "delete",
                };
                challenge.push_str(&format!(r#",scope="repository:{name}:{actions}""#));
            }
            Needs::Mount { name, from } => {
                let scope = format!(r#",scope="repository:{name}:pull,push repository:{from}:pull""#);
                challenge.push_str(&scope);
            }
        }
        if let Some(error) = error {
            challenge.push_str(&format!(r#",error="{error}""#));
        }
        // A name that can't be in a header is the name of no repository.
        HeaderValue::from_str(&challenge)
            .map_or(Refused::Denied, |challenge| Refused::Unauthorized { challenge })
    }
}

#[async_trait]
impl Access for Bearer {
    async fn check(&self, headers: &HeaderMap, needs: Needs<'_>) -> Result<(), Refused> {
        let Some(token) = authorization::bearer(headers) else { return Err(self.challenge(needs, None)) };
        let Some(grants) = self.grants(token) else {
            return Err(self.challenge(needs, Some("invalid_token")));
        };
        let granted = match &needs {
            Needs::Login => true,
            Needs::Catalog => grants.iter().any(|grant| grant.allows("registry", "catalog", "*")),
            Needs::Repository { name, action } => {
                grants.iter().any(|grant| grant.allows("repository", name, action.as_str()))
            }
            Needs::Mount { name, .. } => {
                grants.iter().any(|grant| grant.allows("repository", name, Action::Push.as_str()))
            }
        };
        if granted { Ok(()) } else { Err(self.challenge(needs, Some("insufficient_scope"))) }
    }
}

impl Grant {
    fn allows(&self, of: &str, name: &str, action: &str) -> bool {
        self.r#type == of && self.name == name && self.actions.iter().any(|may| may == action || may == "*")
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bearer").field("options", &self.options).finish_non_exhaustive()
    }
}
