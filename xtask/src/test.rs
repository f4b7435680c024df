//! Every test of the workspace, with nothing skipped.

use std::process::Command;

use crate::outside::{self, Parts};
use crate::sh::{self, Counted, Outcome, Steps};
use crate::tree;

/// `cargo xtask test`.
pub(crate) fn run() -> Outcome {
    let mut steps = Steps::new();
    let parts = steps.step("setup", |_| outside::setup())?;
    let mut counted = steps.step("test", |_| workspace(&parts))?;
    counted.add(steps.step("test-pure", |_| pure_rust(&parts))?);
    steps.summary("ok");
    closing(counted);
    Ok(())
}

/// Unit tests, integration tests, doctests; examples are built by it too.
pub(crate) fn workspace(parts: &Parts) -> Outcome<Counted> {
    sh::run_tests(&mut tests("cargo test --workspace --locked --no-fail-fast", parts))
}

/// The same libraries on the pure-Rust back end alone. One command: separate ones would each choose the
/// features of shared dependencies anew and rebuild them.
pub(crate) fn pure_rust(parts: &Parts) -> Outcome<Counted> {
    let mut line = String::from("cargo test --locked --no-default-features --no-fail-fast");
    for package in tree::PURE_RUST {
        line.push_str(" -p ");
        line.push_str(package);
    }
    // The simulation is about the order of requests, whichever back end seals what is in them.
    sh::run_tests(tests(&line, parts).env("BULLA_SIM_SEEDS", "200"))
}

fn tests(line: &str, parts: &Parts) -> Command {
    let mut command = sh::command(line);
    // A test that finds a part missing prints SKIPPED; with this set it fails instead.
    command.env("BULLA_NO_SKIPS", "1").envs(parts.environment());
    command
}

/// The closing line: what ran, in a form that people and scripts read alike.
pub(crate) fn closing(counted: Counted) {
    println!("\n{} passed, {} failed, {} skipped", counted.passed, counted.failed, counted.ignored);
}
