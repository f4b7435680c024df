//! Which module, which token, which PIN: local configuration, never a bucket's.

use std::path::PathBuf;
use std::time::Duration;

use crate::pin::PinSource;

/// How one token is reached.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Pkcs11Options {
    /// The vendor's library, such as `/usr/lib/softhsm/libsofthsm2.so`. It is loaded into this process.
    pub module: PathBuf,
    /// The token's label (`CKA_LABEL` of the token, not of a key).
    pub token: String,
    /// Where the user's PIN comes from.
    pub pin: PinSource,
    /// How many calls may be in the module at once, each with a session of its own; more wait. 4.
    pub max_sessions: usize,
    /// How long a call may take, waiting included, before it is given up as `Unavailable`. 10 s.
    pub call_timeout: Duration,
    /// Also use RSA-OAEP with SHA-1, where a token offers nothing newer for an RSA key. Off: it must be somebody's decision.
    pub allow_oaep_sha1: bool,
}

impl Pkcs11Options {
    /// The token with this label, through this library, opened with this PIN; the rest as documented at the fields.
    pub fn new(module: impl Into<PathBuf>, token: impl Into<String>, pin: PinSource) -> Self {
        Self {
            module: module.into(),
            token: token.into(),
            pin,
            max_sessions: 4,
            call_timeout: Duration::from_secs(10),
            allow_oaep_sha1: false,
        }
    }
}
