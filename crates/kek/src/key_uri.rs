//! What users type: a portable key id, or a key in a local vault's folder.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::key_id::{InvalidKeyId, KeyId, parse};
use crate::percent;

const SCHEME: &str = "vault+file:";

/// A key as a user types it.
///
/// A folder is resolved to a [`KeyId`] by opening the vault there; only that goes into a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyUri {
    /// A key id as it stands.
    Portable(KeyId),
    /// `vault+file:///DIR/keys/NAME[/VERSION]`: a key of the local vault in this folder.
    VaultFolder {
        /// The vault's folder, absolute.
        dir: PathBuf,
        /// The key's name.
        name: String,
        /// Its version: 32 hexadecimal characters. `None`: the newest is meant.
        version: Option<String>,
    },
}

impl KeyUri {
    /// The key's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Portable(key) => key.name(),
            Self::VaultFolder { name, .. } => name,
        }
    }

    /// The version, if the user named one.
    pub fn version(&self) -> Option<&str> {
        match self {
            Self::Portable(key) => key.version(),
            Self::VaultFolder { version, .. } => version.as_deref(),
        }
    }
}

impl FromStr for KeyUri {
    type Err = InvalidKeyId;

    fn from_str(text: &str) -> Result<Self, InvalidKeyId> {
        match parse::strip_scheme(text, SCHEME) {
            Some(rest) => vault_folder(rest),
            None => text.parse().map(Self::Portable),
        }
    }
}

impl fmt::Display for KeyUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Portable(key) => key.fmt(f),
            Self::VaultFolder { dir, name, version } => {
                let dir = percent::encode(&path_to_bytes(dir), is_kept);
                write!(f, "{SCHEME}//{}/keys/{name}", dir.trim_end_matches('/'))?;
                version.iter().try_for_each(|version| write!(f, "/{version}"))
            }
        }
    }
}

/// `///DIR/keys/NAME[/VERSION]`, or with one slash (RFC 8089 has both).
fn vault_folder(rest: &str) -> Result<KeyUri, InvalidKeyId> {
    let fix = |why: &str| Err(InvalidKeyId::new(why));
    let path = match rest.strip_prefix("//") {
        Some(rest) => rest.strip_prefix("localhost").unwrap_or(rest),
        None => rest,
    };
    if !path.starts_with('/') {
        return fix("the vault's folder is absolute: write vault+file:///DIR/keys/NAME[/VERSION]");
    }
    let Some((dir, name, version)) = split(path) else {
        return fix("after the vault's folder, write /keys/NAME[/VERSION]");
    };
    let Some(dir) = percent::decode(dir, |byte| !matches!(byte, b'?' | b'#') && !byte.is_ascii_control())
    else {
        return fix("in a folder's name, write %25, %3F and %23 for %, ? and #");
    };
    if dir.contains(&0) {
        return fix("a folder's name has no zero byte");
    }
    // `vault+file:///$PWD/…` gives four slashes; they mean no more than three.
    let slashes = dir.iter().take_while(|&&byte| byte == b'/').count().saturating_sub(1);
    let Some(dir) = bytes_to_path(&dir[slashes..]) else {
        return fix("a folder's name is UTF-8 on this system");
    };
    let name = parse::name(name)?;
    Ok(KeyUri::VaultFolder { dir, name, version: version.map(str::to_owned) })
}

/// From the end, because a folder may have any name: a version is 32 hexadecimal characters.
fn split(path: &str) -> Option<(&str, &str, Option<&str>)> {
    let (head, last) = path.rsplit_once('/')?;
    let is_version = last.len() == 32 && last.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if is_version
        && let Some((head, name)) = head.rsplit_once('/')
        && let Some(dir) = head.strip_suffix("/keys")
    {
        return Some((or_root(dir), name, Some(last)));
    }
    head.strip_suffix("/keys").map(|dir| (or_root(dir), last, None))
}

fn or_root(dir: &str) -> &str {
    if dir.is_empty() { "/" } else { dir }
}

fn is_kept(byte: u8) -> bool {
    percent::is_unreserved(byte) || matches!(byte, b'/' | b':' | b'@' | b'+' | b',' | b'=' | b'(' | b')')
}

