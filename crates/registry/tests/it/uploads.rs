//! Pushing blobs, in every way that the specification has.

use crate::client::{Client, data, ending, sha256, sha512};
use crate::support::Node;

const MIB: usize = 1 << 20;

#[tokio::test]
async fn in_one_request() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    let bytes = data(5 * MIB);
    let digest = sha256(&bytes);
    let path = format!("/v2/app/blobs/uploads/?digest={digest}");
    let answer = client.send("POST", &path, &[("Content-Type", "application/octet-stream")], &bytes).await;
    let answer = answer.assert_status(201);
    assert_eq!(answer.location(), format!("/v2/app/blobs/{digest}"));
    assert_eq!(answer.header("docker-content-digest"), Some(digest.to_string().as_str()));
    assert_eq!(client.get(answer.location()).await.body, bytes);

    let wrong = format!("/v2/app/blobs/uploads/?digest={}", sha256(b"other"));
    client.send("POST", &wrong, &[], &bytes).await.assert_error(400, "DIGEST_INVALID");
    for digest in ["sha256:1234", "nonsense", "md5:d41d8cd98f00b204e9800998ecf8427e"] {
        let path = format!("/v2/app/blobs/uploads/?digest={digest}");
        client.send("POST", &path, &[], b"x").await.assert_error(400, "DIGEST_INVALID");
    }
}

#[tokio::test]
async fn in_two_requests() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    for (len, chunked) in [(0, false), (1, false), (70_000, false), (9 * MIB, false), (9 * MIB, true)] {
        let bytes = data(len + usize::from(chunked));
        let digest = sha256(&bytes);
        let begun = client.send("POST", "/v2/app/blobs/uploads/", &[], b"").await.assert_status(202);
        assert_eq!(begun.header("range"), Some("0-0"));
        assert!(begun.location().contains(begun.header("docker-upload-uuid").unwrap()));
        let headers: &[(&str, &str)] = if chunked { &[("Transfer-Encoding", "chunked")] } else { &[] };
        let put = client.send("PUT", &ending(begun.location(), &digest), headers, &bytes).await;
        let put = put.assert_status(201);
        assert_eq!(client.get(put.location()).await.body, bytes, "{len} bytes");
    }
}

#[tokio::test]
async fn streamed() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    let bytes = data(9 * MIB + 5);
    let digest = sha256(&bytes);
    let location = client.begin("app").await;
    let patch = client.send("PATCH", &location, &[("Transfer-Encoding", "chunked")], &bytes).await;
    let patch = patch.assert_status(202);
    assert_eq!(patch.header("range"), Some(format!("0-{}", bytes.len() - 1).as_str()));
    let put = client.send("PUT", &ending(patch.location(), &digest), &[], b"").await;
    assert_eq!(client.get(put.assert_status(201).location()).await.body, bytes);
}

#[tokio::test]
async fn in_chunks_the_last_in_a_patch_or_in_the_put() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    for (len, in_put) in [(300, false), (301, true), (3 * MIB, false), (3 * MIB + 1, true)] {
        let bytes = data(len);
        let mut location = client.begin("app").await;
        let mut at = 0;
        let pieces: Vec<&[u8]> = bytes.chunks(len / 3 + 1).collect();
        let (last, firsts) = pieces.split_last().unwrap();
        for piece in if in_put { firsts } else { &pieces } {
            let patch = client.patch(&location, at, piece).await.assert_status(202);
            at += piece.len();
            assert_eq!(patch.header("range"), Some(format!("0-{}", at - 1).as_str()));
            location = patch.location().to_owned();
            let state = client.get(&location).await.assert_status(204);
            assert_eq!(state.header("range"), Some(format!("0-{}", at - 1).as_str()));
        }
        let path = ending(&location, sha256(&bytes));
        let put = if in_put {
            let range = format!("{at}-{}", len - 1);
            client.send("PUT", &path, &[("Content-Range", &range)], last).await
        } else {
            client.send("PUT", &path, &[], b"").await
        };
        assert_eq!(client.get(put.assert_status(201).location()).await.body, bytes);
    }
}

