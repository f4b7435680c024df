use async_trait::async_trait;
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::{
    CopyOptions, GetResult, ListResult, MultipartUpload, PutMultipartOptions, PutResult,
    Result as StoreResult,
};
use tempfile::TempDir;

use super::*;

/// Every kind of bucket there is without a network. The folder lives as long as the first part.
fn buckets() -> (TempDir, Vec<Bucket>) {
    let temp = tempfile::tempdir().unwrap();
    let files = Bucket::from_files(FileStore::create(temp.path()).unwrap());
    let memory = Bucket::from_object_store(Arc::new(InMemory::new()), "").unwrap();
    let prefixed = Bucket::from_object_store(Arc::new(InMemory::new()), "some/prefix").unwrap();
    (temp, vec![files, memory, prefixed])
}

fn done<T>(outcome: Conditional<T>) -> T {
    match outcome {
        Conditional::Done(done) => done,
        Conditional::Lost => panic!("lost"),
        Conditional::Unknown(error) => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn conditional_writes_have_definite_losers() {
    let (_temp, buckets) = buckets();
    for bucket in buckets {
        let first = done(bucket.put_create("a/b", "1").await);
        assert!(matches!(bucket.put_create("a/b", "x").await, Conditional::Lost), "{bucket}");
        let second = done(bucket.put_update("a/b", "2", &first).await);
        assert!(matches!(bucket.put_update("a/b", "x", &first).await, Conditional::Lost), "{bucket}");
        assert!(matches!(bucket.put_update("none", "x", &first).await, Conditional::Lost), "{bucket}");
        assert!(matches!(bucket.remove("a/b", &first, [7; 16]).await, Conditional::Lost), "{bucket}");
        let object = bucket.get("a/b", 10).await.unwrap().unwrap();
        assert_eq!((&object.bytes[..], object.version, object.bytes.is_empty()), (&b"2"[..], second, false));
        assert!(matches!(bucket.put_create("a//b", "x").await, Conditional::Unknown(_)), "{bucket}");
    }
}

#[tokio::test]
async fn what_is_removed_can_be_put_again() {
    let (_temp, buckets) = buckets();
    for bucket in buckets {
        let version = done(bucket.put_create("a", "1").await);
        done(bucket.remove("a", &version, [7; 16]).await);
        assert!(matches!(bucket.remove("a", &version, [7; 16]).await, Conditional::Lost), "{bucket}");
        match bucket.get("a", 64).await.unwrap() {
            None => {
                assert!(bucket.files.is_some(), "only folders remove for real");
                done(bucket.put_create("a", "2").await);
            }
            Some(tombstone) => {
                assert!(bucket.files.is_none() && tombstone.is_tombstone());
                let listed: Vec<_> = bucket.list("").try_collect().await.unwrap();
                assert!(listed.len() == 1 && listed[0].is_tombstone());
                done(bucket.put_update("a", "2", &tombstone.version).await);
            }
        }
        assert_eq!(bucket.get("a", 10).await.unwrap().unwrap().bytes, "2");
    }
}

#[tokio::test]
async fn too_large_objects_are_refused() {
    let (_temp, buckets) = buckets();
    for bucket in buckets {
        bucket.put_new("a", PutPayload::from_static(b"12345")).await.unwrap();
        assert_eq!(bucket.get("a", 4).await.unwrap_err().kind(), BucketErrorKind::TooLarge);
        assert_eq!(bucket.get("a", 5).await.unwrap().unwrap().bytes, "12345");
        assert!(bucket.get("none", 5).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn ranges_are_exact_or_errors() {
    let (_temp, buckets) = buckets();
    for bucket in buckets {
        bucket.put_new("a", PutPayload::from_static(b"12345")).await.unwrap();
        assert_eq!(bucket.get_range("a", 1..5).await.unwrap(), "2345");
        for range in [1..6, 5..6, 9..12] {
            let error = bucket.get_range("a", range).await.unwrap_err();
            assert_eq!(error.kind(), BucketErrorKind::ShortObject, "{bucket}: {error:?}");
        }
        assert_eq!(bucket.get_range("none", 0..1).await.unwrap_err().kind(), BucketErrorKind::NotFound);
    }
}

#[tokio::test]
async fn listings_give_keys_below_the_prefix() {
    let (_temp, buckets) = buckets();
    for bucket in buckets {
        for key in ["a/b", "a/c/d", "ab", "e"] {
            bucket.put_new(key, PutPayload::from_static(b"x")).await.unwrap();
        }
        let mut keys: Vec<_> = bucket.list("a").map_ok(|entry| entry.key).try_collect().await.unwrap();
        keys.sort();
        assert_eq!(keys, ["a/b", "a/c/d"], "{bucket}");
        let head = bucket.head("ab").await.unwrap().unwrap();
        assert_eq!((head.key.as_str(), head.size), ("ab", 1));
        bucket.delete_data("e").await.unwrap();
        bucket.delete_data("e").await.unwrap();
        assert_eq!(bucket.list("").count().await, 3);
    }
}

#[tokio::test]
async fn the_probe_accepts_what_works_and_leaves_nothing() {
    let (_temp, buckets) = buckets();
    for bucket in buckets {
        bucket.probe([7; 16]).await.unwrap();
        assert_eq!(bucket.list("").count().await, 0, "{bucket}");
    }
}

#[tokio::test]
async fn the_probe_refuses_stores_without_conditional_writes() {
    let temp = tempfile::tempdir().unwrap();
    let no_update = LocalFileSystem::new_with_prefix(temp.path()).unwrap();
    let stores: Vec<Arc<dyn ObjectStore>> = vec![
        Arc::new(no_update),
        Arc::new(Careless { inner: InMemory::new(), creates: true, updates: false }),
        Arc::new(Careless { inner: InMemory::new(), creates: false, updates: true }),
    ];
    for store in stores {
        let bucket = Bucket::from_object_store(store, "").unwrap();
        let error = bucket.probe([7; 16]).await.unwrap_err();
        assert_eq!(error.kind(), BucketErrorKind::Unsupported, "{bucket}");
        assert!(error.to_string().contains(&bucket.to_string()), "{error}");
        assert_eq!(bucket.list("").count().await, 0, "{bucket}");
    }
}

#[test]
fn errors_that_no_back_end_classified() {
    let listing = |said: &str| {
        let source =
            format!("Error performing list request: Error performing GET … - Server returned {said}");
        BucketError::from_store("list", "", Error::Generic { store: "GCS", source: source.into() }).kind()
    };
    for (said, kind) in [
        (
            "non-2xx status code: 401 Unauthorized: <Code>AuthenticationRequired</Code>",
            BucketErrorKind::PermissionDenied,
        ),
        ("non-2xx status code: 403 Forbidden: ", BucketErrorKind::PermissionDenied),
        ("non-2xx status code: 404 Not Found: <Code>NoSuchBucket</Code>", BucketErrorKind::NotFound),
        ("non-2xx status code: 429 Too Many Requests: ", BucketErrorKind::Throttled),
        ("non-2xx status code: 503 Service Unavailable: <Code>SlowDown</Code>", BucketErrorKind::Throttled),
        ("non-2xx status code: 503 Service Unavailable: ", BucketErrorKind::Unavailable),
    ] {
        assert_eq!(listing(said), kind, "{said}");
    }
}

/// A store that takes conditions and does not look at them, as some that speak S3 do.
#[derive(Debug)]
struct Careless {
    inner: InMemory,
    creates: bool,
    updates: bool,
}

impl fmt::Display for Careless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Careless")
    }
}

#[async_trait]
impl ObjectStore for Careless {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        mut opts: PutOptions,
    ) -> StoreResult<PutResult> {
        match opts.mode {
            PutMode::Create if self.creates => opts.mode = PutMode::Overwrite,
            PutMode::Update(_) if self.updates => opts.mode = PutMode::Overwrite,
            _ => {}
        }
        self.inner.put_opts(location, payload, opts).await
    }
    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }
    async fn get_opts(&self, location: &Path, options: GetOptions) -> StoreResult<GetResult> {
        self.inner.get_opts(location, options).await
    }
    fn delete_stream(
        &self,
        all: BoxStream<'static, StoreResult<Path>>,
    ) -> BoxStream<'static, StoreResult<Path>> {
        self.inner.delete_stream(all)
    }
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.inner.list(prefix)
    }
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }
    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
