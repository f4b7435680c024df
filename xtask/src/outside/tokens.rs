//! PKCS#11 modules: SoftHSM2 as a distribution packages it, and Kryoptic, built against the distribution's OpenSSL and SQLite.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::installed;
use super::packages::packages;
use crate::sh::{self, Outcome};

/// Where distributions have SoftHSM2.
const SOFTHSM2: [&str; 3] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
];

/// What Kryoptic is built with; libclang is for its bindings to OpenSSL.
const KRYOPTIC_NEEDS: &str = "pkg-config libssl-dev libsqlite3-dev libclang-dev";

/// The manifest and lock file by which it is built.
const KRYOPTIC: &str = "xtask/kryoptic";

pub(super) fn softhsm2() -> Outcome<PathBuf> {
    let there = || SOFTHSM2.iter().map(PathBuf::from).find(|path| path.is_file());
    if there().is_none() {
        packages("softhsm2")?;
    }
    there()
        .ok_or_else(|| "SoftHSM2 is installed, but its libsofthsm2.so is in none of the usual places".into())
}

/// Unoptimized: it is built in well under a minute on two cores, and a test uses it for milliseconds.
pub(super) fn kryoptic() -> Outcome<PathBuf> {
    let folder = sh::root().join("target/tools/kryoptic");
    let module = folder.join("libkryoptic_pkcs11.so");
    let lock = Path::new(KRYOPTIC).join("Cargo.lock");
    let lock = std::fs::read_to_string(&lock).map_err(|error| format!("{}: {error}", lock.display()))?;
    installed(&folder, &[&lock], || {
        if !can_build_kryoptic() {
            packages(KRYOPTIC_NEEDS)?;
        }
        let started = Instant::now();
        let build = folder.join("build");
        let line = format!("cargo build --quiet --locked --manifest-path {KRYOPTIC}/Cargo.toml -p kryoptic");
        let mut command = sh::command(&line);
        sh::run(command.env("CARGO_TARGET_DIR", &build).env("CARGO_PROFILE_DEV_DEBUG", "0"))?;
        let built = build.join("debug/libkryoptic_pkcs11.so");
        std::fs::copy(&built, &module).map_err(|error| format!("{}: {error}", built.display()))?;
        let _ = std::fs::remove_dir_all(build);
        println!("Kryoptic built in {:.0} s", started.elapsed().as_secs_f64());
        Ok(())
    })?;
    Ok(module)
}

fn can_build_kryoptic() -> bool {
    // `libclang.so` or `libclang-14.so`, and not `libclang-cpp.so`.
    let versioned = |rest: &str| rest.starts_with(|next: char| next == '.' || next.is_ascii_digit());
    let listed = || {
        sh::read(&mut sh::command("ldconfig -p")).is_ok_and(|list| {
            list.split("libclang").skip(1).any(|rest| versioned(rest.trim_start_matches('-')))
        })
    };
    let libclang = std::env::var_os("LIBCLANG_PATH").is_some() || listed();
    libclang && sh::succeeds(&mut sh::command("pkg-config --exists libssl libcrypto sqlite3"))
}
