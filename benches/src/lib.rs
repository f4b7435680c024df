//! What Bulla costs beside the primitives it is made of.
//!
//! Each group holds the limit (raw primitives), a peer where there is one, and ours, so that their ratio comes from
//! one run on one machine. Everything is measured in CPU time, so that work moved to another thread counts; but for
//! [`registry`], whose peer is another process.
//! `cargo xtask bench-report` prints the ratios.

#![allow(clippy::missing_panics_doc, reason = "a bench whose work fails has nothing better to do")]

pub mod calls;
pub mod cpu;
pub mod get;
pub mod open;
pub mod put;
pub mod raw;
pub mod registry;
pub mod rewrap;
pub mod rotate;
pub mod seal;
pub mod small;
pub mod world;

/// What every group is given.
pub type Criterion = criterion::Criterion<cpu::CpuTime>;

/// Plaintext in one iteration of seal and open.
pub const PIECE: usize = 4 << 20;

/// The blob in one iteration of put and get: several extents.
pub const BLOB: usize = 16 << 20;

/// What a server hands over at a time.
pub const FRAME: usize = 64 << 10;

/// A blob small enough to be inside its envelope.
pub const SMALL: usize = 8 << 10;
