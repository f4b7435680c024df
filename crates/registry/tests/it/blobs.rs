//! Pulling blobs: the whole, parts, conditionally; and removing them.

use crate::client::{data, sha256, sha512};
use crate::support::Node;

#[tokio::test]
async fn a_blob_comes_back_as_it_was_pushed() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    for bytes in [data(0), data(1), data(100_000), data(5 << 20)] {
        let digest = client.push_blob("library/app", &bytes).await;
        let path = format!("/v2/library/app/blobs/{digest}");
        let len = bytes.len().to_string();
        let head = client.head(&path).await.assert_status(200);
        let get = client.get(&path).await.assert_status(200);
        for answer in [&head, &get] {
            assert_eq!(answer.header("content-length"), Some(len.as_str()));
            assert_eq!(answer.header("docker-content-digest"), Some(digest.to_string().as_str()));
            assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
            assert_eq!(answer.header("accept-ranges"), Some("bytes"));
            assert_eq!(answer.header("docker-distribution-api-version"), Some("registry/2.0"));
        }
        assert!(get.complete && get.body == bytes);
        // As some clients write it.
        client.get(&path.replace(':', "%3A")).await.assert_status(200);
    }
}

#[tokio::test]
async fn what_a_repository_does_not_have_is_unknown() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    let absent = sha256(b"absent");
    client.get(&format!("/v2/new/blobs/{absent}")).await.assert_error(404, "NAME_UNKNOWN");
    client.push_blob("new", b"something").await;
    client.get(&format!("/v2/new/blobs/{absent}")).await.assert_error(404, "BLOB_UNKNOWN");
    client.head(&format!("/v2/new/blobs/{absent}")).await.assert_status(404);
    client.delete(&format!("/v2/new/blobs/{absent}")).await.assert_error(404, "BLOB_UNKNOWN");
}

/// Knowing a digest gives nothing. FORMAT-R3
#[tokio::test]
async fn a_blob_of_another_repository_is_not_there() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    let digest = client.push_blob("theirs", b"a secret").await;
    client.push_blob("ours", b"something else").await;
    let path = format!("/v2/ours/blobs/{digest}");
    client.head(&path).await.assert_status(404);
    client.get(&path).await.assert_error(404, "BLOB_UNKNOWN");
    client.get(&format!("/v2/theirs/blobs/{digest}")).await.assert_status(200);
}

#[tokio::test]
async fn ranges_select_parts() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    let bytes = data(5 << 20);
    let size = bytes.len();
    let digest = client.push_blob("app", &bytes).await;
    let path = format!("/v2/app/blobs/{digest}");
    for (range, expected) in [
        ("bytes=0-0".to_owned(), 0..1),
        ("bytes=100-99999".to_owned(), 100..100_000),
        // Over the border between two extents.
        (format!("bytes={}-{}", (4 << 20) - 5, (4 << 20) + 5), (4 << 20) - 5..(4 << 20) + 6),
        (format!("bytes={}-", size - 3), size - 3..size),
        ("bytes=-7".to_owned(), size - 7..size),
        (format!("bytes=10-{}", u64::MAX), 10..size),
        (format!("bytes=-{}", u64::MAX), 0..size),
    ] {
        let answer = client.send("GET", &path, &[("Range", &range)], b"").await.assert_status(206);
        assert!(answer.complete && answer.body == bytes[expected.clone()], "{range}");
        let selected = format!("bytes {}-{}/{size}", expected.start, expected.end - 1);
        assert_eq!(answer.header("content-range"), Some(selected.as_str()));
        assert_eq!(answer.header("content-length"), Some(expected.len().to_string().as_str()));
    }
    let beyond = format!("bytes={size}-{}", size + 5);
    for range in [format!("bytes={size}-"), "bytes=-0".to_owned(), beyond, "bytes=5-2".to_owned()] {
        let answer = client.send("GET", &path, &[("Range", &range)], b"").await;
        answer.assert_error(416, "SIZE_INVALID");
        assert_eq!(answer.header("content-range"), Some(format!("bytes */{size}").as_str()));
    }
    // What is no single range of bytes is not looked at.
    for range in ["bytes=0-1,3-4", "items=0-1", "bytes=x"] {
        let answer = client.send("GET", &path, &[("Range", range)], b"").await.assert_status(200);
        assert_eq!(answer.body.len(), size, "{range}");
    }
    // RFC 9110 §14.2: of HEAD a range means nothing.
    let head = client.send("HEAD", &path, &[("Range", "bytes=0-0")], b"").await.assert_status(200);
    assert_eq!(head.header("content-length"), Some(size.to_string().as_str()));
}

#[tokio::test]
async fn conditions_are_kept() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    let digest = client.push_blob("app", b"content").await;
    let path = format!("/v2/app/blobs/{digest}");
    let tag = format!("\"{digest}\"");
    let other = format!("\"{}\"", sha256(b"other"));
    let send = async |method, headers: &[(&str, &str)]| client.send(method, &path, headers, b"").await;
    assert_eq!(client.get(&path).await.header("etag"), Some(tag.as_str()));
    for method in ["GET", "HEAD"] {
        for (header, value, status) in [
            ("If-None-Match", tag.as_str(), 304),
            ("If-None-Match", "*", 304),
            ("If-None-Match", &format!("W/{tag}"), 304),
            ("If-None-Match", &format!("{other}, {tag}"), 304),
            ("If-None-Match", other.as_str(), 200),
            ("If-Match", tag.as_str(), 200),
            ("If-Match", "*", 200),
            ("If-Match", other.as_str(), 412),
            ("If-Match", &format!("W/{tag}"), 412),
        ] {
            let answer = send(method, &[(header, value)]).await.assert_status(status);
            if status == 304 {
                assert!(answer.body.is_empty() && answer.header("etag") == Some(tag.as_str()));
            }
        }
    }
    for (if_range, status) in
        [(tag.as_str(), 206), (other.as_str(), 200), ("Wed, 21 Oct 2015 07:28:00 GMT", 200)]
    {
        send("GET", &[("Range", "bytes=0-0"), ("If-Range", if_range)]).await.assert_status(status);
    }
}

#[tokio::test]
async fn a_deleted_blob_is_gone_from_its_repository_only() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    let digest = client.push_blob("a", b"shared").await;
    client.push_blob("b", b"shared").await;
    client.delete(&format!("/v2/a/blobs/{digest}")).await.assert_status(202);
    client.get(&format!("/v2/a/blobs/{digest}")).await.assert_error(404, "BLOB_UNKNOWN");
    assert_eq!(client.get(&format!("/v2/b/blobs/{digest}")).await.body, b"shared");
    client.push_blob("a", b"shared").await;
    client.get(&format!("/v2/a/blobs/{digest}")).await.assert_status(200);
}

#[tokio::test]
async fn sha512_names_blobs_as_well() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    let bytes = data(100_000);
    let digest = sha512(&bytes);
    let path = format!("/v2/app/blobs/uploads/?digest={digest}");
    let answer = client.send("POST", &path, &[], &bytes).await.assert_status(201);
    assert_eq!(answer.location(), format!("/v2/app/blobs/{digest}"));
    assert_eq!(client.get(answer.location()).await.body, bytes);
}