#[cfg(unix)]
fn path_to_bytes(path: &Path) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt;
    path.as_os_str().as_bytes().to_vec()
}

#[cfg(unix)]
#[allow(clippy::unnecessary_wraps, reason = "elsewhere not every text is a path")]
fn bytes_to_path(bytes: &[u8]) -> Option<PathBuf> {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    Some(PathBuf::from(OsStr::from_bytes(bytes)))
}

/// `C:\x` is written `/C:/x` (RFC 8089 appendix D.2).
#[cfg(not(unix))]
fn path_to_bytes(path: &Path) -> Vec<u8> {
    let text = path.to_string_lossy().replace('\\', "/");
    if text.starts_with('/') { text.into_bytes() } else { format!("/{text}").into_bytes() }
}

#[cfg(not(unix))]
fn bytes_to_path(bytes: &[u8]) -> Option<PathBuf> {
    let text = std::str::from_utf8(bytes).ok()?;
    let drive = text.as_bytes().get(2) == Some(&b':');
    Some(PathBuf::from(if drive { &text[1..] } else { text }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VERSION: &str = "0123456789abcdef0123456789abcdef";

    fn folder(dir: &str, name: &str, version: Option<&str>) -> KeyUri {
        KeyUri::VaultFolder { dir: dir.into(), name: name.into(), version: version.map(str::to_owned) }
    }

    #[test]
    fn folders() {
        for (text, uri) in [
            ("vault+file:///srv/v/keys/k", folder("/srv/v", "k", None)),
            ("vault+file:////srv/v/keys/k", folder("/srv/v", "k", None)),
            ("vault+file:/srv/v/keys/k", folder("/srv/v", "k", None)),
            ("VAULT+FILE://localhost/srv/v/keys/k", folder("/srv/v", "k", None)),
            ("vault+file:///keys/k", folder("/", "k", None)),
            ("vault+file:///a b/%C3%A9/keys/k", folder("/a b/é", "k", None)),
            ("vault+file:///srv/keys/keys/keys", folder("/srv/keys", "keys", None)),
            (&format!("vault+file:///srv/v/keys/k/{VERSION}"), folder("/srv/v", "k", Some(VERSION))),
        ] {
            assert_eq!(text.parse(), Ok(uri.clone()), "{text}");
            assert_eq!(uri.to_string().parse(), Ok(uri));
        }
    }

    #[test]
    fn refusals_name_the_fix() {
        for (text, fix) in [
            ("vault+file:v/keys/k", "absolute"),
            ("vault+file://host/v/keys/k", "absolute"),
            ("vault+file:///v/k", "/keys/NAME"),
            ("vault+file:///v/keys/k/old", "/keys/NAME"),
            ("vault+file:///v?x/keys/k", "%3F"),
            ("vault+file:///v%/keys/k", "%25"),
            ("vault+file:///v%00/keys/k", "zero byte"),
            ("vault+file:///v/keys/a_b", "0-9"),
        ] {
            let why = text.parse::<KeyUri>().unwrap_err().to_string();
            assert!(why.contains(fix), "{text}: {why}");
        }
    }

    #[test]
    fn other_texts_are_key_ids() {
        let text = "https://h.vault.azure.net/keys/k";
        assert_eq!(text.parse(), Ok(KeyUri::Portable(text.parse().unwrap())));
        assert!("k".parse::<KeyUri>().is_err());
    }

    proptest! {
        #[test]
        fn display_then_parse_is_the_same(
            dir in "(/[^/\\x00-\\x1f\\x7f]{1,12}){1,4}", name in "[0-9A-Za-z-]{1,31}",
            version in proptest::option::of("[0-9a-f]{32}"),
        ) {
            let uri = folder(&dir, &name, version.as_deref());
            prop_assert_eq!(uri.to_string().parse(), Ok(uri));
        }

        #[test]
        fn no_text_panics(text in "(vault\\+file:)?[/a-f0-9?#%é.-]{0,60}(/keys/)?[0-9a-f]{0,33}") {
            let _ = text.parse::<KeyUri>();
        }
    }
}
