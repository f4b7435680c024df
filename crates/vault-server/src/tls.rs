//! The certificate: given, or made for these names and kept for the next start.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bulla_listener::TlsFiles;
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{ServerName, UnixTime};

use crate::error::ServerError;

const CERTIFICATE: &str = "cert.pem";
const KEY: &str = "key.pem";
const LOCK: &str = "lock";
/// What every certificate that is made here is for.
const LOCAL_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// Clients that hold certificates to the rules of public ones take no more.
#[cfg(any(feature = "aws-lc", feature = "ring"))]
const VALIDITY: Duration = Duration::from_secs(825 * 86_400);
/// Made anew when less is left.
const RENEW: Duration = Duration::from_secs(30 * 86_400);

/// Where the certificate comes from.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum TlsSource {
    /// A self-signed one in this folder; `None`: `tls` in the vault's folder. Used again while it has the names and is
    /// valid, else made anew.
    SelfSigned {
        /// The folder.
        dir: Option<PathBuf>,
        /// DNS names and addresses beside `localhost`, 127.0.0.1, ::1 and the address that is listened on.
        names: Vec<String>,
    },
    /// PEM files: the certificate, with those between it and its root behind it, and its private key.
    Files {
        /// The certificates.
        certificate: PathBuf,
        /// The private key.
        key: PathBuf,
    },
}

impl Default for TlsSource {
    fn default() -> Self {
        Self::SelfSigned { dir: None, names: Vec::new() }
    }
}

/// Ready to accept connections.
pub(crate) struct Tls {
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) certificate: PathBuf,
}

impl Tls {
    /// Blocks: files, key generation.
    pub(crate) fn load(
        source: &TlsSource,
        vault_dir: &Path,
        listen: Option<String>,
    ) -> Result<Self, ServerError> {
        let files = match source {
            TlsSource::Files { certificate, key } => {
                TlsFiles { certificate: certificate.clone(), key: key.clone() }
            }
            TlsSource::SelfSigned { dir, names } => {
                let dir = dir.clone().unwrap_or_else(|| vault_dir.join("tls"));
                let mut all: Vec<String> = LOCAL_NAMES.map(str::to_owned).to_vec();
                all.extend(listen.into_iter().chain(names.iter().cloned()));
                all.dedup();
                self_signed(&dir, &all)?
            }
        };
        let config = bulla_listener::server_config(&files)?;
        Ok(Self { config, certificate: files.certificate })
    }
}

/// The files of a self-signed certificate with all these names, there before or made now.
fn self_signed(dir: &Path, names: &[String]) -> Result<TlsFiles, ServerError> {
    let provider = bulla_listener::provider()?;
    let files = TlsFiles { certificate: dir.join(CERTIFICATE), key: dir.join(KEY) };
    let cannot =
        |error| ServerError::io(format!("the certificate can't be kept in {}", dir.display()), error);
    private_folder(dir).map_err(cannot)?;
    // Two servers that start at once make one certificate.
    let _lock = lock(&dir.join(LOCK)).map_err(cannot)?;
    // What a crash left of two does not fit together.
    let whole = bulla_listener::check_files(&files).is_ok();
    if !(whole && fits(&files.certificate, names, &provider)) {
        let (certificate_pem, key_pem) = make(names)?;
        replace(&files.key, key_pem.as_bytes()).map_err(cannot)?;
        replace(&files.certificate, certificate_pem.as_bytes()).map_err(cannot)?;
    }
    Ok(files)
}

/// Whether a client that trusts the certificate would take it for each of the names, now and for a while.
fn fits(path: &Path, names: &[String], provider: &Arc<CryptoProvider>) -> bool {
    let Ok(chain) = bulla_listener::certificates(path) else { return false };
    let [certificate] = chain.as_slice() else { return false };
    let mut roots = RootCertStore::empty();
    if roots.add(certificate.clone()).is_err() {
        return false;
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build();
    let Ok(verifier) = verifier else { return false };
    let later = SystemTime::now() + RENEW;
    let Ok(since) = later.duration_since(SystemTime::UNIX_EPOCH) else { return false };
    let later = UnixTime::since_unix_epoch(since);
    names.iter().all(|name| {
        ServerName::try_from(name.as_str())
            .is_ok_and(|name| verifier.verify_server_cert(certificate, &[], &name, &[], later).is_ok())
    })
}

/// Certificate and key, PEM.
#[cfg(any(feature = "aws-lc", feature = "ring"))]
fn make(names: &[String]) -> Result<(String, zeroize::Zeroizing<String>), ServerError> {
    let failed =
        |error| ServerError::invalid("a certificate can't be made for these names").with_source(error);
    let mut params = rcgen::CertificateParams::new(names).map_err(failed)?;
    params.distinguished_name.push(rcgen::DnType::CommonName, "bulla vault");
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    // Clocks differ a little.
    let now = SystemTime::now();
    params.not_before = (now - Duration::from_secs(3600)).into();
    params.not_after = (now + VALIDITY).into();
    let key = rcgen::KeyPair::generate().map_err(failed)?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok((certificate.pem(), zeroize::Zeroizing::new(key.serialize_pem())))
}

#[cfg(not(any(feature = "aws-lc", feature = "ring")))]
fn make(_: &[String]) -> Result<(String, zeroize::Zeroizing<String>), ServerError> {
    Err(ServerError::invalid(
        "no certificate can be made in this build; give one, or build with --features aws-lc or ring",
    ))
}

fn private_folder(dir: &Path) -> std::io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

/// Held until dropped.
fn lock(path: &Path) -> std::io::Result<fs::File> {
    let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    file.lock()?;
    Ok(file)
}

/// A file that is whole or as it was, and its owner's alone.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension("pem.tmp");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}
