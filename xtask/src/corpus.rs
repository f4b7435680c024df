//! Seeds of the fuzz targets: well-formed inputs that an example of the fuzz package writes.

use crate::sh::{self, Outcome};

/// `cargo xtask corpus`. Names are kept, so what somebody added to a target's seeds stays.
pub(crate) fn write() -> Outcome {
    sh::run(&mut sh::command("cargo run --quiet --manifest-path fuzz/Cargo.toml --example seeds"))
}
