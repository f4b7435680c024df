//! What comes from the distribution.

use std::fs;
use std::path::{Path, PathBuf};

use crate::sh::{self, Outcome};

/// Debian packages: installed where that is possible without asking, named where it is not.
pub(super) fn packages(names: &str) -> Outcome {
    let is_root = sh::read(&mut sh::command("id -u")).is_ok_and(|id| id.trim() == "0");
    if !is_root || !sh::succeeds(&mut sh::command("apt-get --version")) {
        return Err(format!("the tests need {names}; on Debian: `sudo apt-get install {names}`"));
    }
    let line = format!("apt-get install --yes --quiet --no-install-recommends {names}");
    let install = || sh::run(sh::command(&line).env("DEBIAN_FRONTEND", "noninteractive"));
    // The lists of a fresh container are empty.
    install().or_else(|_| {
        sh::run(&mut sh::command("apt-get update --quiet"))?;
        install()
    })
}

/// What is in a Debian package, in `folder` and nowhere else: for servers, which an installation would start.
pub(super) fn unpacked(name: &str, folder: &Path) -> Outcome {
    let download = || {
        let line = format!("apt-get download --quiet {name}");
        sh::run(sh::command(&line).current_dir(folder))
    };
    download().or_else(|_| {
        sh::run(&mut sh::command("apt-get update --quiet"))?;
        download()
    })?;
    let archive = archive(folder)?;
    sh::run(sh::command("dpkg-deb --extract").arg(&archive).arg(folder))?;
    let _ = fs::remove_file(archive);
    Ok(())
}

fn archive(folder: &Path) -> Outcome<PathBuf> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    paths
        .find(|path| path.extension().is_some_and(|is| is == "deb"))
        .ok_or_else(|| format!("apt-get downloaded no package to {}", folder.display()))
}