#[tokio::test]
async fn chunks_out_of_order_say_where_to_go_on() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    let bytes = data(300);
    let location = client.begin("app").await;
    client.patch(&location, 100, &bytes[100..200]).await.assert_error(416, "BLOB_UPLOAD_INVALID");
    let patch = client.patch(&location, 0, &bytes[..100]).await.assert_status(202);
    let location = patch.location().to_owned();
    for at in [0, 50, 99, 101, 200] {
        let answer = client.patch(&location, at, &bytes[at..at + 100]).await;
        answer.assert_error(416, "BLOB_UPLOAD_INVALID");
        assert_eq!(answer.header("range"), Some("0-99"));
        assert_eq!(answer.location(), location);
    }
    let path = ending(&location, sha256(&bytes));
    let put = client.send("PUT", &path, &[("Content-Range", "200-299")], &bytes[200..]).await;
    put.assert_error(416, "BLOB_UPLOAD_INVALID");
    assert_eq!(client.get(&location).await.assert_status(204).header("range"), Some("0-99"));
    // Two places, of which a proxy may have seen the other.
    let two = [("Content-Range", "100-199"), ("Content-Range", "200-299")];
    client.send("PATCH", &location, &two, &bytes[100..200]).await.assert_error(400, "BLOB_UPLOAD_INVALID");
    client.patch(&location, 100, &bytes[100..]).await.assert_status(202);
    client.send("PUT", &path, &[], b"").await.assert_status(201);
}

#[tokio::test]
async fn a_chunk_is_as_long_as_it_says() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    let location = client.begin("app").await;
    let send = async |range: &str, more: &[(&str, &str)], body: &[u8]| {
        client.send("PATCH", &location, &[&[("Content-Range", range)], more].concat(), body).await
    };
    send("0-9", &[], b"five!").await.assert_error(400, "SIZE_INVALID");
    let chunked = [("Transfer-Encoding", "chunked")];
    send("0-9", &chunked, b"twelve bytes").await.assert_error(400, "SIZE_INVALID");
    let at = client.get(&location).await.header("range").unwrap().to_owned();
    assert_eq!(at, "0-0", "nothing of it was kept");
    send("0-9", &chunked, b"five!").await.assert_error(400, "SIZE_INVALID");
    for range in ["0-", "x", "9-0", "-9", "bytes 0"] {
        send(range, &[], b"0123456789").await.assert_error(400, "BLOB_UPLOAD_INVALID");
    }
}

#[tokio::test]
async fn a_wrong_digest_leaves_the_upload_as_it_is() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    let location = client.begin("app").await;
    client.patch(&location, 0, b"content").await.assert_status(202);
    let put = async |digest: &str| client.send("PUT", &ending(&location, digest), &[], b"").await;
    put(&sha256(b"other").to_string()).await.assert_error(400, "DIGEST_INVALID");
    put("sha256:123").await.assert_error(400, "DIGEST_INVALID");
    client.send("PUT", &location, &[], b"").await.assert_error(400, "DIGEST_INVALID");
    put(&sha256(b"content").to_string()).await.assert_status(201);
}

#[tokio::test]
async fn sha512_announced_or_not() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    let bytes = data(5 * MIB);
    let digest = sha512(&bytes);
    for query in ["?digest-algorithm=sha512", "?digest-algorithm=sha256", ""] {
        let path = format!("/v2/app/blobs/uploads/{query}");
        let begun = client.send("POST", &path, &[], b"").await.assert_status(202);
        client.patch(begun.location(), 0, &bytes).await.assert_status(202);
        let put = client.send("PUT", &ending(begun.location(), &digest), &[], b"").await;
        assert_eq!(client.get(put.assert_status(201).location()).await.body, bytes, "{query}");
    }
    let path = "/v2/app/blobs/uploads/?digest-algorithm=md5";
    client.send("POST", path, &[], b"").await.assert_error(400, "DIGEST_INVALID");
}

