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
    // What is no range of bytes is not looked at.
    for range in ["items=0-1", "bytes=x", "bytes=0-1,x"] {
        let answer = client.send("GET", &path, &[("Range", range)], b"").await.assert_status(200);
        assert_eq!(answer.body.len(), size, "{range}");
    }
    // RFC 9110 §14.2: of HEAD a range means nothing.
    let head = client.send("HEAD", &path, &[("Range", "bytes=0-0")], b"").await.assert_status(200);
    assert_eq!(head.header("content-length"), Some(size.to_string().as_str()));
}

#[tokio::test]
async fn several_ranges_are_several_parts() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    let bytes = data(5 << 20);
    let size = bytes.len();
    for digest in [sha256(&bytes), sha512(&bytes)] {
        let post = format!("/v2/app/blobs/uploads/?digest={digest}");
        client.send("POST", &post, &[], &bytes).await.assert_status(201);
        let path = format!("/v2/app/blobs/{digest}");
        let get = async |range: &str| client.send("GET", &path, &[("Range", range)], b"").await;
        // Over the border between two extents, next to each other, beyond the end.
        let border = 4 << 20;
        let range = format!("bytes=0-0,10-19,20-29, {}-{} ,{size}-,-7", border - 5, border + 5);
        let expected = [0..1, 10..20, 20..30, border - 5..border + 6, size - 7..size];
        let answer = get(&range).await.assert_status(206);
        let content_type = answer.header("content-type").unwrap();
        let boundary = content_type.strip_prefix("multipart/byteranges; boundary=").unwrap();
        assert!(boundary.len() <= 70, "{boundary}");
        assert_eq!(answer.header("content-length"), Some(answer.body.len().to_string().as_str()));
        assert!(answer.complete && answer.header("content-range").is_none());
        assert_eq!(answer.header("docker-content-digest"), Some(digest.to_string().as_str()));
        let mut wanted = Vec::new();
        for part in expected {
            wanted.extend_from_slice(
                format!(
                    "\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes {}-{}/{size}\r\n\r\n",
                    part.start,
                    part.end - 1
                )
                .as_bytes(),
            );
            wanted.extend_from_slice(&bytes[part]);
        }
        wanted.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        assert!(answer.body == wanted);
        // One that is left is answered as one.
        let one = get(&format!("bytes={size}-,3-4")).await.assert_status(206);
        assert_eq!(one.header("content-range"), Some(format!("bytes 3-4/{size}").as_str()));
        assert_eq!(one.body, bytes[3..5]);
        get(&format!("bytes={size}-,-0")).await.assert_error(416, "SIZE_INVALID");
        // Nobody makes an answer longer by asking for the same bytes again and again.
        for range in ["bytes=0-,0-,0-", "bytes=5-6,0-1", "bytes=0-4,4-8"] {
            let answer = get(range).await.assert_status(200);
            assert_eq!(answer.body.len(), size, "{range}");
        }
    }
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
