//! The SDK's transport: HTTPS by rustls, with short time-outs, bounded answers and no redirects.
//!
//! `https` goes where the environment's `HTTPS_PROXY` and `NO_PROXY` say, through a tunnel that the proxy can't look
//! into. Plain `http` is spoken with the machine's identity endpoint only (the SDK sends nothing else that way) and never
//! goes through a proxy, which would see the tokens.

use std::sync::Arc;
use std::time::Duration;

use azure_core::error::{Error, ErrorKind};
use azure_core::http::{
    AsyncRawResponse, ClientOptions, HttpClient, RawResponse, Request, RetryOptions, Transport,
};
use bulla_kek::{KekError, async_trait};
use futures::StreamExt;

use crate::options::AzureOptions;

/// A description with every tag that Key Vault allows is a tenth of this.
const MAX_ANSWER: usize = 64 * 1024;

/// The connections of a provider. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Http {
    https: reqwest::Client,
    plain: reqwest::Client,
}

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Vault,
    /// Whoever gives tokens. A refusal is an error before the SDK looks at it: its credential for virtual machines brings
    /// retries of its own, up to 72 s, that no option switches off, and its reader of Entra's refusals fails on escapes.
    Identity,
}

#[derive(Debug)]
struct Client {
    http: Http,
    role: Role,
}

impl Http {
    pub(crate) fn new(options: &AzureOptions) -> Result<Self, KekError> {
        provide_tls()?;
        let cannot = |error: reqwest::Error| {
            KekError::invalid("HTTPS can't be set up here; see that the system has certificates to trust")
                .with_source(error)
        };
        let authorities = reqwest::Certificate::from_pem_bundle(&options.extra_ca_pem).map_err(|error| {
            KekError::invalid(
                "the additional certificates are not PEM; each begins with -----BEGIN CERTIFICATE-----",
            )
            .with_source(error)
        })?;
        if authorities.is_empty() && !options.extra_ca_pem.trim_ascii().is_empty() {
            return Err(KekError::invalid(
                "there is no certificate among the additional ones; each begins with -----BEGIN CERTIFICATE-----",
            ));
        }
        let builder = || {
            reqwest::Client::builder()
                .connect_timeout(options.connect_timeout)
                .timeout(options.request_timeout)
                .redirect(reqwest::redirect::Policy::none())
                // A renewal is two requests every half minute: there is nothing to multiplex.
                .http1_only()
                .pool_idle_timeout(Duration::from_secs(90))
        };
        let https = builder().tls_certs_merge(authorities).https_only(true).build().map_err(cannot)?;
        let plain = builder().no_proxy().build().map_err(cannot)?;
        Ok(Self { https, plain })
    }

    /// For requests to vaults.
    pub(crate) fn for_vault(&self) -> ClientOptions {
        self.client_options(Role::Vault)
    }

    /// For requests for tokens.
    pub(crate) fn for_identity(&self) -> ClientOptions {
        self.client_options(Role::Identity)
    }

    fn client_options(&self, role: Role) -> ClientOptions {
        ClientOptions {
            retry: RetryOptions::none(),
            transport: Some(Transport::new(Arc::new(Client { http: self.clone(), role }))),
            ..ClientOptions::default()
        }
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let client = if request.url().scheme() == "http" { &self.http.plain } else { &self.http.https };
        let (status, headers, mut stream) = client.execute_request(request).await?.deconstruct();
        let mut body = Vec::new();
        while let Some(piece) = stream.next().await {
            let piece = piece?;
            if body.len() + piece.len() > MAX_ANSWER {
                return Err(Error::with_message(ErrorKind::Other, "the answer is longer than 64 KiB"));
            }
            body.extend_from_slice(&piece);
        }
        if self.role == Role::Identity && !status.is_success() {
            let raw_response = Some(Box::new(RawResponse::from_bytes(status, headers, body)));
            return Err(ErrorKind::HttpResponse { status, error_code: None, raw_response }.into_error());
        }
        Ok(AsyncRawResponse::from_bytes(status, headers, body))
    }
}

/// The HTTP client takes its cryptography from the process's default, which belongs to the program: ours is only
/// for programs that have not chosen.
fn provide_tls() -> Result<(), KekError> {
    use rustls::crypto::CryptoProvider;
    if CryptoProvider::get_default().is_some() {
        return Ok(());
    }
    #[cfg(feature = "aws-lc")]
    let provider = Some(rustls::crypto::aws_lc_rs::default_provider());
    #[cfg(all(feature = "ring", not(feature = "aws-lc")))]
    let provider = Some(rustls::crypto::ring::default_provider());
    #[cfg(not(any(feature = "ring", feature = "aws-lc")))]
    let provider: Option<CryptoProvider> = None;
    let provider = provider
        .ok_or_else(|| KekError::invalid("no TLS was built in; build with --features aws-lc or ring"))?;
    // Another thread may have been faster, with the same or a better choice.
    let _ = provider.install_default();
    Ok(())
}
