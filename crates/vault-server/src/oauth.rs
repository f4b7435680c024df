//! Tokens for workload identities: the client-credentials grant of Entra ID with a federated token (RFC 6749 §4.4,
//! RFC 7523 §2.2).
//!
//! ```text
//! POST /TENANT/oauth2/v2.0/token
//! grant_type=client_credentials & client_id=ID & scope=RESOURCE/.default
//!   & client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer & client_assertion=TOKEN
//! ```
//!
//! The federated token is one of this vault, for the audience of token exchanges: `bulla vault token --exchange`.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, Request};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use bulla_kek::Identity;
use serde_json::json;
use url::form_urlencoded;
use zeroize::Zeroizing;

use crate::api::{self, Api};
use crate::audit::Entry;
use crate::faults;
use crate::reply;
use crate::token::Audience;

const SUFFIX: &str = "/oauth2/v2.0/token";
const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const TTL: Duration = Duration::from_secs(3600);

pub(crate) fn is_token_request(path: &str) -> bool {
    path.ends_with(SUFFIX)
}

pub(crate) async fn answer(api: &Api, request: Request) -> Response {
    let start = Instant::now();
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0);
    let mut entry = Entry::new("token", peer);
    if let Some(fault) = api.0.token_faults.take() {
        return faults::happen(fault).await;
    }
    let issued = issue(api, request).await;
    let response = match issued {
        Ok((identity, response)) => {
            entry.identity = Some(identity.to_string());
            entry.outcome = "Success".into();
            response
        }
        Err((code, message)) => {
            entry.outcome = code.into();
            let status =
                if code == "invalid_client" { StatusCode::UNAUTHORIZED } else { StatusCode::BAD_REQUEST };
            reply::json(status, &json!({ "error": code, "error_description": message }))
        }
    };
    entry.status = response.status().as_u16();
    api.logged(&mut entry, start, response)
}

type Refused = (&'static str, &'static str);

async fn issue(api: &Api, request: Request) -> Result<(Identity, Response), Refused> {
    if request.method() != Method::POST {
        return Err(("invalid_request", "Tokens are asked for with POST."));
    }
    let tenant = request.uri().path().trim_start_matches('/').trim_end_matches(SUFFIX);
    if !tenant.eq_ignore_ascii_case(api.tokens().tenant()) {
        return Err(("invalid_request", "AADSTS90002: The tenant is not this vault's."));
    }
    let body =
        api::read(request.into_body()).await.map_err(|_| ("invalid_request", "The form can't be read."))?;
    let form = Form::parse(&body);
    if form.grant_type != "client_credentials" {
        return Err(("unsupported_grant_type", "AADSTS70003: The grant is not client_credentials."));
    }
    let resource = form.scope.strip_suffix("/.default").filter(|scope| scope.starts_with("https://"));
    let resource = resource.ok_or(("invalid_scope", "AADSTS70011: The scope is not RESOURCE/.default."))?;
    let unknown = ("invalid_client", "AADSTS700213: No federated identity of this vault fits the assertion.");
    if form.assertion_type != ASSERTION {
        return Err(unknown);
    }
    let identity = api
        .tokens()
        .identity(&form.assertion, &[Audience::TokenExchange])
        .filter(|identity| identity.as_str() == form.client_id && api.knows(identity))
        .ok_or(unknown)?;
    let token = api.tokens().issue(&identity, &Audience::Resource(resource.to_owned()), TTL);
    let seconds = TTL.as_secs();
    let body = json!({
        "token_type": "Bearer", "expires_in": seconds, "ext_expires_in": seconds, "access_token": *token,
    });
    Ok((identity, reply::json(StatusCode::OK, &body)))
}

#[derive(Default)]
struct Form {
    grant_type: String,
    client_id: String,
    scope: String,
    assertion_type: String,
    assertion: Zeroizing<String>,
}

impl Form {
    fn parse(body: &[u8]) -> Self {
        let mut form = Self::default();
        for (name, value) in form_urlencoded::parse(body) {
            let value = value.into_owned();
            match &*name {
                "grant_type" => form.grant_type = value,
                "client_id" => form.client_id = value,
                "scope" => form.scope = value,
                "client_assertion_type" => form.assertion_type = value,
                "client_assertion" => form.assertion = Zeroizing::new(value),
                _ => {}
            }
        }
        form
    }
}
