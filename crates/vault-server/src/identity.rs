//! Tokens for managed identities, as App Service issues them: what the SDKs' `ManagedIdentityCredential` asks when
//! `IDENTITY_ENDPOINT` and `IDENTITY_HEADER` are set.
//!
//! ```text
//! GET {IDENTITY_ENDPOINT}?resource=https://…&api-version=2019-08-01[&client_id=ID]      X-IDENTITY-HEADER: {IDENTITY_HEADER}
//! ```
//!
//! Without an id it is the system-assigned identity. The endpoint is plain HTTP, because the credentials expect that, and
//! so on the loopback interface only: whoever knows the header can be anybody.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use bulla_kek::Identity;
use bulla_vault::Vault;
use data_encoding::HEXLOWER;
use serde_json::json;
use subtle::ConstantTimeEq;
use url::form_urlencoded;
use zeroize::Zeroizing;

use crate::api::Api;
use crate::audit::Entry;
use crate::error::ServerError;
use crate::faults;
use crate::reply;
use crate::token::{Audience, seconds};

pub(crate) const PATH: &str = "/msi/token";
/// As Entra ID's, less the last minutes, in which credentials ask anew anyway.
const TTL: Duration = Duration::from_secs(3600);
/// Longer ones are no URL of a vault.
const MAX_RESOURCE: usize = 512;

/// The endpoint for managed identities.
pub struct IdentityOptions {
    /// A loopback address; port 0 is any.
    pub listen: SocketAddr,
    /// What requests must bring; `None`: made at random.
    pub header: Option<Zeroizing<String>>,
}

/// Where it is, for the environment of a client.
pub struct IdentityEndpoint {
    /// `IDENTITY_ENDPOINT`
    pub url: String,
    /// `IDENTITY_HEADER`: a secret.
    pub header: Zeroizing<String>,
}

impl Default for IdentityOptions {
    /// Any port of 127.0.0.1, a random header.
    fn default() -> Self {
        Self { listen: (Ipv4Addr::LOCALHOST, 0).into(), header: None }
    }
}

impl IdentityOptions {
    pub(crate) fn header(&mut self, vault: &Vault) -> Result<Zeroizing<String>, ServerError> {
        let header = self.header.take().unwrap_or_else(|| {
            let mut random = Zeroizing::new([0; 32]);
            vault.fill_random(&mut *random);
            Zeroizing::new(HEXLOWER.encode(&*random))
        });
        if header.len() < 16 || !header.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ServerError::invalid("the identity header has 16 or more visible ASCII characters"));
        }
        Ok(header)
    }
}

/// The endpoint, for whoever brings the header.
pub(crate) fn router(api: Api, header: Zeroizing<String>) -> Router {
    let header = std::sync::Arc::new(header);
    let answer = move |request: Request| {
        let (api, header) = (api.clone(), header.clone());
        async move { answer(&api, &header, request).await }
    };
    Router::new().route(PATH, get(answer))
}

async fn answer(api: &Api, header: &str, request: Request) -> Response {
    let start = Instant::now();
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0);
    let mut entry = Entry::new("token", peer);
    let known = request
        .headers()
        .get("x-identity-header")
        .is_some_and(|given| bool::from(given.as_bytes().ct_eq(header.as_bytes())));
    let query = request.uri().query().unwrap_or_default().to_owned();
    drop(request);
    let response = if known {
        if let Some(fault) = api.0.token_faults.take() {
            return faults::happen(fault).await;
        }
        issue(api, &query, &mut entry)
    } else {
        refused(StatusCode::UNAUTHORIZED, "The header X-IDENTITY-HEADER is missing or wrong.", &mut entry)
    };
    api.logged(&mut entry, start, response)
}

fn issue(api: &Api, query: &str, entry: &mut Entry) -> Response {
    let (mut resource, mut id) = (None, None);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match name.to_ascii_lowercase().as_str() {
            "resource" => resource = Some(value.into_owned()),
            "client_id" | "principal_id" | "object_id" | "mi_res_id" => id = Some(value.into_owned()),
            _ => {}
        }
    }
    let Some(resource) = resource.filter(|url| url.starts_with("https://") && url.len() <= MAX_RESOURCE)
    else {
        return refused(StatusCode::BAD_REQUEST, "The query parameter resource is no https URL.", entry);
    };
    let identity = match &id {
        None => Some(Identity::System),
        // The system-assigned identity is nobody's to name.
        Some(id) => id.parse().ok().filter(|identity| *identity != Identity::System),
    };
    let Some(identity) = identity.filter(|identity| api.knows(identity)) else {
        let message = "No User Assigned or Delegated Managed Identity found for specified ClientId/ResourceId/PrincipalId.";
        return refused(StatusCode::BAD_REQUEST, message, entry);
    };
    entry.identity = Some(identity.to_string());
    entry.status = StatusCode::OK.as_u16();
    entry.outcome = "Success".into();
    let token = api.tokens().issue(&identity, &Audience::Resource(resource.clone()), TTL);
    let expires = seconds(std::time::SystemTime::now()).saturating_add(TTL.as_secs());
    let body = json!({
        "access_token": *token,
        "expires_on": expires.to_string(),
        "resource": resource,
        "token_type": "Bearer",
        "client_id": identity.as_str(),
    });
    reply::json(StatusCode::OK, &body)
}

/// App Service's own shape.
fn refused(status: StatusCode, message: &str, entry: &mut Entry) -> Response {
    entry.status = status.as_u16();
    entry.outcome = if status == StatusCode::UNAUTHORIZED { "Unauthorized" } else { "BadRequest" }.into();
    reply::json(status, &json!({ "statusCode": status.as_u16(), "message": message }))
}

impl fmt::Debug for IdentityOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentityOptions").field("listen", &self.listen).finish_non_exhaustive()
    }
}

impl fmt::Debug for IdentityEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentityEndpoint").field("url", &self.url).finish_non_exhaustive()
    }
}
