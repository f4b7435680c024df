//! Stores under keys on PKCS#11 tokens: the engine, on SoftHSM2 and Kryoptic. The command is in `cli/tokens.rs`.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "pkcs11/engine.rs"]
mod engine;
#[path = "../../crates/kek-pkcs11/tests/token.rs"]
mod token;
