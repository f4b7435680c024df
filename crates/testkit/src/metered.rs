//! A bucket in memory that counts what is read of it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// Cheap to clone; clones are the same bucket and the same counts.
#[derive(Clone, Debug, Default)]
pub struct MeteredStore {
    inner: Arc<InMemory>,
    bytes: Arc<AtomicU64>,
    requests: Arc<AtomicU64>,
}

impl MeteredStore {
    /// Bytes that were read since the last time, and in how many requests: gets, heads and lists.
    #[must_use]
    pub fn take(&self) -> (u64, u64) {
        (self.bytes.swap(0, Ordering::SeqCst), self.requests.swap(0, Ordering::SeqCst))
    }

    fn asked(&self) {
        self.requests.fetch_add(1, Ordering::SeqCst);
    }
}

impl fmt::Display for MeteredStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MeteredStore")
    }
}

#[async_trait]
impl ObjectStore for MeteredStore {
    async fn put_opts(&self, key: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(key, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        key: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(key, options).await
    }

    async fn get_opts(&self, key: &Path, options: GetOptions) -> Result<GetResult> {
        self.asked();
        let head = options.head;
        let got = self.inner.get_opts(key, options).await?;
        if !head {
            self.bytes.fetch_add(got.range.end - got.range.start, Ordering::SeqCst);
        }
        Ok(got)
    }

    fn delete_stream(&self, keys: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(keys)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.asked();
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.asked();
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
