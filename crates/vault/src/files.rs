//! Files that are either as they were or as they should be, whatever happens in between.
//!
//! Write: a new file in the same folder, fsync, rename over the old one, fsync the folder. Change: under a lock
//! that other processes respect. What a crash leaves behind has a name of its own and is cleared by the next change.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;

use bulla_envelope::random::RandomSource;
use data_encoding::HEXLOWER;

use crate::error::VaultError;

/// What an interrupted write leaves behind begins like this.
pub(crate) const TEMP_PREFIX: &str = ".tmp-";
/// Far above what the vault writes; a larger file is not its own.
const MAX_LEN: u64 = 16 << 20;

/// Makes a folder that only its owner may enter; `false` if it was there.
pub(crate) fn create_folder(path: &Path) -> Result<bool, VaultError> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    match builder.create(path) {
        Ok(()) => {
            if let Some(parent) = path.parent() {
                sync_folder(parent)?;
            }
            Ok(true)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(false),
        Err(error) => Err(VaultError::io("create the folder", path, error)),
    }
}

/// Takes others' access to a folder that was there before.
pub(crate) fn make_private(path: &Path) -> Result<(), VaultError> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
            .map_err(|error| VaultError::io("set the permissions of", path, error))?;
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

/// Replaces or makes a file, atomically and durably, readable by its owner only.
pub(crate) fn write(path: &Path, bytes: &[u8], random: &dyn RandomSource) -> Result<(), VaultError> {
    let folder = path.parent().expect("the vault's files are in its folders");
    let mut tail = [0; 8];
    random.fill(&mut tail);
    let temp = folder.join(format!("{TEMP_PREFIX}{}", HEXLOWER.encode(&tail)));
    let written = new_private_file(&temp)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temp, path));
    if let Err(error) = written {
        // The next change would clear it too.
        drop(fs::remove_file(&temp));
        return Err(VaultError::io("write", path, error));
    }
    sync_folder(folder)
}

/// A file's content; `None` if there is no such file.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, VaultError> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(MAX_LEN + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) if u64::try_from(bytes.len()).is_ok_and(|len| len <= MAX_LEN) => Ok(Some(bytes)),
        Ok(_) => Err(VaultError::damaged(path, "it is too large")),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(VaultError::io("read", path, error)),
    }
}

/// Overwrites a file and removes it. On most disks of today old blocks survive for a while, which is why what is in it
/// is sealed.
pub(crate) fn shred(path: &Path) -> Result<(), VaultError> {
    let overwrite = || {
        let mut file = OpenOptions::new().write(true).open(path)?;
        let len = file.metadata()?.len();
        io::copy(&mut io::repeat(0).take(len), &mut file)?;
        file.sync_all()
    };
    match overwrite().and_then(|()| fs::remove_file(path)) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(VaultError::io("destroy", path, error)),
    }
}

/// Removes a file or an empty folder; it may be gone already.
pub(crate) fn remove(path: &Path) -> Result<(), VaultError> {
    let removed = if path.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) };
    match removed {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(VaultError::io("remove", path, error)),
    }
}

/// The names in a folder; none if there is no such folder.
pub(crate) fn names(path: &Path) -> Result<Vec<String>, VaultError> {
    let list = || fs::read_dir(path)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>();
    match list() {
        Ok(names) => {
            // What is no UTF-8 is nothing that the vault made.
            let mut names: Vec<String> =
                names.into_iter().filter_map(|name| name.into_string().ok()).collect();
            names.sort_unstable();
            Ok(names)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(VaultError::io("list", path, error)),
    }
}

/// Makes renames and removals in a folder last.
pub(crate) fn sync_folder(path: &Path) -> Result<(), VaultError> {
    #[cfg(unix)]
    {
        // A relative path's parent may be empty: the current folder.
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        File::open(path)
            .and_then(|folder| folder.sync_all())
            .map_err(|error| VaultError::io("sync the folder", path, error))?;
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

/// Held while something is read, changed and written back. Other processes, and other threads, wait.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    pub(crate) fn acquire(path: &Path) -> Result<Self, VaultError> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        private(&mut options);
        let file = options.open(path).map_err(|error| VaultError::io("open", path, error))?;
        file.lock().map_err(|error| VaultError::io("lock", path, error))?;
        Ok(Self { _file: file })
    }
}

fn new_private_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    private(&mut options);
    options.open(path)
}

fn private(options: &mut OpenOptions) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    #[cfg(not(unix))]
    let _ = options;
}
