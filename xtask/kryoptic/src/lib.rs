//! Nothing: `cargo build --package kryoptic` builds the module that this depends on.
