//! Where everything is in a tar. Who made it may mean harm: only the names of a layout are looked at, only as plain files, and
//! nothing is written anywhere.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use tar::EntryType;

use crate::error::RegistryError;
use crate::layout::{DOCKER_IMAGES, LayoutError, Name, at};

/// The most bytes of headers that are read: about a hundred thousand contents.
const MAX_HEADERS: u64 = 128 << 20;

/// What compressed files begin with, and with what they are unpacked.
const COMPRESSED: [(&[u8], &str); 4] = [
    (&[0x1f, 0x8b], "gunzip"),
    (&[0x28, 0xb5, 0x2f, 0xfd], "unzstd"),
    (b"\xfd7zXZ\0", "unxz"),
    (b"BZh", "bunzip2"),
];

/// A tar that was looked through.
pub(in crate::layout) struct Archive {
    path: PathBuf,
    places: Places,
}

/// What was found in a tar.
#[derive(Debug, Default)]
struct Places {
    of: HashMap<Name, Range<u64>>,
    has_docker_images: bool,
}

impl Archive {
    /// Looks through the file.
    pub(in crate::layout) async fn open(path: &Path) -> Result<Self, LayoutError> {
        let path = path.to_owned();
        let looked = tokio::task::spawn_blocking(move || {
            let places = places(&path)?;
            Ok(Self { path, places })
        });
        looked.await.map_err(|_| RegistryError::busy("the process is ending"))?
    }

    pub(in crate::layout) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the bytes of a name are in the file.
    pub(in crate::layout) fn find(&self, name: &Name) -> Option<Range<u64>> {
        self.places.of.get(name).cloned()
    }

    /// Whether it is an archive as `docker save` made it before Docker 25, or might be.
    pub(in crate::layout) fn has_docker_images(&self) -> bool {
        self.places.has_docker_images
    }
}

fn places(path: &Path) -> Result<Places, LayoutError> {
    let mut file = File::open(path).map_err(at(path))?;
    let len = file.metadata().map_err(at(path))?.len();
    refuse_compressed(&mut file, path)?;
    let mut places = Places::default();
    let unreadable = |error: io::Error| match error.kind() {
        // The tar's own: the file is as it is.
        io::ErrorKind::Other
        | io::ErrorKind::InvalidData
        | io::ErrorKind::InvalidInput
        | io::ErrorKind::UnexpectedEof => {
            LayoutError::Invalid(format!("{} is no tar that can be read: {error}", path.display()))
        }
        _ => at(path)(error),
    };
    let mut archive = tar::Archive::new(Bounded { file, left: MAX_HEADERS });
    for entry in archive.entries_with_seek().map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let bytes = entry.path_bytes();
        // Others are no part of a layout, whatever they are and wherever they would go.
        let Some(name) = std::str::from_utf8(&bytes).ok().and_then(Name::of) else {
            places.has_docker_images |= *bytes == *DOCKER_IMAGES.as_bytes();
            continue;
        };
        let refused = |why: &str| Err(LayoutError::Invalid(format!("{}: `{name}` {why}", path.display())));
        if !matches!(entry.header().entry_type(), EntryType::Regular | EntryType::Continuous) {
            return refused("is no plain file; make the archive anew from the layout's folder");
        }
        let start = entry.raw_file_position();
        // Nothing is set aside for a length that the file does not have.
        let Some(end) = start.checked_add(entry.size()).filter(|end| *end <= len) else {
            let why = format!("{}: `{name}` is cut off; get the archive again", path.display());
            return Err(LayoutError::Damaged(why));
        };
        match places.of.entry(name) {
            Entry::Vacant(place) => drop(place.insert(start..end)),
            // Programs differ in which of them they take.
            Entry::Occupied(place) => {
                let name = place.key();
                let why = format!("{}: `{name}` is there twice", path.display());
                return Err(LayoutError::Invalid(why));
            }
        }
    }
    Ok(places)
}

fn refuse_compressed(file: &mut File, path: &Path) -> Result<(), LayoutError> {
    let mut head = Vec::new();
    file.take(8).read_to_end(&mut head).map_err(at(path))?;
    if let Some((_, program)) = COMPRESSED.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Err(LayoutError::Invalid(format!(
            "{} is compressed, and contents can't be found in it; uncompress it with {program}",
            path.display()
        )));
    }
    file.rewind().map_err(at(path))
}

/// A file of which so much is read and no more; what is passed over does not count.
struct Bounded {
    file: File,
    left: u64,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "there is too much beside its contents")
        })?;
        Ok(read)
    }
}

impl Seek for Bounded {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

#[cfg(test)]
mod tests;
