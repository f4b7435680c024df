//! Real files, packed into the layer of an OCI image.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;

use bulla_envelope::digest::{Algorithm, Digest, Hasher};
use serde_json::json;

use crate::exit::{Failure, Result};

/// As much as there is to be at least, unless the user names files.
const WANTED: u64 = 50_000_000;
/// Files beyond this are left out where files are only there to make it enough.
const LARGEST_FILLER: u64 = 64 << 20;

/// A file, and its name in the layer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) size: u64,
}

/// What goes into the layer.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) entries: Vec<Entry>,
    /// In words.
    pub(super) what: String,
}

/// The user's files; else this repository's and this binary, and further files of this machine until it is enough.
pub(super) fn choose(here: &Path, given: &[PathBuf]) -> Result<Chosen> {
    let mut entries = BTreeSet::new();
    if !given.is_empty() {
        for path in given {
            let path = std::path::absolute(path).map_err(|error| Failure::file("find", path, error))?;
            let meta = fs::metadata(&path).map_err(|error| Failure::file("read", &path, error))?;
            if meta.is_dir() {
                let mut add = |file: &Path| {
                    entries.extend(entry(&path, file));
                    ControlFlow::Continue(())
                };
                let _ = walk(&path, &mut add)?;
            } else {
                let parent = path.parent().unwrap_or(&path).to_owned();
                entries.extend(entry(&parent, &path));
            }
        }
        if entries.is_empty() {
            return Err(Failure::invalid("there is no file in what --layer names"));
        }
        return Ok(Chosen {
            what: "the files of --layer".to_owned(),
            entries: entries.into_iter().collect(),
        });
    }
    let mut what = match tracked(here) {
        Some((root, files)) => {
            entries.extend(files.iter().filter_map(|file| entry(&root, file)));
            "the files of this repository".to_owned()
        }
        None => {
            let mut total = 0;
            let _ = walk(here, &mut |file| {
                if !is_hidden(file.strip_prefix(here).unwrap_or(file)) {
                    let found = entry(here, file);
                    total += found.as_ref().map_or(0, |found| found.size);
                    entries.extend(found);
                }
                until(total >= WANTED)
            })?;
            "the files of this folder".to_owned()
        }
    };
    let binary = std::env::current_exe().and_then(fs::canonicalize);
    if let Ok(binary) = &binary {
        entries.extend(entry(Path::new("/"), binary));
        what.push_str(", this binary");
    }
    if total(&entries) < WANTED {
        fill(&mut entries, binary.ok().as_deref().and_then(Path::parent));
        what.push_str(" and other real files of this machine");
    }
    Ok(Chosen { entries: entries.into_iter().collect(), what })
}

fn total(entries: &BTreeSet<Entry>) -> u64 {
    entries.iter().map(|entry| entry.size).sum()
}

/// What was built, and what its owner does not see in listings.
fn is_hidden(path: &Path) -> bool {
    path.components().any(|part| {
        let name = part.as_os_str().to_string_lossy();
        name == "target" || name.starts_with('.')
    })
}

