//! How CNCF Distribution ("docker-registry") lays out what it stores.
//!
//! ```text
//! docker/registry/v2/
//!   blobs/sha256/ab/ab…/data                                     every blob and manifest, once
//!   repositories/NAME/_layers/sha256/ab…/link                    NAME may serve this blob
//!   repositories/NAME/_manifests/revisions/sha256/ab…/link       NAME has this manifest
//!   repositories/NAME/_manifests/tags/TAG/current/link           what TAG names
//!   repositories/NAME/_manifests/tags/TAG/index/sha256/ab…/link  what it has named
//!   repositories/NAME/_uploads/…                                 uploads that did not end
//! ```
//!
//! A link's content is the digest. Keys and contents are another program's: parsing is total.

use bulla::Digest;

use crate::name::{RepositoryName, Tag};

/// Where it all lies.
pub(super) const ROOT: &str = "docker/registry/v2";
/// The longest link: a sha512 digest, and room for a line's end.
pub(super) const MAX_LINK_LEN: usize = 256;

/// What an object of the source is, by its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fact {
    /// The content of a blob or a manifest.
    Data(Digest),
    /// A repository may serve a blob.
    Layer(RepositoryName, Digest),
    /// A repository has a manifest.
    Revision(RepositoryName, Digest),
    /// What a tag names.
    Tag(RepositoryName, Tag),
    /// What a tag has named.
    History,
    /// Part of an upload that did not end.
    Upload,
    /// None of Distribution's, or of a name that no registry has.
    Unknown,
}

impl Fact {
    /// What the object of this key is.
    pub(super) fn of_key(key: &str) -> Self {
        parse(key).unwrap_or(Self::Unknown)
    }
}

fn parse(key: &str) -> Option<Fact> {
    let key = key.strip_prefix(ROOT)?.strip_prefix('/')?;
    if let Some(blob) = key.strip_prefix("blobs/") {
        let [algorithm, first, hex, "data"] = parts(blob)? else { return None };
        let digest = digest(algorithm, hex)?;
        return (hex.get(..2) == Some(first)).then_some(Fact::Data(digest));
    }
    // No component of a name begins with an underscore.
    let (name, rest) = key.strip_prefix("repositories/")?.split_once("/_")?;
    let repository: RepositoryName = name.parse().ok()?;
    if rest.starts_with("uploads/") {
        return Some(Fact::Upload);
    }
    if let Some(layer) = rest.strip_prefix("layers/") {
        let [algorithm, hex, "link"] = parts(layer)? else { return None };
        return Some(Fact::Layer(repository, digest(algorithm, hex)?));
    }
    if let Some(revision) = rest.strip_prefix("manifests/revisions/") {
        let [algorithm, hex, "link"] = parts(revision)? else { return None };
        return Some(Fact::Revision(repository, digest(algorithm, hex)?));
    }
    let (tag, rest) = rest.strip_prefix("manifests/tags/")?.split_once('/')?;
    let tag: Tag = tag.parse().ok()?;
    if rest == "current/link" {
        return Some(Fact::Tag(repository, tag));
    }
    let [algorithm, hex, "link"] = parts(rest.strip_prefix("index/")?)? else { return None };
    digest(algorithm, hex).map(|_| Fact::History)
}

/// Exactly so many parts.
fn parts<const N: usize>(text: &str) -> Option<[&str; N]> {
    text.splitn(N + 1, '/').collect::<Vec<_>>().try_into().ok()
}

fn digest(algorithm: &str, hex: &str) -> Option<Digest> {
    format!("{algorithm}:{hex}").parse().ok()
}

/// The digest that a link names; a line's end after it is no harm.
pub(super) fn parse_link(bytes: &[u8]) -> Option<Digest> {
    std::str::from_utf8(bytes).ok()?.trim_end_matches(['\r', '\n']).parse().ok()
}

/// Where the content of a blob or a manifest is.
pub(super) fn data_key(digest: &Digest) -> String {
    let text = digest.to_string();
    let (algorithm, hex) = text.split_once(':').expect("a digest has a colon");
    format!("{ROOT}/blobs/{algorithm}/{}/{hex}/data", &hex[..2])
}

