//! The command, as scripts use it: the built binary, real folders, nothing shared between tests.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "cli/audit.rs"]
mod audit;
#[path = "cli/crash.rs"]
mod crash;
#[path = "cli/doctor.rs"]
mod doctor;
#[path = "cli/errors.rs"]
mod errors;
#[path = "cli/gc.rs"]
mod gc;
#[path = "cli/key_vault.rs"]
mod key_vault;
#[path = "cli/memory.rs"]
mod memory;
#[path = "cli/quickstart.rs"]
mod quickstart;
#[path = "cli/revoke.rs"]
mod revoke;
#[path = "cli/rewrap.rs"]
mod rewrap;
#[path = "cli/serve.rs"]
mod serve;
#[path = "cli/service.rs"]
mod service;
#[path = "cli/story.rs"]
mod story;
#[path = "../../crates/kek-pkcs11/tests/token.rs"]
mod token;
#[path = "cli/tokens.rs"]
mod tokens;
#[path = "cli/trust.rs"]
mod trust;
#[path = "cli/two_parties.rs"]
mod two_parties;
#[path = "cli/usage.rs"]
mod usage;
#[path = "cli/verify.rs"]
mod verify;
#[path = "cli/world.rs"]
mod world;