fn until(enough: bool) -> ControlFlow<()> {
    if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// What was built beside the binary, then the system's programs and libraries.
fn fill(entries: &mut BTreeSet<Entry>, beside: Option<&Path>) {
    let folders = beside.into_iter().chain(["/usr/bin", "/usr/lib", "/bin", "/lib"].map(Path::new));
    for folder in folders {
        // A folder that can't be read makes it no less real.
        let _ = walk(folder, &mut |file| {
            entries.extend(entry(Path::new("/"), file).filter(|found| found.size <= LARGEST_FILLER));
            until(total(entries) >= WANTED)
        });
        if total(entries) >= WANTED {
            return;
        }
    }
}

/// The tracked files of the repository around `here`, if there is one and git.
fn tracked(here: &Path) -> Option<(PathBuf, Vec<PathBuf>)> {
    let git = |arguments: &[&str], folder: &Path| {
        let output = Command::new("git").args(arguments).current_dir(folder).output().ok()?;
        output.status.success().then_some(output.stdout)
    };
    let root = git(&["rev-parse", "--show-toplevel"], here)?;
    let root = PathBuf::from(String::from_utf8(root).ok()?.trim_end());
    let names = git(&["ls-files", "-z"], &root)?;
    let names = names.split(|&byte| byte == 0).filter_map(|name| std::str::from_utf8(name).ok());
    let files: Vec<PathBuf> = names.filter(|name| !name.is_empty()).map(|name| root.join(name)).collect();
    (!files.is_empty()).then_some((root, files))
}

/// A regular file below `root`. Others (links, devices) are no part of the story.
fn entry(root: &Path, path: &Path) -> Option<Entry> {
    let meta = fs::symlink_metadata(path).ok()?;
    let name = path.strip_prefix(root).ok()?.to_str()?.trim_start_matches('/').to_owned();
    (meta.is_file() && !name.is_empty() && File::open(path).is_ok()).then(|| Entry {
        name,
        path: path.to_owned(),
        size: meta.len(),
    })
}

/// Every file below `folder`, in the order of names, until `found` breaks off; links are not followed.
pub(super) fn walk(
    folder: &Path,
    found: &mut dyn FnMut(&Path) -> ControlFlow<()>,
) -> Result<ControlFlow<()>> {
    let failed = |error| Failure::file("list", folder, error);
    let mut names: Vec<_> = fs::read_dir(folder).map_err(failed)?.filter_map(io::Result::ok).collect();
    names.sort_by_key(fs::DirEntry::file_name);
    for name in names {
        match name.file_type() {
            Ok(kind) if kind.is_dir() => {
                let path = name.path();
                // A folder of somebody else's is passed by.
                if let Ok(ControlFlow::Break(())) = walk(&path, found) {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(_) => {
                if found(&name.path()).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Err(_) => {}
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// Writes the layer; its digest and length. A plain tar, so the digest is also the `diff_id`.
pub(super) fn pack(entries: &[Entry], to: &Path) -> Result<(Digest, u64)> {
    let failed = |error| Failure::file("write", to, error);
    let file = BufWriter::with_capacity(1 << 20, File::create(to).map_err(failed)?);
    let hashing = Hashing { file, hasher: Hasher::new(Algorithm::Sha256), len: 0 };
    let mut tar = tar::Builder::new(hashing);
    tar.mode(tar::HeaderMode::Deterministic);
    for entry in entries {
        let failed = |error| Failure::file("pack", &entry.path, error);
        let file = File::open(&entry.path).map_err(failed)?;
        let meta = file.metadata().map_err(failed)?;
        let mut header = tar::Header::new_gnu();
        header.set_metadata_in_mode(&meta, tar::HeaderMode::Deterministic);
        let mut reader = Counting { inner: BufReader::new(file).take(meta.len()), len: 0 };
        tar.append_data(&mut header, &entry.name, &mut reader).map_err(failed)?;
        if reader.len != meta.len() {
            return Err(Failure::invalid(format!(
                "{} changed while it was packed; run it again",
                entry.path.display()
            )));
        }
    }
    let mut hashing = tar.into_inner().map_err(failed)?;
    hashing.file.flush().map_err(failed)?;
    Ok((hashing.hasher.finish(), hashing.len))
}

/// The image's config and manifest, as OCI has them.
pub(super) fn image(layer: &Digest, layer_len: u64) -> (Vec<u8>, Vec<u8>) {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = json!({
        "architecture": architecture,
        "os": std::env::consts::OS,
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": [layer.to_string()] },
        "history": [{ "created_by": "bulla quickstart" }],
    });
    let config = config.to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": Digest::of(Algorithm::Sha256, &config).to_string(),
            "size": config.len(),
        },
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": layer.to_string(),
            "size": layer_len,
        }],
    });
    (config, manifest.to_string().into_bytes())
}

struct Hashing {
    file: BufWriter<File>,
    hasher: Hasher,
    len: u64,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.len += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

struct Counting<R> {
    inner: R,
    len: u64,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.len += read as u64;
        Ok(read)
    }
}
