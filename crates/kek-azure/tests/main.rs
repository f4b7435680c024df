//! What a user of the provider notices, against a scripted key vault.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

mod answers;
mod engine;
mod hosts;
mod keys;
mod real;
mod requests;
mod secrecy;
mod support;
