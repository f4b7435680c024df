//! Where a store is: the URL that users type.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use object_store::ObjectStoreScheme;
use object_store::memory::InMemory;
use url::Url;

use super::{Bucket, BucketError, BucketErrorKind, FileStore, ForeignBucket, cloud};

/// A store's place: `file:`, `memory:`, `s3:`, `az:` (and `azure:`, `abfs:`, `https://ACCOUNT.blob.core.windows.net/…`),
/// `gs:`, or a bare path, which is a folder.
///
/// It holds no credentials: those come from object_store's own environment variables (`AWS_…`, `AZURE_…`,
/// `GOOGLE_…`), and a URL with a password or a query is refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StoreUrl {
    place: Place,
    canonical: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Place {
    Folder(PathBuf),
    Memory(String),
    Cloud(Url),
}

impl StoreUrl {
    /// Understands a URL or a bare path. A relative path is taken from the working directory, and links in the part
    /// of it that exists are followed, so that one folder has one [`canonical`](Self::canonical) name.
    ///
    /// # Errors
    /// [`BucketErrorKind::Invalid`], saying what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, BucketError> {
        let url = match Url::parse(text) {
            // `C:\store` is a path.
            Ok(url) if url.scheme().len() > 1 => url,
            _ if text.contains("://") => return Err(invalid(text, "it is not a well-formed URL")),
            _ if text.is_empty() => return Err(invalid(text, "it is empty")),
            _ => return Self::folder_at(Path::new(text)),
        };
        if url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
            // Not repeated in the message: it may be a secret.
            let message = "a store's URL has no password, query or fragment; give credentials and options in \
                           the environment (AWS_…, AZURE_…, GOOGLE_…)";
            return Err(BucketError::new(BucketErrorKind::Invalid, message));
        }
        match url.scheme() {
            "file" => match url.to_file_path() {
                Ok(path) => Self::folder_at(&path),
                Err(()) => Err(invalid(text, "a folder's URL is file:///ABSOLUTE/PATH")),
            },
            "memory" => {
                let name = format!("{}/{}", url.host_str().unwrap_or_default(), url.path());
                let name = name.split('/').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
                Ok(Self { canonical: format!("memory:///{name}"), place: Place::Memory(name) })
            }
            _ => Self::cloud_at(text, url),
        }
    }

    fn folder_at(path: &Path) -> Result<Self, BucketError> {
        let text = path.display().to_string();
        let path =
            resolve(path).map_err(|error| invalid(&text, "it has no absolute path").with_source(error))?;
        let url = Url::from_file_path(&path).map_err(|()| invalid(&text, "it has no absolute path"))?;
        let canonical = url.as_str().trim_end_matches('/').to_owned();
        Ok(Self { place: Place::Folder(path), canonical })
    }

    fn cloud_at(text: &str, url: Url) -> Result<Self, BucketError> {
        let known = "known are file:, memory:, s3:, az:, gs: and bare paths";
        match ObjectStoreScheme::parse(&url) {
            Ok((ObjectStoreScheme::Http, _)) => return Err(invalid(text, known)),
            Ok(_) => {}
            Err(error) => return Err(invalid(text, known).with_source(error)),
        }
        let scheme = match url.scheme() {
            "s3a" => "s3",
            "azure" | "adl" => "az",
            "abfss" => "abfs",
            other => other,
        };
        let user = if url.username().is_empty() { String::new() } else { format!("{}@", url.username()) };
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        let host = format!("{user}{}{port}", url.host_str().unwrap_or_default()).to_lowercase();
        let canonical = format!("{scheme}://{host}{}", url.path().trim_end_matches('/'));
        Ok(Self { place: Place::Cloud(url), canonical })
    }

    /// The one text by which this place is remembered: absolute, no trailing slash, lower-case host.
    #[must_use]
    pub fn canonical(&self) -> &str {
        &self.canonical
    }

    /// The folder, if it is one.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        match &self.place {
            Place::Folder(path) => Some(path),
            _ => None,
        }
    }

    /// Opens the place, with options from object_store's environment variables. With `create` a missing folder is
    /// made; containers and buckets never are.
    ///
    /// A `memory:` place exists once per process and name: whoever connects to it sees the same objects.
    ///
    /// # Errors
    /// [`BucketErrorKind::NotFound`] for a missing folder; [`BucketErrorKind::Invalid`] if options are missing or
    /// the back end was not built in. Cloud stores are not contacted yet.
    pub fn connect(&self, create: bool) -> Result<Bucket, BucketError> {
        match &self.place {
            Place::Folder(path) if create => FileStore::create(path).map(Bucket::from_files),
            Place::Folder(path) => FileStore::open(path).map(Bucket::from_files),
            Place::Memory(name) => Bucket::from_object_store(memory(name), ""),
            Place::Cloud(url) => cloud::connect(url),
        }
    }

    /// Opens a place that another program writes, as [`connect`](Self::connect) does otherwise. Opening changes nothing.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn connect_foreign(&self) -> Result<ForeignBucket, BucketError> {
        match &self.place {
            Place::Folder(path) => ForeignBucket::folder(path),
            Place::Memory(_) | Place::Cloud(_) => self.connect(false).map(ForeignBucket::new),
        }
    }

    /// Whether `other` is this place or lies within it.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        let rest = other.canonical.strip_prefix(&self.canonical);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || self.canonical.ends_with('/'))
    }
}

