//! Stores under keys on PKCS#11 tokens: the engine and the command, on SoftHSM2 and Kryoptic.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "pkcs11/command.rs"]
mod command;
#[path = "pkcs11/engine.rs"]
mod engine;
#[path = "../../crates/kek-pkcs11/tests/token.rs"]
mod token;
#[allow(dead_code, reason = "the tests of the command use all of it")]
#[path = "cli/world.rs"]
mod world;
