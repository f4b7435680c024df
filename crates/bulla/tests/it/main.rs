//! The engine's protocols, as a caller sees them: every detail that loses data if it is missed has a test named after it.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;
mod versions;
mod watch;

mod attack;
mod delete;
mod direct;
mod gc;
mod get;
mod lease;
mod log;
mod meta;
mod promise;
mod put;
mod rewrap;
mod rotate;
mod session;
mod shred;
mod sim;
mod verify;