fn memory(name: &str) -> Arc<InMemory> {
    static MEMORY: Mutex<BTreeMap<String, Arc<InMemory>>> = Mutex::new(BTreeMap::new());
    let mut stores = MEMORY.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(stores.entry(name.to_owned()).or_default())
}

/// `path` absolute, without `.` and `..`, links followed as far as it exists.
fn resolve(path: &Path) -> std::io::Result<PathBuf> {
    use std::path::Component;
    let mut resolved = PathBuf::new();
    for component in std::path::absolute(path)?.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                resolved.pop();
            }
            component => {
                resolved.push(component);
                if let Ok(real) = std::fs::canonicalize(&resolved) {
                    resolved = real;
                }
            }
        }
    }
    Ok(resolved)
}

fn invalid(text: &str, why: &str) -> BucketError {
    BucketError::new(BucketErrorKind::Invalid, format!("{text:?} is not a store's URL: {why}"))
}

impl FromStr for StoreUrl {
    type Err = BucketError;

    fn from_str(text: &str) -> Result<Self, BucketError> {
        Self::parse(text)
    }
}

/// The canonical text.
impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.canonical)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        StoreUrl::parse(text).unwrap().canonical().to_owned()
    }

    #[test]
    fn one_place_has_one_canonical_text() {
        for (text, expected) in [
            ("memory:///a", "memory:///a"),
            ("memory:a/", "memory:///a"),
            ("memory:", "memory:///"),
            ("S3://Bucket/Path/", "s3://bucket/Path"),
            ("s3a://bucket", "s3://bucket"),
            ("gs://bucket/p", "gs://bucket/p"),
            ("azure://container/p", "az://container/p"),
            ("az://container@account/p", "az://container@account/p"),
            ("abfss://fs@Account.dfs.core.windows.net/p/", "abfs://fs@account.dfs.core.windows.net/p"),
            ("https://Account.blob.core.windows.net/c/p", "https://account.blob.core.windows.net/c/p"),
        ] {
            assert_eq!(canonical(text), expected, "{text}");
        }
    }

    #[test]
    fn a_folder_has_one_canonical_text_before_and_after_it_exists() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().canonicalize().unwrap();
        let folder = root.join("new/store");
        let text = folder.to_str().unwrap();
        let expected = format!("file://{text}");
        assert_eq!(canonical(text), expected);
        assert_eq!(canonical(&format!("{text}/")), expected);
        assert_eq!(canonical(&format!("file://{text}/")), expected);
        assert_eq!(canonical(&format!("file:{text}")), expected);
        assert_eq!(canonical(&format!("{}/./other/../new//store", root.display())), expected);
        assert_eq!(canonical(&canonical(text)), expected);
        std::fs::create_dir_all(&folder).unwrap();
        assert_eq!(canonical(text), expected);
        assert_eq!(StoreUrl::parse(text).unwrap().folder(), Some(&*folder));
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(&folder, root.join("link")).unwrap();
            assert_eq!(canonical(root.join("link").to_str().unwrap()), expected);
        }
        let relative = StoreUrl::parse("some folder").unwrap();
        assert!(relative.folder().unwrap().is_absolute());
        assert!(relative.canonical().ends_with("/some%20folder"));
    }

    #[test]
    fn what_is_no_place_is_refused_without_repeating_secrets() {
        for text in
            ["", "http://host/x", "https://example.com/x", "ftp://x", "file://host/x", "s3:///", "s3:b"]
        {
            let error = StoreUrl::parse(text).expect_err(text);
            assert_eq!(error.kind(), BucketErrorKind::Invalid, "{text}");
        }
        for text in ["s3://user:hunter2@bucket/p", "az://c/p?sig=hunter2", "az://c/p#hunter2"] {
            let error = StoreUrl::parse(text).expect_err(text);
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn places_within_places() {
        for (outer, inner, contains) in [
            ("s3://bucket", "s3://bucket/store", true),
            ("s3://bucket/a", "s3://bucket/a/", true),
            ("s3://bucket/a", "s3://bucket/ab", false),
            ("s3://bucket/a", "s3://bucket", false),
            ("memory:", "memory:a", true),
            ("/", "/srv/store", true),
        ] {
            let parse = |text| StoreUrl::parse(text).unwrap();
            assert_eq!(parse(outer).contains(&parse(inner)), contains, "{outer} {inner}");
        }
    }

    #[tokio::test]
    async fn memory_is_one_place_per_name() {
        let one = StoreUrl::parse("memory:///one-place").unwrap().connect(true).unwrap();
        let same = StoreUrl::parse("memory:one-place").unwrap().connect(false).unwrap();
        let other = StoreUrl::parse("memory:another-place").unwrap().connect(false).unwrap();
        assert!(one.put_create("a", "x").await.is_done());
        assert!(same.head("a").await.unwrap().is_some());
        assert!(other.head("a").await.unwrap().is_none());
    }

    #[test]
    fn a_missing_folder_is_made_only_on_request() {
        let temp = tempfile::tempdir().unwrap();
        let url = StoreUrl::parse(temp.path().join("a/b").to_str().unwrap()).unwrap();
        assert_eq!(url.connect(false).unwrap_err().kind(), BucketErrorKind::NotFound);
        assert!(!temp.path().join("a").exists());
        url.connect(true).unwrap();
        url.connect(false).unwrap();
    }
}