#[tokio::test]
async fn an_upload_that_ended_is_gone() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    for cancelled in [true, false] {
        let begun = client.begin("app").await;
        let location = client.patch(&begun, 0, b"some").await.assert_status(202).location().to_owned();
        assert_ne!(location, begun, "nothing is anywhere before something comes");
        if cancelled {
            client.delete(&location).await.assert_status(204);
        } else {
            let put = client.send("PUT", &ending(&location, sha256(b"some")), &[], b"").await;
            put.assert_status(201);
        }
        client.get(&location).await.assert_error(404, "BLOB_UPLOAD_UNKNOWN");
        client.delete(&location).await.assert_error(404, "BLOB_UPLOAD_UNKNOWN");
        client.patch(&location, 4, b"more").await.assert_error(404, "BLOB_UPLOAD_UNKNOWN");
        let put = client.send("PUT", &ending(&location, sha256(b"some")), &[], b"").await;
        put.assert_error(404, "BLOB_UPLOAD_UNKNOWN");
    }
    // Nor is there one that was given up, or done, under its first name.
    let begun = client.begin("app").await;
    client.delete(&begun).await.assert_status(204);
    client.get(&begun).await.assert_error(404, "BLOB_UPLOAD_UNKNOWN");
    client.patch(&begun, 0, b"some").await.assert_error(404, "BLOB_UPLOAD_UNKNOWN");
    let begun = client.begin("app").await;
    client.send("PUT", &ending(&begun, sha256(b"some")), &[], b"some").await.assert_status(201);
    client.get(&begun).await.assert_error(404, "BLOB_UPLOAD_UNKNOWN");
    client.get("/v2/app/blobs/uploads/nonsense").await.assert_error(404, "BLOB_UPLOAD_UNKNOWN");
    client.get("/v2/app/blobs/uploads/nonsense-sha256").await.assert_error(404, "BLOB_UPLOAD_UNKNOWN");
    let location = client.begin("app").await.replace("sha256", "md5");
    client.get(&location).await.assert_error(404, "BLOB_UPLOAD_UNKNOWN");
}

/// A client that keeps to the location of its POST is understood as well.
#[tokio::test]
async fn the_first_location_leads_to_the_upload_to_the_end() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    let bytes = data(3 * MIB);
    let location = client.begin("app").await;
    for (i, piece) in bytes.chunks(MIB).enumerate() {
        client.patch(&location, i * MIB, piece).await.assert_status(202);
        let range = format!("0-{}", (i + 1) * MIB - 1);
        assert_eq!(client.get(&location).await.assert_status(204).header("range"), Some(range.as_str()));
    }
    client.patch(&location, 0, &bytes[..MIB]).await.assert_error(416, "BLOB_UPLOAD_INVALID");
    let put = client.send("PUT", &ending(&location, sha256(&bytes)), &[], b"").await.assert_status(201);
    assert_eq!(client.get(put.location()).await.body, bytes);
}

/// An upload's name alone opens nothing. FORMAT-R4
#[tokio::test]
async fn an_upload_belongs_to_its_repository() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    let begun = client.begin("theirs").await;
    let location = client.patch(&begun, 0, b"secret").await.assert_status(202).location().to_owned();
    let ours = location.replace("/theirs/", "/ours/");
    client.get(&ours).await.assert_error(404, "BLOB_UPLOAD_UNKNOWN");
    client.delete(&ours).await.assert_error(404, "BLOB_UPLOAD_UNKNOWN");
    let put = client.send("PUT", &ending(&ours, sha256(b"secret")), &[], b"").await;
    put.assert_error(404, "BLOB_UPLOAD_UNKNOWN");
    let ours = begun.replace("/theirs/", "/ours/");
    client.patch(&ours, 0, b"more").await.assert_error(404, "BLOB_UPLOAD_UNKNOWN");
    let state = client.get(&location).await.assert_status(204);
    assert_eq!(state.header("range"), Some("0-5"));
}

#[tokio::test]
async fn what_came_before_the_client_went_away_is_kept() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    let bytes = data(3 * MIB);
    let location = client.begin("app").await;
    client.break_off("PATCH", &location, bytes.len(), &bytes[..2 * MIB]).await;
    // The server goes on in its own time.
    let at = loop {
        let range = client.get(&location).await.assert_status(204).header("range").unwrap().to_owned();
        match range.strip_prefix("0-").unwrap().parse::<usize>().unwrap() {
            0 => tokio::task::yield_now().await,
            last => break last + 1,
        }
    };
    assert_eq!(at, 2 * MIB);
    client.patch(&location, at, &bytes[at..]).await.assert_status(202);
    let put = client.send("PUT", &ending(&location, sha256(&bytes)), &[], b"").await;
    assert_eq!(client.get(put.assert_status(201).location()).await.body, bytes);
}

#[tokio::test]
async fn pushing_again_what_is_there_is_no_error() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    let bytes = data(100_000);
    let first = client.push_blob("app", &bytes).await;
    assert_eq!(client.push_blob("app", &bytes).await, first);
    assert_eq!(client.push_blob("other", &bytes).await, first);
}

impl Client {
    /// A chunk that says where it goes.
    async fn patch(&self, location: &str, at: usize, piece: &[u8]) -> crate::client::Answer {
        let range = format!("{at}-{}", at + piece.len() - 1);
        self.send("PATCH", location, &[("Content-Range", &range)], piece).await
    }
}
