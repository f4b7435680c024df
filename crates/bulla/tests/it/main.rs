//! The engine's protocols, as a caller sees them: every detail that loses data if it is missed has a test named after it.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;
mod versions;
mod watch;

mod attack;
mod audit;
mod audit_sim;
mod delete;
mod direct;
mod events;
mod gc;
mod get;
mod lease;
mod log;
#[cfg(feature = "locked-memory")]
mod memory;
mod meta;
mod promise;
mod put;
mod rewrap;
mod rotate;
mod session;
mod shred;
mod sim;
mod two_parties;
mod verify;
