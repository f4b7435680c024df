//! Clients of registries, and another registry: skopeo, umoci, podman, buildah and Docker as a distribution packages them,
//! and CNCF Distribution's server.

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

/// Docker's command, its engine and containerd, whose programs are in the folder of the command or in `sbin` beside it.
///
/// The packages would make services of them, so they are only unpacked.
pub(super) fn docker() -> Outcome<PathBuf> {
    if let Some(there) =
        on_path("docker").filter(|_| on_path("dockerd").is_some() && on_path("ctr").is_some())
    {
        return Ok(there);
    }
    const NAMES: [&str; 3] = ["docker.io", "containerd", "runc"];
    let folder = sh::root().join("target/tools/docker");
    let (docker, engine) = (folder.join("usr/bin/docker"), folder.join("usr/sbin/dockerd"));
    installed(&folder, &NAMES, || {
        NAMES.iter().try_for_each(|name| unpacked(name, &folder))?;
        // Newer distributions have the command in a package of its own.
        if docker.exists() { Ok(()) } else { unpacked("docker-cli", &folder) }
    })?;
    // What the engine is linked with, which a lean machine may lack.
    if !sh::succeeds(sh::command(&engine.display().to_string()).arg("--version")) {
        packages("libdevmapper1.02.1 libsystemd0 libseccomp2")?;
    }
    Ok(docker)
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
