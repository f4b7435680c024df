//! Fuzz targets: built and run for a while each, or at least type-checked where there is no nightly compiler.

use std::fs;
use std::path::{Path, PathBuf};

use crate::outside;
use crate::sh::{self, Outcome};

/// Seconds for each target in CI.
pub(crate) const BRIEFLY: u32 = 15;

/// `cargo xtask fuzz [SECONDS | --check]`.
pub(crate) fn command(arguments: &[String]) -> Outcome {
    match arguments.first().map(String::as_str) {
        Some("--check") => check(),
        None => run(BRIEFLY),
        Some(seconds) => {
            run(seconds.parse().map_err(|_| format!("`{seconds}` is not a number of seconds"))?)
        }
    }
}

/// The sanitizer's instrumentation needs a nightly compiler.
pub(crate) fn has_nightly() -> bool {
    sh::succeeds(&mut sh::command("cargo +nightly --version"))
}

pub(crate) fn check() -> Outcome {
    sh::run(&mut sh::command("cargo check --manifest-path fuzz/Cargo.toml"))
}

pub(crate) fn run(seconds: u32) -> Outcome {
    let cargo_fuzz = outside::cargo_tool("cargo-fuzz")?;
    // cargo-fuzz as cargo would call it, under the nightly compiler.
    let fuzz = || {
        let mut command = sh::command(&format!("rustup run nightly {} fuzz", cargo_fuzz.display()));
        command.env("RUSTUP_TOOLCHAIN", "nightly");
        command
    };
    sh::run(fuzz().arg("build"))?;
    for target in targets()? {
        // What a run finds goes to the first folder, so that the committed seeds stay as they are.
        let found = Path::new("fuzz/corpus").join(&target);
        fs::create_dir_all(&found).map_err(|error| format!("cannot create {}: {error}", found.display()))?;
        let mut command = fuzz();
        command.arg("run").arg(&target).arg(&found).arg(Path::new("fuzz/seeds").join(&target));
        command.args([
            "--",
            "-print_final_stats=1",
            "-verbosity=0",
            "-print_funcs=0",
            "-rss_limit_mb=4096",
            "-timeout=10",
        ]);
        sh::run(command.arg(format!("-max_total_time={seconds}")))
            .map_err(|failure| format!("{failure}\n  the input that failed is in fuzz/artifacts/{target}"))?;
    }
    Ok(())
}

/// Each file in fuzz/fuzz_targets is one.
pub(crate) fn targets() -> Outcome<Vec<String>> {
    let folder = PathBuf::from("fuzz/fuzz_targets");
    let cannot = |error| format!("cannot list {}: {error}", folder.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).map_err(cannot)? {
        let path = entry.map_err(cannot)?.path();
        if path.extension().is_some_and(|is| is == "rs") {
            names.extend(path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned));
        }
    }
    names.sort();
    Ok(names)
}
