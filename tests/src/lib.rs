//! What the tests of this package share: outside parts, found or skipped.

mod gcs;
pub mod servers;

use std::env;
use std::path::PathBuf;
use std::process::Command;

/// The outside part whose path `variable` gives, or else the program `name` on `PATH`.
///
/// Without either it prints `SKIPPED: …` and returns `None`.
///
/// # Panics
/// Instead of skipping, if `BULLA_NO_SKIPS` is `1`, as under `cargo xtask test`.
#[must_use]
pub fn part(variable: &str, name: &str) -> Option<PathBuf> {
    if let Some(path) = env::var_os(variable) {
        return Some(path.into());
    }
    let paths = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&paths).map(|dir| dir.join(name)).find(|path| path.is_file());
    if found.is_none() {
        skipped(&format!(
            "{variable} is not set and there is no {name} on PATH; `cargo xtask test` installs it"
        ));
    }
    found
}

/// Says that a test can't run here.
///
/// # Panics
/// If `BULLA_NO_SKIPS` is `1`.
pub fn skipped(why: &str) {
    assert!(env::var_os("BULLA_NO_SKIPS").is_none_or(|value| value != "1"), "may not be skipped: {why}");
    forbidden(why);
}

/// Says that this machine forbids what a test needs, which no installation brings: so it does not panic where nothing may be
/// skipped.
pub fn forbidden(why: &str) {
    #[allow(clippy::print_stdout, reason = "a test's output, which names what did not run")]
    {
        println!("SKIPPED: {why}");
    }
}

/// Whether this machine lets container engines unpack layers, which they do in mount namespaces: root of a plain container
/// may not make any. If not it says so, as [`forbidden`] does.
#[must_use]
pub fn lets_engines_work() -> bool {
    let lets = Command::new("unshare").args(["--mount", "true"]).output();
    let lets = lets.is_ok_and(|output| output.status.success());
    if !lets {
        forbidden("there are no mount namespaces for this user on this machine");
    }
    lets
}
