//! Who may come: the options that say so.

use std::path::PathBuf;
use std::sync::Arc;

use bulla_registry::access::{Access, AccessError, Htpasswd, Open};

use crate::exit::{Failure, Kind, Result};

#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct Args {
    /// Users and their passwords, from `htpasswd -B`; each may pull, push and delete
    #[arg(long, value_name = "FILE", conflicts_with = "token_key")]
    htpasswd: Option<PathBuf>,
    /// Users who may only pull
    #[arg(long, value_name = "NAME", num_args = 1.., value_delimiter = ',', requires = "htpasswd")]
    read_only: Vec<String>,
    /// The public key (PEM, or a JWK set) of a token server, whose tokens say who may do what in which repository
    #[arg(long, value_name = "FILE", requires_all = ["token_issuer", "token_service", "token_realm"])]
    token_key: Option<PathBuf>,
    /// What the token server calls itself: `iss` of tokens
    #[arg(long, value_name = "NAME", requires = "token_key")]
    token_issuer: Option<String>,
    /// What the token server calls this registry: `aud` of tokens
    #[arg(long, value_name = "NAME", requires = "token_key")]
    token_service: Option<String>,
    /// Where clients get tokens
    #[arg(long, value_name = "URL", requires = "token_key")]
    token_realm: Option<String>,
}

impl Args {
    /// Reads the files.
    pub(super) async fn build(&self) -> Result<Arc<dyn Access>> {
        if let Some(file) = &self.htpasswd {
            let read_only = self.read_only.iter().cloned().collect();
            let users = Htpasswd::load(file.clone(), read_only).await.map_err(failure)?;
            return Ok(Arc::new(users));
        }
        match &self.token_key {
            Some(keys) => self.tokens(keys.clone()).await,
            None => Ok(Arc::new(Open)),
        }
    }

    #[cfg(feature = "aws-lc")]
    async fn tokens(&self, keys: PathBuf) -> Result<Arc<dyn Access>> {
        use bulla_registry::access::{Bearer, BearerOptions};
        let given = |text: &Option<String>| text.clone().unwrap_or_default();
        let options = BearerOptions {
            keys,
            issuer: given(&self.token_issuer),
            service: given(&self.token_service),
            realm: given(&self.token_realm),
        };
        Ok(Arc::new(Bearer::load(options).await.map_err(failure)?))
    }

    #[cfg(not(feature = "aws-lc"))]
    #[allow(clippy::unused_async, reason = "with the other feature it waits")]
    async fn tokens(&self, _: PathBuf) -> Result<Arc<dyn Access>> {
        Err(Failure::invalid(
            "this build can't check tokens; build with --features aws-lc, or use --htpasswd",
        ))
    }

    pub(super) fn name(&self) -> &'static str {
        match (&self.htpasswd, &self.token_key) {
            (Some(_), _) => "users",
            (None, Some(_)) => "tokens",
            (None, None) => "open",
        }
    }
}

fn failure(error: AccessError) -> Failure {
    // Why a file can't be read is the half of it.
    Failure::caused(Kind::Invalid, error)
}
