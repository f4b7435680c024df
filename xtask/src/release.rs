//! What is too slow for every change: run it before a release.

use crate::sh::{self, Outcome, Steps};
use crate::{bench, fuzz, outside};

/// Seconds for each fuzz target.
const FUZZ: u32 = 600;

pub(crate) fn run() -> Outcome {
    let mut steps = Steps::new();
    steps.step("setup", |_| outside::setup().map(drop))?;
    steps.step("simulate", |_| simulate())?;
    steps.step("bench", |_| bench::fully())?;
    steps.step("fuzz", |steps| {
        if fuzz::has_nightly() {
            return fuzz::run(FUZZ);
        }
        steps.notice("no nightly compiler: the fuzz targets were type-checked, not run");
        fuzz::check()
    })?;
    steps.step("miri", miri)?;
    steps.step("package", |_| package())?;
    steps.summary("ok");
    Ok(())
}

/// The simulations over many more seeds than CI has time for, optimized.
fn simulate() -> Outcome {
    let mut command = sh::command("cargo test --release --locked -p bulla --test it sim::");
    sh::run(command.env("BULLA_SIM_SEEDS", "100000"))
}

/// There is no unsafe code of ours; miri would find what a dependency does wrong in what we call.
fn miri(steps: &mut Steps) -> Outcome {
    if !sh::succeeds(&mut sh::command("cargo +nightly miri --version")) {
        steps.notice("miri is not installed: skipped");
        return Ok(());
    }
    sh::run(&mut sh::command(
        "cargo +nightly miri test -p bulla-envelope --no-default-features --lib -- base32 context ids",
    ))
}

/// The published crates are complete without the rest of the repository.
fn package() -> Outcome {
    sh::run(&mut sh::command(
        "cargo package --workspace --locked --no-verify --allow-dirty --exclude bulla-tests --exclude bulla-benches --exclude bulla-testkit --exclude xtask",
    ))
}
