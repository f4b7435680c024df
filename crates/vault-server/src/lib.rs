//! The local vault behind Key Vault's REST API, so that clients made for Azure Key Vault and Managed HSM work against a
//! folder: the SDKs, their credentials, and `bulla-kek-azure`.
//!
//! ```text
//! TCP ─ TLS ─ HTTP/1.1 or 2 ─► route ─► bearer token ─► throttle ─► firewall ─► access policy ─► bulla_vault::Vault
//!                                 └──────────────────── audit log ────────────────────┘
//! ```
//!
//! | path | |
//! |---|---|
//! | `/keys…`, `/deletedkeys…` | Key Vault REST 7.x: create, import, get, list, versions, update, wrapkey, unwrapkey, encrypt, decrypt, delete, recover, purge |
//! | `/TENANT/oauth2/v2.0/token` | tokens for workload identities |
//! | `/msi/token` on a second, plain, loopback listener | tokens for managed identities, as App Service issues them |
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use bulla_vault::{Passphrase, Vault};
//! use bulla_vault_server::{Api, ApiOptions, Server, ServerOptions};
//!
//! let vault = Vault::open("/srv/vault", Some(Passphrase::new("open sesame")))?;
//! let server = Server::bind(Api::new(vault, ApiOptions::default()).await?, ServerOptions::default()).await?;
//! println!("{} trusted by {}", server.url(), server.certificate().display());
//! server.serve(std::future::pending()).await?;
//! # Ok(())
//! # }
//! ```
//!
//! It knows nothing of stores, and keeps nothing but the vault's folder: two servers over one folder agree.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test"))]

mod api;
mod audit;
mod auth;
mod error;
mod faults;
mod identity;
mod keys;
mod oauth;
mod paging;
mod reply;
mod route;
mod server;
mod throttle;
mod tls;
mod token;
mod wire;

pub use self::api::{Api, ApiOptions};
pub use self::error::{ServerError, ServerErrorKind};
pub use self::faults::{Fault, Faults};
pub use self::identity::{IdentityEndpoint, IdentityOptions};
pub use self::server::{Server, ServerOptions};
pub use self::throttle::{InvalidThrottle, Throttle};
pub use self::tls::TlsSource;
pub use self::token::{Audience, Tokens};
