//! `cargo xtask COMMAND`: everything scripted in this repository.
//!
//! One dependency and the standard library, so that it is built in seconds before everything else.

#![allow(clippy::print_stdout, reason = "a command prints")]

mod bench;
mod ci;
mod conformance;
mod corpus;
mod fuzz;
mod layers;
mod outside;
mod release;
mod sh;
mod test;
mod tree;

use std::process::ExitCode;

use sh::Outcome;

const USAGE: &str = "\
cargo xtask COMMAND

  setup          prepare the outside parts the tests use (target/venv, target/npm, target/tools; SoftHSM2, skopeo, podman …)
  test           setup, then every test of the workspace; none may be skipped
  ci             what CI runs: format, lints, docs, licences, layers, tests, quickstart, benches, fuzzing
  ci STEP…       only these steps of it (`cargo xtask ci list` names them)
  release        the slow checks before a release: long simulations, long fuzzing, full benches
  fuzz [SECONDS] build every fuzz target and run each (default 15 s); `--check` only type-checks them
  conformance DIR the OCI distribution specification's own suite, from a checkout of it (needs Go), against `bulla serve`
  corpus         write the seeds of the fuzz targets
  bench-report   ratios of the last `cargo bench`: ours beside the raw primitives; --check fails under target
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rest = arguments.get(1..).unwrap_or_default();
    let checkout = rest.first().and_then(|folder| std::path::absolute(folder).ok());
    // Everything below uses paths relative to the repository.
    if let Err(error) = std::env::set_current_dir(sh::root()) {
        eprintln!("xtask: cannot enter the repository: {error}");
        return ExitCode::FAILURE;
    }
    let outcome: Outcome = match arguments.first().map(String::as_str) {
        Some("setup") => outside::setup().map(drop),
        Some("test") => test::run(),
        Some("ci") => ci::run(rest),
        Some("release") => release::run(),
        Some("fuzz") => fuzz::command(rest),
        Some("conformance") => match checkout {
            Some(checkout) => conformance::run(&checkout),
            None => {
                Err("conformance needs the folder of a checkout of the OCI distribution specification".into())
            }
        },
        Some("corpus") => corpus::write(),
        Some("bench-report") => bench::report(rest.iter().any(|argument| argument == "--check")),
        Some("help" | "--help" | "-h") => {
            print!("{USAGE}");
            Ok(())
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            ExitCode::FAILURE
        }
    }
}
