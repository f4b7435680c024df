//! What CNCF Distribution stores, made by hand in memory, so that every request can be scripted.

use std::sync::Arc;

use bulla::bucket::ForeignBucket;
use bulla::{Algorithm, Digest};
use bulla_registry::{Reference, Repository};
use bulla_testkit::scripted::ScriptedStore;
use futures::StreamExt;
use serde_json::{Value, json};

use crate::client::{OCI_MANIFEST, sha256};

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Distribution's bucket.
pub(crate) struct Source {
    pub(crate) script: ScriptedStore,
    pub(crate) bucket: ForeignBucket,
}

/// What [`Source::filled`] has in it.
pub(crate) struct Filled {
    pub(crate) image: Digest,
    pub(crate) index: Digest,
    pub(crate) signature: Digest,
    pub(crate) layers: Vec<Digest>,
}

impl Source {
    pub(crate) fn new() -> Self {
        let script = ScriptedStore::in_memory();
        let bucket = ForeignBucket::from_object_store(Arc::new(script.clone()), "").unwrap();
        Self { script, bucket }
    }

    /// An index of an image, and the image's signature, found as clients of registries without referrers find it.
    pub(crate) async fn filled() -> (Self, Filled) {
        let source = Self::new();
        let large: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let mut layers = vec![source.blob("app", &large).await, source.blob("app", b"small").await];
        let image = source.manifest("app", &image(&layers)).await;
        let list = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [part(&image)]});
        let index = source.manifest("app", &list).await;
        let payload = source.blob("app", b"payload").await;
        let mut signature = self::image(std::slice::from_ref(&payload));
        layers.push(payload);
        (signature["subject"], signature["artifactType"]) = (part(&image), json!("example/signature"));
        let signature = source.manifest("app", &signature).await;
        let list = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [part(&signature)]});
        let referrers = source.manifest("app", &list).await;
        source.tag("app", "v1", &image).await;
        source.tag("app", "all", &index).await;
        source.tag("app", &image.to_string().replace(':', "-"), &referrers).await;
        (source, Filled { image, index, signature, layers })
    }

    pub(crate) async fn put(&self, key: &str, bytes: impl Into<Vec<u8>>) {
        let key = format!("docker/registry/v2/{key}");
        self.script.write(&key, bytes.into()).await.unwrap();
    }

    pub(crate) async fn blob(&self, repository: &str, bytes: &[u8]) -> Digest {
        self.blob_as(repository, &sha256(bytes), bytes).await
    }

    pub(crate) async fn blob_as(&self, repository: &str, digest: &Digest, bytes: &[u8]) -> Digest {
        self.data(digest, bytes).await;
        let link = format!("repositories/{repository}/_layers/{}/link", path(digest));
        self.put(&link, digest.to_string()).await;
        digest.clone()
    }

    pub(crate) async fn data(&self, digest: &Digest, bytes: &[u8]) {
        self.put(&data_key(digest), bytes.to_vec()).await;
    }

    pub(crate) async fn manifest(&self, repository: &str, manifest: &Value) -> Digest {
        self.manifest_bytes(repository, manifest.to_string().as_bytes()).await
    }

    pub(crate) async fn manifest_bytes(&self, repository: &str, bytes: &[u8]) -> Digest {
        let digest = sha256(bytes);
        self.data(&digest, bytes).await;
        let link = format!("repositories/{repository}/_manifests/revisions/{}/link", path(&digest));
        self.put(&link, digest.to_string()).await;
        digest
    }

    pub(crate) async fn tag(&self, repository: &str, tag: &str, digest: &Digest) {
        let tag = format!("repositories/{repository}/_manifests/tags/{tag}");
        self.put(&format!("{tag}/index/{}/link", path(digest)), digest.to_string()).await;
        self.put(&format!("{tag}/current/link"), digest.to_string()).await;
    }

    pub(crate) async fn len(&self) -> usize {
        self.bucket.list("docker").count().await
    }
}

pub(crate) fn path(digest: &Digest) -> String {
    digest.to_string().replace(':', "/")
}

pub(crate) fn data_key(digest: &Digest) -> String {
    let text = digest.to_string();
    let (algorithm, hex) = text.split_once(':').unwrap();
    format!("blobs/{algorithm}/{}/{hex}/data", &hex[..2])
}

pub(crate) fn part(digest: &Digest) -> Value {
    json!({"mediaType": "application/x", "digest": digest.to_string(), "size": 1})
}

pub(crate) fn image(layers: &[Digest]) -> Value {
    let parts: Vec<Value> = layers.iter().map(part).collect();
    json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": parts[0], "layers": parts})
}

/// Everything that [`Source::filled`] had is served.
pub(crate) async fn assert_has(app: &Repository, filled: &Filled) {
    for (tag, digest) in [("v1", &filled.image), ("all", &filled.index)] {
        let found = app.manifest(&Reference::Tag(tag.parse().unwrap())).await.unwrap().unwrap();
        assert_eq!(found.digest, *digest);
    }
    for layer in &filled.layers {
        let bytes = app.open_blob(layer).await.unwrap().unwrap().bytes().await.unwrap();
        assert_eq!(Digest::of(Algorithm::Sha256, &bytes), *layer);
    }
    let referrers = app.referrers(&filled.image, Some("example/signature"), None, 10).await.unwrap().items;
    assert_eq!(referrers.iter().map(|found| &found.digest).collect::<Vec<_>>(), [&filled.signature]);
}