/// Where a repository's link to a blob is.
pub(super) fn layer_key(repository: &RepositoryName, digest: &Digest) -> String {
    format!("{ROOT}/repositories/{repository}/_layers/{}/link", path(digest))
}

/// Where a repository's link to a manifest is.
pub(super) fn revision_key(repository: &RepositoryName, digest: &Digest) -> String {
    format!("{ROOT}/repositories/{repository}/_manifests/revisions/{}/link", path(digest))
}

/// Where the link of a tag is.
pub(super) fn tag_key(repository: &RepositoryName, tag: &Tag) -> String {
    format!("{ROOT}/repositories/{repository}/_manifests/tags/{tag}/current/link")
}

fn path(digest: &Digest) -> String {
    digest.to_string().replace(':', "/")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn sha256() -> Digest {
        format!("sha256:{HEX}").parse().unwrap()
    }

    #[test]
    fn keys_say_what_they_are() {
        let name: RepositoryName = "team/app".parse().unwrap();
        let tag: Tag = "v1".parse().unwrap();
        let sha512: Digest = format!("sha512:{HEX}{HEX}").parse().unwrap();
        for (key, fact) in [
            (data_key(&sha256()), Fact::Data(sha256())),
            (data_key(&sha512), Fact::Data(sha512)),
            (layer_key(&name, &sha256()), Fact::Layer(name.clone(), sha256())),
            (revision_key(&name, &sha256()), Fact::Revision(name.clone(), sha256())),
            (tag_key(&name, &tag), Fact::Tag(name, tag)),
        ] {
            assert_eq!(Fact::of_key(&key), fact, "{key}");
        }
        let repository = format!("{ROOT}/repositories/a");
        let history = format!("{repository}/_manifests/tags/v1/index/sha256/{HEX}/link");
        assert_eq!(Fact::of_key(&history), Fact::History);
        assert_eq!(Fact::of_key(&format!("{repository}/_uploads/7b/data")), Fact::Upload);
        assert_eq!(Fact::of_key(&format!("{repository}/_uploads/7b/hashstates/sha256/0")), Fact::Upload);
    }

    #[test]
    fn what_distribution_does_not_write_is_unknown() {
        for key in [
            "",
            "docker/registry/v2",
            "docker/registry/v2/",
            "docker/registry/v3/blobs/sha256/01/x/data",
            &format!("{ROOT}/blobs/sha256/99/{HEX}/data"),
            &format!("{ROOT}/blobs/sha256/01/{HEX}/data/more"),
            &format!("{ROOT}/blobs/sha256/01/{HEX}"),
            &format!("{ROOT}/blobs/md5/01/{HEX}/data"),
            &format!("{ROOT}/blobs/sha256/01/{}/data", &HEX[1..]),
            &format!("{ROOT}/repositories/_layers/sha256/{HEX}/link"),
            &format!("{ROOT}/repositories/A/_layers/sha256/{HEX}/link"),
            &format!("{ROOT}/repositories/a/../b/_layers/sha256/{HEX}/link"),
            &format!("{ROOT}/repositories/a/_layers/sha256/{HEX}/other"),
            &format!("{ROOT}/repositories/a/_manifests/tags/-/current/link"),
            &format!("{ROOT}/repositories/a/_manifests/tags/v1/current/link/x"),
            &format!("{ROOT}/repositories/a/link"),
        ] {
            assert_eq!(Fact::of_key(key), Fact::Unknown, "{key}");
        }
    }

    #[test]
    fn links_name_one_digest() {
        let text = sha256().to_string();
        assert_eq!(parse_link(text.as_bytes()), Some(sha256()));
        assert_eq!(parse_link(format!("{text}\n").as_bytes()), Some(sha256()));
        for bad in ["", "\n", "sha256:", HEX, &format!(" {text}"), &format!("{text}{text}")] {
            assert_eq!(parse_link(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(parse_link(&[0xff; 71]), None);
    }

    proptest! {
        #[test]
        fn any_key_and_any_link_parse(key in "docker/registry/v2/(blobs|repositories)/[a-z_/:0-9é]{0,80}", link: Vec<u8>) {
            let _ = Fact::of_key(&key);
            let _ = parse_link(&link);
        }
    }
}
