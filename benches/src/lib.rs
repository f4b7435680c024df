//! What Bulla costs beside the primitives it is made of.
//!
//! Each group holds the limit (raw primitives), a peer where there is one, and ours, so that their ratio comes from
//! one run on one machine. Everything is measured in CPU time, so that work moved to another thread counts.
//! `cargo xtask bench-report` prints the ratios.

pub mod cpu;
pub mod open;
pub mod raw;
pub mod seal;

/// What every group is given.
pub type Criterion = criterion::Criterion<cpu::CpuTime>;

/// Plaintext in one iteration of seal and open.
pub const PIECE: usize = 4 << 20;
