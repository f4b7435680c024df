//! The embedded vault: keys in a folder, with Key Vault's manners.
//!
//! Keys (RSA, AES) have versions and attributes (`enabled`, `nbf`, `exp`, `key_ops`); a deleted key can be recovered; with
//! purge protection it can't be purged; access policies say which identity may get, wrap and unwrap. [`VaultProvider`]
//! makes it a [`KekProvider`](bulla_kek::KekProvider).
//!
//! ```text
//! DIR/vault.json              id, purge protection, access policies, network rules, the vault key sealed under the passphrase
//! DIR/lock                    held while something is changed
//! DIR/keys/<name>/key.json    a key's versions and attributes, public halves included
//! DIR/keys/<name>/<version>.sealed   a private or AES key: Cobblestone-256 under the vault key
//! ```
//!
//! ```text
//! passphrase ─ Argon2id ─► 32 bytes ─ seal ─► vault key ─ seal ─► each private key
//! ```
//!
//! Everything but the private halves is readable without the passphrase, and can be changed by whoever can write
//! the folder: access policies bind identities that go through this crate, not those who hold the disk *and* the passphrase.
//! Every call looks at the files again, so that another process's change (a policy removed, a key disabled) takes effect
//! at the next request. Writes are atomic and durable.
//!
//! The calls of [`Vault`] block (files, Argon2, RSA); [`VaultProvider`] moves them off the executor.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test"))]

mod bundle;
mod error;
mod files;
mod keys;
mod layout;
mod material;
mod network;
mod passphrase;
mod permission;
mod policies;
mod provider;
mod stored;
mod usage;
mod vault;

pub use self::bundle::{JsonWebKey, KeyAttributes, KeyBundle, KeyItem};
pub use self::error::{VaultError, VaultErrorKind};
pub use self::keys::{AttributeChanges, CreateKey, ImportKey, PrivateKey};
pub use self::network::{Bypass, NetworkAction, NetworkRules};
pub use self::passphrase::{Passphrase, PassphraseCost};
pub use self::permission::{Permission, UnknownPermission};
pub use self::provider::VaultProvider;
pub use self::usage::{Algorithm, KeyOperation, KeyUse, Manner, UnknownAlgorithm, Used};
pub use self::vault::{CreateVault, Vault, VaultInfo};
