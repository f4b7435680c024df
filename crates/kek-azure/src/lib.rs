//! Azure Key Vault and Managed HSM as a holder of key-encryption keys.
//!
//! [`AzureProvider`] is a [`bulla_kek::KekProvider`] on Microsoft's SDK. What it adds is what an engine needs that wipes
//! its secrets at a refusal:
//!
//! - Every answer becomes one of *denied*, *unavailable*, *throttled* and *invalid*: `fault.rs` has the table.
//! - Only hosts that local configuration allows are asked ([`AzureOptions::extra_hosts`]); a key id from a bucket chooses
//!   among those at most. A challenge must be for the domain that is asked.
//! - RSA wraps are made here, with the public key that the vault gave, after one wrap and unwrap proved that it is the
//!   public half of the key that the vault unwraps with. AES wraps (Managed HSM) are the service's. RSA1_5 does not occur.
//! - One retry policy, this one ([`AzureOptions::give_up_after`] bounds it). The SDK's own retries are off, for they may
//!   take longer than a lease.
//! - Who asks the same at the same time shares one request, but only one that was sent after they asked: a lease counts
//!   from before its unwrap was sent.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use bulla_kek::{Identity, KekProvider, KeyId, TokioRuntime};
//! use bulla_kek_azure::{AzureOptions, AzureProvider};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let provider = AzureProvider::new(AzureOptions::default(), Arc::new(TokioRuntime))?;
//! let key: KeyId = "https://contoso.vault.azure.net/keys/registry".parse()?;
//! println!("{:?}", provider.describe(&key, &Identity::System).await?);
//! # Ok(())
//! # }
//! ```
//!
//! # What is not wiped
//!
//! The answer to an unwrap passes through the buffers of TLS, HTTP and JSON libraries, which do not wipe them. The secret
//! that is handed on is wiped as every other.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test"))]

mod credentials;
mod described;
mod fault;
mod flights;
mod hosts;
mod http;
mod options;
mod provider;
mod retry;
mod service;

pub use self::credentials::{CredentialSource, Credentials};
pub use self::options::AzureOptions;
pub use self::provider::AzureProvider;
