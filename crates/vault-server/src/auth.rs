//! Who asks: bearer tokens, and the challenge for those who bring none.

use axum::http::header::{AUTHORIZATION, HOST, WWW_AUTHENTICATE};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bulla_kek::Identity;

use crate::reply::Refusal;
use crate::token::{Audience, Tokens};

/// The host that the client believes to talk to: its key ids begin with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host(String);

impl Host {
    /// From the request's target (HTTP/2) or its `Host` header.
    pub(crate) fn of(uri: &Uri, headers: &HeaderMap) -> Option<Self> {
        let authority = match uri.authority() {
            Some(authority) => authority.clone(),
            None => headers.get(HOST)?.to_str().ok()?.parse::<Authority>().ok()?,
        };
        // It goes into a header and into every key id.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
        let fits = !authority.host().is_empty() && authority.as_str().bytes().all(plain);
        fits.then(|| Self(authority.as_str().to_ascii_lowercase()))
    }

    /// `https://HOST[:PORT]`
    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.0)
    }

    /// What tokens are asked for: the domain that the vault's host is in, as `vault.azure.net` is for
    /// `NAME.vault.azure.net`, so that clients that compare the two are content. Where there is no such domain, the host
    /// itself; those clients must be told not to compare (`verify_challenge_resource`).
    pub(crate) fn resource(&self) -> String {
        let address = self.0.starts_with('[')
            || self.0.split(':').next().is_some_and(|host| host.parse::<std::net::Ipv4Addr>().is_ok());
        let domain = match self.0.split_once('.') {
            Some((_, domain)) if !address && (domain.contains('.') || domain.starts_with("localhost")) => {
                domain
            }
            _ => &self.0,
        };
        format!("https://{domain}")
    }
}

/// As whom the request is made.
pub(crate) fn identity(tokens: &Tokens, host: &Host, headers: &HeaderMap) -> Result<Identity, Unauthorized> {
    let Some(header) = headers.get(AUTHORIZATION) else { return Err(Unauthorized::NoToken) };
    let token = header.to_str().ok().and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let token = token.ok_or(Unauthorized::NoToken)?;
    tokens
        .identity(token, &[Audience::Vault, Audience::Resource(host.resource())])
        .ok_or(Unauthorized::BadToken)
}

/// 401
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unauthorized {
    NoToken,
    BadToken,
}

impl Unauthorized {
    pub(crate) fn challenge(self, tokens: &Tokens, host: &Host) -> Response {
        let (message, error) = match self {
            Self::NoToken => ("AKV10000: Request is missing a Bearer or PoP token.", ""),
            Self::BadToken => (
                "AKV10001: The token is not this vault's, has expired, or is for another audience.",
                r#", error="invalid_token""#,
            ),
        };
        let (authority, resource) = (host.url(), host.resource());
        let tenant = tokens.tenant();
        let challenge =
            format!(r#"Bearer authorization="{authority}/{tenant}", resource="{resource}"{error}"#);
        let mut response = Refusal::new(StatusCode::UNAUTHORIZED, "Unauthorized", message).into_response();
        let challenge = HeaderValue::from_str(&challenge).expect("hosts and ids are visible ASCII");
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Option<Host> {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_str(text).unwrap());
        Host::of(&Uri::from_static("/keys"), &headers)
    }

    #[test]
    fn a_resource_is_the_domain_of_the_host() {
        for (text, resource) in [
            ("Acme.Vault.internal:8443", "https://vault.internal:8443"),
            ("acme.localhost:8443", "https://localhost:8443"),
            ("localhost:8443", "https://localhost:8443"),
            ("127.0.0.1:8443", "https://127.0.0.1:8443"),
            ("[::1]:8443", "https://[::1]:8443"),
            ("vault.internal", "https://vault.internal"),
        ] {
            assert_eq!(host(text).unwrap().resource(), resource, "{text}");
        }
        for text in ["user@host", "a b", "a,b", "a'b", "(a)", "%41", "h\u{f6}st"] {
            assert_eq!(host(text), None, "{text}");
        }
    }
}
