//! Key-encryption keys on PKCS#11 tokens: HSMs, smart cards, SoftHSM2, Kryoptic.
//!
//! A key is named `pkcs11:token=TOKEN;object=LABEL[;id=%XX…]` (RFC 7512): the labels of token and object, and the object's
//! `CKA_ID`, which is its *version*. Objects with one label are versions of one key; the newest is the one with the
//! latest `CKA_START_DATE` (none is earliest), then with the greatest `CKA_ID` as a number. PKCS#11 has no time of creation,
//! so give new versions a higher id: `01`, `02`, ….
//!
//! ```text
//! Pkcs11Provider ── call: bounded in number and time, off the executor
//!      │
//!      ├─ Token ── one token of a module: sessions, logged in
//!      │    └─ Module ── the library, once per process: loaded, initialized, reset
//!      ├─ Key ── an object and its attributes, read at every call
//!      └─ Way ── which mechanism, by which functions; chosen by asking the token, proven by a round trip
//! ```
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use bulla_kek::{Identity, KekProvider, TokioRuntime};
//! use bulla_kek_pkcs11::{PinSource, Pkcs11Options, Pkcs11Provider};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let pin = PinSource::File("/etc/bulla/hsm.pin".into());
//! let options = Pkcs11Options::new("/usr/lib/softhsm/libsofthsm2.so", "HSM", pin);
//! let provider = Pkcs11Provider::new(options, Arc::new(TokioRuntime));
//! let key = provider.describe(&"pkcs11:token=HSM;object=registry".parse()?, &Identity::System).await?;
//! println!("{} wraps by {:?}", key.key, key.algorithm);
//! # Ok(())
//! # }
//! ```
//!
//! # What the bucket may not decide
//!
//! Module, token and PIN are [`Pkcs11Options`]: local configuration. A key id can't name a module or a PIN
//! (`bulla_kek` refuses such attributes), and one that names another token is not accepted, so that nobody who can write a
//! bucket makes this provider try its PIN elsewhere.
//!
//! # Verdicts
//!
//! Return codes differ between modules and even lie: SoftHSM2 finds no objects, successfully, on a token that was taken
//! away, and reports a damaged wrap as "some horrible, unrecoverable error". So no verdict rests on a code:
//!
//! | what is seen | second look | verdict |
//! |---|---|---|
//! | unwrapping fails | a fresh wrap for the same key unwraps in the same session | `Invalid`: the data is damaged |
//! | … | it does not, after the module was initialized anew | `Unavailable` |
//! | the object is not there | not either after the module was initialized and the token found anew, logged in | denied: `NotFound` |
//! | the object may not unwrap | as above | denied: `OperationNotPermitted` |
//! | no token, no session, no module | as above | `Unavailable` |
//! | the PIN is refused | none: it could lock the token | denied: `IdentityUnknown`; that PIN is never tried again |
//!
//! # Identities
//!
//! A token knows one user: whoever has its PIN. The identity in a store's log means nothing to it and is not looked at;
//! access is given and taken by the PIN.
//!
//! # The module
//!
//! PKCS#11 initializes a library once per process. This crate takes the module for its own: another user of the same
//! library in the process loses its sessions when a token is looked for anew. A call that hangs in a module can't be
//! ended: the caller gets `Unavailable` in time, the thread stays the module's until it returns, and
//! [`Pkcs11Options::max_sessions`] bounds how many there can be.
//!
//! End the runtime's threads before the process exits (tokio: `shutdown_timeout`, not `shutdown_background`). Libraries such
//! as OpenSSL free a thread's memory when it ends, and everybody's when the process exits; where both happen at once the
//! process crashes on its last step.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test"))]

mod choice;
mod dates;
mod fault;
mod key;
mod module;
mod options;
mod pin;
mod provider;
mod token;
mod way;

pub use self::options::Pkcs11Options;
pub use self::pin::{PinSource, UserPin};
pub use self::provider::Pkcs11Provider;
