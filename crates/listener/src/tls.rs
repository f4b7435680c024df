//! Certificate and key from PEM files: those of the moment, for every handshake anew.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::watched::Watched;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// PEM files: the certificate, with those between it and its root behind it, and its private key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificates.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// There is no TLS with these files, or in this build. `Display` names the fix and does not repeat the source.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct TlsError {
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl TlsError {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), source: None }
    }

    fn because(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// Why, for an error that says what this one says.
    #[must_use]
    pub fn into_source(self) -> Option<Box<dyn Error + Send + Sync>> {
        self.source
    }
}

/// The cryptography: the program's choice if it made one, else the one that was built.
///
/// # Errors
/// If none was built.
pub fn provider() -> Result<Arc<CryptoProvider>, TlsError> {
    if let Some(provider) = CryptoProvider::get_default() {
        return Ok(Arc::clone(provider));
    }
    #[cfg(feature = "aws-lc")]
    let provider = Some(rustls::crypto::aws_lc_rs::default_provider());
    #[cfg(all(feature = "ring", not(feature = "aws-lc")))]
    let provider = Some(rustls::crypto::ring::default_provider());
    #[cfg(not(any(feature = "aws-lc", feature = "ring")))]
    let provider = None;
    provider
        .map(Arc::new)
        .ok_or_else(|| TlsError::new("no TLS was built in; build with --features aws-lc or ring"))
}

/// TLS with what is in the files, for HTTP/2 and 1.1. When they change, connections that are accepted from then on get the new
/// certificate; those that are there stay. Blocks.
///
/// # Errors
/// If the files are not a certificate and its key.
///
/// # Panics
/// Outside a tokio runtime.
pub fn server_config(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = provider()?;
    let certified = {
        let (files, provider) = (files.clone(), Arc::clone(&provider));
        Watched::load(vec![files.certificate.clone(), files.key.clone()], move || {
            certified(&files, &provider)
        })?
    };
    certified.watch(LOOK);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::new("the cryptography has no TLS 1.2 or 1.3").because(error))?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Current(certified)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Whether the files are a certificate and its key. Blocks.
///
/// # Errors
/// If not: which of them, and why.
pub fn check_files(files: &TlsFiles) -> Result<(), TlsError> {
    certified(files, &*provider()?).map(drop)
}

/// The certificates in a PEM file: one at least. Blocks.
///
/// # Errors
/// If there is none.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = || CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>();
    match read() {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(unreadable("certificate", path)),
        Err(error) => Err(unreadable("certificate", path).because(error)),
    }
}

fn certified(files: &TlsFiles, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| unreadable("private key", &files.key).because(error))?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| {
        let what = format!("the certificate {} can't be used with its key", files.certificate.display());
        TlsError::new(what).because(error)
    })
}

fn unreadable(what: &str, path: &Path) -> TlsError {
    TlsError::new(format!("there is no PEM {what} in {}", path.display()))
}

/// Who asks gets the certificate that is in the files now, whatever name he asks for.
struct Current(Arc<Watched<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.get())
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Current").field(&self.0).finish()
    }
}
