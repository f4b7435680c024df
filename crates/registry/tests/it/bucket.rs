//! Everything at rest is sealed: nothing that names an image is readable in the bucket.

use std::fs;
use std::path::{Path, PathBuf};

use crate::client::data;
use crate::support::Node;

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all.extend(files(&path)) } else { all.push(path) }
    }
    all
}

#[tokio::test]
async fn what_is_damaged_is_repaired_by_pushing_it_again() {
    let (world, node) = Node::alone().await;
    node.client.push_image("app", "v1", b"a layer").await;
    let layer = crate::client::sha256(b"a layer");
    let damaged = [files(&world.bucket().join("meta")), files(&world.bucket().join("blobs"))].concat();
    for path in damaged {
        let mut content = fs::read(&path).unwrap();
        *content.last_mut().unwrap() ^= 1;
        fs::write(&path, content).unwrap();
    }
    let client = Node::start(&world).await;
    client.client.head(&format!("/v2/app/blobs/{layer}")).await.assert_status(404);
    client.client.get("/v2/app/manifests/v1").await.assert_error(500, "UNKNOWN");
    client.client.push_image("app", "v1", b"a layer").await;
    client.client.get("/v2/app/manifests/v1").await.assert_status(200);
    assert_eq!(client.client.get(&format!("/v2/app/blobs/{layer}")).await.body, b"a layer");
}

#[tokio::test]
async fn no_name_is_readable() {
    let (world, node) = Node::alone().await;
    let client = node.client;
    let layer = data(100_000);
    let digest = client.push_image("veryprivate/images", "conspicuoustag", b"conspicuous layer").await;
    let blob = client.push_blob("veryprivate/images", &layer).await;
    let left = client.begin("veryprivate/unfinished").await;
    client.send("PATCH", &left, &[], b"conspicuous chunk").await.assert_status(202);
    let id = left.rsplit('/').next().unwrap();
    let hex = |digest: &bulla::Digest| digest.to_string().split_once(':').unwrap().1.to_owned();
    let mut needles: Vec<Vec<u8>> = [
        "veryprivate",
        "unfinished",
        "conspicuous",
        "application/vnd.oci",
        "sha256:",
        "mediaType",
        "amd64",
        id,
        &hex(&digest),
        &hex(&blob),
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    needles.extend([digest.as_bytes().to_vec(), blob.as_bytes().to_vec(), layer[1000..1100].to_vec()]);
    let all = files(&world.bucket());
    assert!(all.len() > 10);
    for path in all {
        let name = path.strip_prefix(world.bucket()).unwrap().to_string_lossy().into_owned();
        let content = fs::read(&path).unwrap();
        for needle in &needles {
            let found = |haystack: &[u8]| haystack.windows(needle.len()).any(|window| window == needle);
            let shown = String::from_utf8_lossy(needle);
            assert!(!found(name.as_bytes()), "{shown} in the name {name}");
            assert!(!found(&content), "{shown} in {name}");
        }
    }
}
