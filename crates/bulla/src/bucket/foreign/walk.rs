//! A look at a folder that no listing gives: what in it is no file.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// What below `below` is neither a file nor a folder, or is hidden from listings; by its path below `root`, ascending.
pub(super) fn irregular(root: &Path, below: PathBuf) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders = vec![below];
    // Links to folders may lead in circles.
    let mut followed = HashSet::new();
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            let is_folder = kind.is_dir()
                || kind.is_symlink() && path.is_dir() && followed.insert(fs::canonicalize(&path)?);
            if is_folder {
                folders.push(path);
            } else if !kind.is_file() || is_hidden(&path) {
                let name = path.strip_prefix(root).unwrap_or(&path);
                found.push(name.display().to_string());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// `name#1` is where object_store writes what is going to be `name`; it lists none of them.
fn is_hidden(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.split_once('#')
        .is_some_and(|(_, end)| !end.is_empty() && end.bytes().all(|byte| byte.is_ascii_digit()))
}
