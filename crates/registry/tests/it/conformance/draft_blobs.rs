//! The draft's suite: blobs, by each way to push them and each algorithm.

use bulla::{Algorithm, Digest};

use super::{OCTETS, assert_blob, assert_created, blob};
use crate::client::{Answer, Client, ending};
use crate::support::Node;

/// In three chunks, or one if it is short, as the suite cuts them; each may be preceded by one that is out of order.
async fn chunked(
    client: &Client,
    content: &[u8],
    digest: &Digest,
    last_in_put: bool,
    out_of_order: bool,
) -> Answer {
    let mut location = client.begin("conformance/repo1").await;
    let pieces: Vec<&[u8]> = content.chunks((content.len() / 3 + 1).max(1024)).collect();
    let len = pieces[0].len();
    for (i, piece) in pieces.iter().enumerate() {
        let at = i * len;
        if out_of_order {
            let wrong = if at + len < content.len() { at + len } else { 0 };
            let until = content.len().min(wrong + len);
            let is_put = last_in_put && until == content.len();
            let to = if is_put { ending(&location, digest) } else { location.clone() };
            let range = format!("{wrong}-{}", until - 1);
            let method = if is_put { "PUT" } else { "PATCH" };
            let answer =
                client.send(method, &to, &[OCTETS, ("Content-Range", &range)], &content[wrong..until]).await;
            answer.assert_error(416, "BLOB_UPLOAD_INVALID");
            let state = client.get(&location).await.assert_status(204);
            let reached =
                state.header("range").unwrap().strip_prefix("0-").unwrap().parse::<usize>().unwrap();
            assert!(at == 0 || reached == at - 1, "{reached}");
            location = state.location().to_owned();
        }
        let range = format!("{at}-{}", at + piece.len() - 1);
        let headers = [OCTETS, ("Content-Range", range.as_str())];
        if last_in_put && i == pieces.len() - 1 {
            return client.send("PUT", &ending(&location, digest), &headers, piece).await;
        }
        let answer = client.send("PATCH", &location, &headers, piece).await.assert_status(202);
        location = answer.location().to_owned();
    }
    client.send("PUT", &ending(&location, digest), &[OCTETS], b"").await
}

#[tokio::test]
async fn every_way_to_push() {
    let (_world, node) = Node::alone().await;
    let client = node.client;
    let (repo, other) = ("conformance/repo1", "conformance/repo2");
    let uploads = "/v2/conformance/repo1/blobs/uploads/";
    let ways = [
        "post only",
        "post+put",
        "stream",
        "single chunk",
        "chunked",
        "last in put",
        "out of order",
        "out of order, last in put",
    ];
    // By the name of the way.
    let push = async |way: &str, content: &[u8], digest: &Digest| match way {
        "post only" => client.send("POST", &format!("{uploads}?digest={digest}"), &[OCTETS], content).await,
        "post+put" => {
            let location = client.begin(repo).await;
            client.send("PUT", &ending(&location, digest), &[OCTETS], content).await
        }
        "stream" => {
            let location = client.begin(repo).await;
            let headers = [OCTETS, ("Transfer-Encoding", "chunked")];
            let patch = client.send("PATCH", &location, &headers, content).await.assert_status(202);
            client.send("PUT", &ending(patch.location(), digest), &[OCTETS], b"").await
        }
        way => chunked(&client, content, digest, way.ends_with("put"), way.starts_with("out")).await,
    };
    let mut number = 0;
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let mut next = |len| {
            number += 1;
            let content = blob(len, number);
            (Digest::of(algorithm, &content), content)
        };
        for way in ways {
            let len = if way == "single chunk" { 512 } else { 3 * 1024 - 5 };
            let (digest, content) = next(len);
            let path = format!("/v2/{repo}/blobs/{digest}");
            client.get(&path).await.assert_status(404);
            assert_created(&client, push(way, &content, &digest).await, &digest, &content).await;
            assert_blob(&client, repo, &digest, &content).await;
            client.delete(&path).await.assert_status(202);
            client.head(&path).await.assert_status(404);
            // And what is not what it claims to be.
            let (digest, content) = next(len);
            let wrong = [&content[..], b"oh no"].concat();
            push(way, &wrong, &digest).await.assert_error(400, "DIGEST_INVALID");
            client.head(&format!("/v2/{repo}/blobs/{digest}")).await.assert_status(404);
        }
        // Cancelled.
        let location = client.begin(repo).await;
        client.delete(&location).await.assert_status(204);
        // Mounted, and not.
        for from in [format!("&from={other}"), String::new()] {
            let (digest, content) = next(512);
            let mount = format!("{uploads}?mount={digest}{from}");
            let begun = client.send("POST", &mount, &[], b"").await.assert_status(202);
            client.delete(begun.location()).await.assert_status(204);
            let path = format!("/v2/{other}/blobs/uploads/?digest={digest}");
            client.send("POST", &path, &[OCTETS], &content).await.assert_status(201);
            assert_created(&client, client.send("POST", &mount, &[], b"").await, &digest, &content).await;
            assert_blob(&client, repo, &digest, &content).await;
            for name in [repo, other] {
                client.delete(&format!("/v2/{name}/blobs/{digest}")).await.assert_status(202);
                client.head(&format!("/v2/{name}/blobs/{digest}")).await.assert_status(404);
            }
        }
        // Well-known content.
        for content in [b"".as_slice(), b"{}"] {
            let digest = Digest::of(algorithm, content);
            for way in ["post only", "post+put", "stream"] {
                assert_created(&client, push(way, content, &digest).await, &digest, content).await;
                assert_blob(&client, repo, &digest, content).await;
            }
            client.delete(&format!("/v2/{repo}/blobs/{digest}")).await.assert_status(202);
        }
        // Ranges.
        let (digest, content) = next(2048);
        push("post only", &content, &digest).await.assert_status(201);
        let get = async |range: &str| {
            client.send("GET", &format!("/v2/{repo}/blobs/{digest}"), &[("Range", range)], b"").await
        };
        for (range, expected) in [
            ("bytes=500-1499", 500..1500),
            ("bytes=500-", 500..2048),
            ("bytes=-500", 1548..2048),
            ("bytes=2000-5000", 2000..2048),
        ] {
            let answer = get(range).await.assert_status(206);
            let selected = format!("bytes {}-{}/2048", expected.start, expected.end - 1);
            assert_eq!(answer.header("content-range"), Some(selected.as_str()));
            assert_eq!(answer.header("content-length"), Some(expected.len().to_string().as_str()));
            assert!(answer.body == content[expected]);
        }
        for range in ["bytes=500-0", "bytes=5000-10000"] {
            get(range).await.assert_error(416, "SIZE_INVALID");
        }
    }
}
