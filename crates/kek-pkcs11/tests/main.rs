//! The provider on real modules: SoftHSM2 and Kryoptic.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod conformance;
mod loss;
mod mechanisms;
mod pins;
mod support;
mod token;
