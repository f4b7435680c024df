//! The vault from outside: its keys and policies, its files, and what survives a crash.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

mod conformance;
mod durability;
mod keys;
mod policies;
mod processes;
mod secrecy;
mod support;
mod usage;
