//! Clients of registries, and another registry: skopeo and umoci as a distribution packages them, and CNCF Distribution's
//! server.

use std::env;
use std::path::PathBuf;

use super::installed;
use super::packages::{packages, unpacked};
use crate::sh::{self, Outcome};

/// A program that is on PATH, or is installed from the package of the same name.
pub(super) fn client(name: &str) -> Outcome<PathBuf> {
    if on_path(name).is_none() {
        packages(name)?;
    }
    on_path(name).ok_or_else(|| format!("{name} is installed, but not on PATH"))
}

/// The package would make it a service of this machine, so it is only unpacked.
pub(super) fn docker_registry() -> Outcome<PathBuf> {
    const NAME: &str = "docker-registry";
    if let Some(there) = on_path(NAME) {
        return Ok(there);
    }
    let folder = sh::root().join("target/tools").join(NAME);
    installed(&folder, &[NAME], || unpacked(NAME, &folder))?;
    Ok(folder.join("usr/bin").join(NAME))
}

fn on_path(name: &str) -> Option<PathBuf> {
    let paths = env::var_os("PATH")?;
    env::split_paths(&paths).map(|folder| folder.join(name)).find(|path| path.is_file())
}
