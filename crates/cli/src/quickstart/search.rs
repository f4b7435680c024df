//! Looking for traces: needles of the plaintext in every file of a folder, and in the files' names.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bulla_envelope::digest::Digest;
use memchr::memmem;

use super::layer::{Entry, walk};
use crate::exit::{Failure, Kind, Result};

const SAMPLE: usize = 32;
const SAMPLES: u64 = 16;
/// Files are read in pieces of this size.
const PIECE: usize = 4 << 20;

/// What to look for.
#[derive(Debug)]
pub(super) struct Needles {
    /// 32-byte pieces of the content.
    pub(super) samples: Vec<Vec<u8>>,
    /// Digests, in hexadecimal and as raw bytes.
    pub(super) digests: Vec<Vec<u8>>,
    /// Names of files in the layer.
    pub(super) names: Vec<Vec<u8>>,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) files: u64,
    pub(super) bytes: u64,
    /// Which needles, and in which file.
    pub(super) hits: Vec<(usize, PathBuf)>,
}

impl Needles {
    /// Samples from all over the layer, the digests of all blobs, and names long enough not to occur by chance.
    pub(super) fn of(layer: &Path, entries: &[Entry], digests: &[&Digest]) -> Result<Self> {
        let failed = |error| Failure::file("read", layer, error);
        let mut file = File::open(layer).map_err(failed)?;
        let len = file.metadata().map_err(failed)?.len();
        let mut samples = Vec::new();
        // More places than samples: runs of one byte (padding) tell nothing.
        for place in 0..SAMPLES * 4 {
            let mut sample = vec![0; SAMPLE];
            file.seek(SeekFrom::Start(len / (SAMPLES * 4) * place)).map_err(failed)?;
            if file.read_exact(&mut sample).is_err() {
                continue;
            }
            let mut different = sample.clone();
            different.sort_unstable();
            different.dedup();
            if different.len() >= 8 && (samples.len() as u64) < SAMPLES {
                samples.push(sample);
            }
        }
        let digests = digests.iter().flat_map(|digest| {
            let hex = digest.to_string();
            let hex = hex.split_once(':').map_or(hex.as_str(), |(_, hex)| hex).as_bytes().to_vec();
            [hex, digest.as_bytes().to_vec()]
        });
        let step = (entries.len() / 16).max(1);
        let names = entries.iter().step_by(step).map(|entry| entry.name.clone().into_bytes());
        Ok(Self {
            samples,
            digests: digests.collect(),
            names: names.filter(|name| (8..=100).contains(&name.len())).collect(),
        })
    }

    pub(super) fn all(&self) -> Vec<&[u8]> {
        self.samples.iter().chain(&self.digests).chain(&self.names).map(Vec::as_slice).collect()
    }
}

/// Searches every file of a folder (or one file), and the names of files.
pub(super) fn search(place: &Path, needles: &[&[u8]]) -> Result<Found> {
    let finders: Vec<memmem::Finder<'_>> =
        needles.iter().map(|needle| memmem::Finder::new(*needle)).collect();
    let overlap = needles.iter().map(|needle| needle.len()).max().unwrap_or_default();
    let mut paths = Vec::new();
    if place.is_dir() {
        let _ = walk(place, &mut |path| {
            paths.push(path.to_owned());
            ControlFlow::Continue(())
        })?;
    } else {
        paths.push(place.to_owned());
    }
    let mut found = Found::default();
    for path in paths {
        found.files += 1;
        let name = path.strip_prefix(place).unwrap_or(Path::new("")).as_os_str().as_encoded_bytes().to_vec();
        let mut hit = vec![false; finders.len()];
        mark(&finders, &name, &mut hit);
        found.bytes += contents(&path, &finders, overlap, &mut hit)?;
        found.hits.extend((0..hit.len()).filter(|&index| hit[index]).map(|index| (index, path.clone())));
    }
    Ok(found)
}

fn contents(path: &Path, finders: &[memmem::Finder<'_>], overlap: usize, hit: &mut [bool]) -> Result<u64> {
    let failed = |error| Failure::file("read", path, error);
    let mut file = File::open(path).map_err(failed)?;
    let mut window = Vec::with_capacity(PIECE + overlap);
    let mut total = 0;
    loop {
        // What a needle could have begun in stays in view.
        let keep = window.len().min(overlap);
        window.drain(..window.len() - keep);
        let read = file.by_ref().take(PIECE as u64).read_to_end(&mut window).map_err(failed)?;
        if read == 0 {
            return Ok(total);
        }
        total += read as u64;
        mark(finders, &window, hit);
    }
}

fn mark(finders: &[memmem::Finder<'_>], bytes: &[u8], hit: &mut [bool]) {
    for (finder, hit) in finders.iter().zip(hit) {
        *hit = *hit || finder.find(bytes).is_some();
    }
}

/// Name, size and time of every file of a folder.
pub(super) fn snapshot(folder: &Path) -> Result<BTreeMap<PathBuf, (u64, SystemTime)>> {
    let mut files = BTreeMap::new();
    let mut failed = None;
    let _ = walk(folder, &mut |path| match fs::metadata(path)
        .and_then(|meta| Ok((meta.len(), meta.modified()?)))
    {
        Ok(state) => {
            files.insert(path.to_owned(), state);
            ControlFlow::Continue(())
        }
        Err(error) => {
            failed = Some(Failure::file("look at", path, error));
            ControlFlow::Break(())
        }
    })?;
    match failed {
        Some(failure) => Err(failure),
        None => Ok(files),
    }
}

/// Whether two files have the same bytes, from `offset` of the first on, for the whole of `bytes`.
pub(super) fn equals_at(file: &Path, offset: u64, bytes: &[u8]) -> Result<bool> {
    let failed = |error| Failure::file("read", file, error);
    let mut file = File::open(file).map_err(failed)?;
    file.seek(SeekFrom::Start(offset)).map_err(failed)?;
    let mut original = vec![0; bytes.len()];
    file.read_exact(&mut original).map_err(failed)?;
    Ok(original == bytes)
}

/// Whether two files are the same, byte by byte.
pub(super) fn same_files(a: &Path, b: &Path) -> Result<bool> {
    let open = |path: &Path| File::open(path).map_err(|error| Failure::file("read", path, error));
    let (mut a, mut b) = (open(a)?, open(b)?);
    let failed = |error| Failure::new(Kind::Unavailable, format!("can't read the copy: {error}"));
    loop {
        let (mut left, mut right) = (Vec::new(), Vec::new());
        a.by_ref().take(PIECE as u64).read_to_end(&mut left).map_err(failed)?;
        b.by_ref().take(PIECE as u64).read_to_end(&mut right).map_err(failed)?;
        if left != right {
            return Ok(false);
        }
        if left.is_empty() {
            return Ok(true);
        }
    }
}
