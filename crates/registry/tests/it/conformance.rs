//! What the specification's own suites ask, request by request, and the answers that they accept.
//!
//! They are programs in Go (`cargo xtask conformance` runs them, where there is Go and a checkout); here are their requests in
//! the order in which they come, so that states follow one another as theirs do. Of answers that they accept, ours is asked
//! for; the other files have the corners that the suites don't visit. Whatever is refused, here and there, is refused with a
//! code of the specification.
//!
//! | suite | item | test |
//! |---|---|---|
//! | v1.1 `01_pull` | blobs and manifests that are there or not, by HEAD and GET, by tag and digest; error bodies; deleting manifests before their blobs, and after | `v1_1::pull` |
//! | v1.1 `02_push` | streamed, monolithic (POST, POST + PUT), chunked, out of order, status; mounts with and without `from`; manifests with and without layers, with fields that nobody knows | `v1_1::push` |
//! | v1.1 `03_discovery` | tags with `n` and `last`; referrers of nothing, of what is there, before and after it came, by type, of what is missing; their annotations and types | `v1_1::discovery` |
//! | v1.1 `04_management` | deleting tags, manifests, blobs; what is left of them | `v1_1::management` |
//! | draft `ping`, `empty` | version, tags and referrers of a repository that was never pushed to | `draft::what_was_never_pushed_to_is_empty` |
//! | draft `… blobs` | each way to push × sha256, sha512; in one chunk, in three; cancelled, mounted, not mounted; out of order with recovery by GET; ranges; empty, `{}`; wrong digests | `draft_blobs::every_way_to_push` |
//! | draft, data | every kind of its data pushed by digest and tag, or several tags as parameters; listed, from the start and after each tag; headed, pulled, referred to, deleted with its blobs | `draft::every_kind_of_data` |
//! | draft `missing-manifest`, `invalid-digest-format`, `bad-digest-image` | | `draft::manifests_that_are_missing_or_wrong` |
//!
//! Not here: logins (passwords and tokens are tested in `access` and `tokens`), `OCI-Chunk-Min-Length` (we have no minimum, and
//! so no header), v1.1's `OCI_AUTOMATIC_CROSSMOUNT=0` (we do mount a blob without being told from where). The draft's `sparse`
//! data, off unless a registry asks for it, is manifests without their blobs: they are refused here, see
//! `manifests::what_is_not_there_is_not_named`. Its data that the registry has already is the others', pulled again.

mod draft;
mod draft_blobs;
mod v1_1;

use bulla::{Algorithm, Digest};
use serde_json::{Value, json};

use crate::client::{Answer, Client, OCI_INDEX, OCI_MANIFEST, data};

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const EXAMPLE: [&str; 2] = ["application/vnd.example.one", "application/vnd.example.two"];
const OCTETS: (&str, &str) = ("Content-Type", "application/octet-stream");

/// `len` bytes that no other number gives.
fn blob(len: usize, number: usize) -> Vec<u8> {
    let mut bytes = data(len);
    bytes.iter_mut().zip(number.to_be_bytes()).for_each(|(byte, other)| *byte ^= other);
    bytes
}

fn descriptor(kind: &str, content: &[u8], algorithm: Algorithm) -> Value {
    json!({"mediaType": kind, "digest": Digest::of(algorithm, content).to_string(), "size": content.len()})
}

async fn assert_blob(client: &Client, name: &str, digest: &Digest, content: &[u8]) {
    let path = format!("/v2/{name}/blobs/{digest}");
    for answer in [client.head(&path).await.assert_status(200), client.get(&path).await.assert_status(200)] {
        assert_eq!(answer.header("docker-content-digest"), Some(digest.to_string().as_str()));
        assert_eq!(answer.header("content-length"), Some(content.len().to_string().as_str()));
        assert!(answer.body == content || answer.body.is_empty());
    }
    assert!(client.get(&path).await.body == content);
}

/// A 201 leads to the blob.
async fn assert_created(client: &Client, answer: Answer, digest: &Digest, content: &[u8]) {
    let answer = answer.assert_status(201);
    assert_eq!(answer.header("docker-content-digest"), Some(digest.to_string().as_str()));
    assert!(client.get(answer.location()).await.assert_status(200).body == content);
}

async fn assert_manifest(client: &Client, name: &str, reference: &str, kind: &str, content: &[u8]) {
    let path = format!("/v2/{name}/manifests/{reference}");
    let accept = [("Accept", OCI_INDEX), ("Accept", OCI_MANIFEST)];
    for method in ["HEAD", "GET"] {
        let answer = client.send(method, &path, &accept, b"").await.assert_status(200);
        assert_eq!(answer.header("content-type"), Some(kind));
        assert_eq!(answer.header("content-length"), Some(content.len().to_string().as_str()));
        assert!(answer.header("docker-content-digest").is_some());
        assert!(answer.body == if method == "GET" { content } else { b"" });
    }
}
