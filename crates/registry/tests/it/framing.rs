//! Requests as bytes: what is framed so that two readers could differ is refused, and nothing behind it is taken for a request.

use std::sync::Arc;
use std::time::Duration;

use bulla_registry::access::Open;
use bulla_registry::server::ServerOptions;
use bulla_registry::{Registry, RegistryOptions, http};
use futures::SinkExt;
use reqwest::Version;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Client, OCI_MANIFEST, sha256};
use crate::served::{Served, World, certificate, trusting};

/// What would be a second request, were the first one shorter than it is.
const SMUGGLED: &str = "GET /v2/_catalog?smuggled HTTP/1.1\r\nHost: registry\r\nConnection: close\r\n\r\n";
const LAST: &str = "GET /v2/ HTTP/1.1\r\nHost: registry\r\nConnection: close\r\n\r\n";

async fn served() -> (World, Served) {
    served_with(ServerOptions::default()).await
}

async fn served_with(options: ServerOptions) -> (World, Served) {
    let world = World::new().await;
    let served = Served::start(&Open, options).await;
    let registry = Registry::new(world.store.clone(), RegistryOptions::default());
    served.service.open(world.store.clone(), http::router(registry, Arc::new(Open)));
    (world, served)
}

/// The statuses of all answers to what is sent on one connection, until the server ends it.
async fn exchange(served: &Served, request: &str) -> Vec<u16> {
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let mut answer = Vec::new();
    let exchanging = async {
        let (mut read, mut write) = stream.split();
        let _ = tokio::join!(write.write_all(request.as_bytes()), read.read_to_end(&mut answer));
    };
    tokio::time::timeout(Duration::from_secs(30), exchanging).await.expect("the connection ends");
    let answer = String::from_utf8_lossy(&answer);
    let heads = answer.split("HTTP/1.").skip(1);
    heads.map(|head| head.split(' ').nth(1).unwrap().parse().unwrap()).collect()
}

/// A request that pushes `content` as the blob `content`, framed by these headers.
fn push(headers: &str, body: &str) -> String {
    let digest = sha256(b"content");
    format!("POST /v2/app/blobs/uploads/?digest={digest} HTTP/1.1\r\nHost: registry\r\n{headers}\r\n{body}")
}

#[tokio::test]
async fn bodies_that_two_readers_would_see_otherwise_are_refused() {
    let (_world, served) = served().await;
    let client = Client(served.address);
    for (headers, status) in [
        ("Content-Length: 7\r\nContent-Length: 8\r\n", 400),
        ("Content-Length: 7, 8\r\n", 400),
        ("Content-Length: +7\r\n", 400),
        ("Content-Length: -7\r\n", 400),
        ("Content-Length: 0x7\r\n", 400),
        ("Content-Length: 18446744073709551616\r\n", 400),
        ("Content-Length : 7\r\n", 400),
    ] {
        let request = push(headers, &format!("content{SMUGGLED}"));
        assert_eq!(exchange(&served, &request).await, [status], "{headers}");
    }
    for (headers, status) in [
        ("Transfer-Encoding: gzip\r\n", 400),
        ("Transfer-Encoding: chunked, identity\r\n", 400),
        ("Transfer-Encoding: xchunked\r\n", 400),
        ("Transfer-Encoding: \u{b}chunked\r\n", 400),
        ("Transfer-Encoding : chunked\r\n", 400),
        ("Transfer-Encoding: gzip, chunked\r\nConnection: close\r\n", 501),
        ("Transfer-Encoding: chunked, chunked\r\nConnection: close\r\n", 501),
        ("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n", 501),
    ] {
        let request = push(headers, &format!("7\r\ncontent\r\n0\r\n\r\n{SMUGGLED}"));
        assert_eq!(exchange(&served, &request).await, [status], "{headers}");
    }
    client.head(&format!("/v2/app/blobs/{}", sha256(b"content"))).await.assert_status(404);
    // Both: chunks count, and the connection ends with the answer (RFC 9112 §6.1).
    for headers in [
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 17\r\n",
    ] {
        let request = push(headers, &format!("7\r\ncontent\r\n0\r\n\r\n{SMUGGLED}"));
        assert_eq!(exchange(&served, &request).await, [201], "{headers}");
    }
}

#[tokio::test]
async fn chunks_that_are_none_make_no_blob_and_no_manifest() {
    let (_world, served) = served().await;
    let client = Client(served.address);
    let image = client.image("app", b"a layer").await;
    let image = String::from_utf8(image).unwrap();
    let whole = format!("{:x}\r\n{image}\r\n", image.len());
    let long = "a".repeat(100_000);
    for body in [
        "zz\r\ncontent\r\n0\r\n\r\n",
        "-7\r\ncontent\r\n0\r\n\r\n",
        "ffffffffffffffff1\r\ncontent\r\n0\r\n\r\n",
        "7\ncontent\n0\n\n",
        "7\r\ncontentXX0\r\n\r\n",
        &format!("7;{long}\r\ncontent\r\n0\r\n\r\n"),
    ] {
        let headers = [("Transfer-Encoding", "chunked")];
        let answers = exchange(&served, &push("Transfer-Encoding: chunked\r\n", body)).await;
        assert_eq!(answers, [400], "{body:.40}");
        // Behind a whole manifest as well: what is broken is not short.
        let path = "/v2/app/manifests/v1";
        let head = format!("PUT {path} HTTP/1.1\r\nHost: registry\r\nContent-Type: {OCI_MANIFEST}\r\n");
        let request = format!("{head}{}: {}\r\n\r\n{whole}{body}", headers[0].0, headers[0].1);
        let answer = client.raw(request.as_bytes(), false).await;
        answer.assert_error(400, "SIZE_INVALID");
        client.head(path).await.assert_status(404);
    }
    client.head(&format!("/v2/app/blobs/{}", sha256(b"content"))).await.assert_status(404);
}

#[tokio::test]
async fn a_body_that_nobody_reads_is_no_request() {
    let (_world, served) = served().await;
    let len = SMUGGLED.len();
    for (head, statuses) in [
        ("GET /v2/", &[200, 200][..]),
        ("HEAD /v2/", &[200, 200]),
        ("DELETE /v2/app/manifests/v1", &[404, 200]),
        ("PUT /v2/app/manifests/sha256:none", &[400, 200]),
        ("TRACE /v2/", &[405, 200]),
        ("BREW /v2/app/tags/list", &[405, 200]),
        ("POST /v2/nowhere", &[404, 200]),
    ] {
        let request =
            format!("{head} HTTP/1.1\r\nHost: registry\r\nContent-Length: {len}\r\n\r\n{SMUGGLED}{LAST}");
        assert_eq!(exchange(&served, &request).await, statuses, "{head}");
    }
    // One whose rest does not come ends the connection.
    let mut hasty = ServerOptions::default();
    hasty.limits.patience = Duration::from_secs(1);
    let (_world, served) = served_with(hasty).await;
    let head =
        "PUT /v2/app/manifests/sha256:none HTTP/1.1\r\nHost: registry\r\nContent-Length: 99999999\r\n\r\n";
    assert_eq!(exchange(&served, &format!("{head}{SMUGGLED}")).await, [400]);
}

#[tokio::test]
async fn heads_that_are_none_are_refused() {
    let (_world, served) = served().await;
    let headers = |count: usize| (0..count).fold(String::new(), |all, i| all + &format!("X-{i}: a\r\n"));
    let get = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nConnection: close\r\n{more}\r\n");
    let host = "Host: registry\r\n";
    for (what, request, status) in [
        ("a head", get("/v2/", host), 200),
        ("no host", get("/v2/", ""), 400),
        ("two hosts", get("/v2/", &format!("{host}Host: other\r\n")), 400),
        ("HTTP/1.0 needs none", "GET /v2/ HTTP/1.0\r\n\r\n".to_owned(), 200),
        ("many headers", get("/v2/", &format!("{host}{}", headers(60))), 200),
        ("too many", get("/v2/", &format!("{host}{}", headers(100))), 431),
        ("too long", get("/v2/", &format!("{host}X: {}\r\n", "a".repeat(200_000))), 431),
        ("a long path", get(&format!("/v2/{}/tags/list", "a".repeat(200_000)), host), 431),
        ("a header with NUL", get("/v2/", &format!("{host}X: a\0b\r\n")), 400),
        ("a folded header", get("/v2/", &format!("{host}X: a\r\n b\r\n")), 400),
        ("a path with NUL", get("/v2/\0", host), 400),
        ("another protocol", "GET /v2/ HTTP/3.7\r\n\r\n".to_owned(), 400),
    ] {
        assert_eq!(exchange(&served, &request).await, [status], "{what}");
    }
    // HTTP/2 comes with TLS only: neither by its preface nor by an upgrade.
    assert_eq!(exchange(&served, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await, [0; 0]);
    let upgrade =
        "Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n";
    let request = format!("GET /v2/ HTTP/1.1\r\n{host}{upgrade}\r\n");
    assert_eq!(exchange(&served, &request).await, [200]);
    for (target, status) in [("*", 404), ("registry:443", 404), ("http://other.example/v2/", 200)] {
        let method = if target.starts_with("reg") { "CONNECT" } else { "GET" };
        let request = format!("{method} {target} HTTP/1.1\r\n{host}Connection: close\r\n\r\n");
        assert_eq!(exchange(&served, &request).await, [status], "{target}");
    }
}

const MIB: usize = 1 << 20;

/// Most clients write all of a chunk before they read anything.
#[tokio::test]
async fn who_is_refused_while_he_writes_is_told_where_to_go_on() {
    let (_world, served) = served().await;
    let location = Client(served.address).begin("app").await;
    let range = format!("Content-Range: 1-{}\r\nContent-Length: {}\r\n", 3 * MIB, 3 * MIB);
    let head = format!("PATCH {location} HTTP/1.1\r\nHost: registry\r\nConnection: close\r\n{range}\r\n");
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    // The server has answered before the last of it is written.
    for _ in 0..48 {
        stream.write_all(&[7; 64 << 10]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 416 ") && answer.contains("range: 0-0"), "{answer}");
}

/// Some clients take a stream that is reset for a failure, whatever was answered.
#[tokio::test]
async fn who_is_refused_over_http_2_may_write_to_the_end() {
    let (folder, world) = (TempDir::new().unwrap(), World::new().await);
    let files = certificate(folder.path());
    let mut options = ServerOptions::default();
    options.tls = Some(files.clone());
    let served = Served::start(&Open, options).await;
    let registry = Registry::new(world.store.clone(), RegistryOptions::default());
    served.service.open(world.store.clone(), http::router(registry, Arc::new(Open)));

    let (mut send, receive) = futures::channel::mpsc::channel::<Result<Vec<u8>, std::io::Error>>(0);
    let put = trusting(&files.certificate).put(format!("{}/v2/app/manifests/sha256:none", served.url));
    let response = put.body(reqwest::Body::wrap_stream(receive)).send().await.unwrap();
    assert_eq!((response.version(), response.status().as_u16()), (Version::HTTP_2, 400));
    for _ in 0..48 {
        send.send(Ok(vec![7; 64 << 10])).await.expect("the stream is not reset");
    }
    drop(send);
    assert!(response.text().await.unwrap().contains("DIGEST_INVALID"));
}

#[tokio::test]
async fn who_writes_fast_without_end_is_cut() {
    let (_world, served) = served().await;
    let head =
        "PUT /v2/app/manifests/sha256:none HTTP/1.1\r\nHost: registry\r\nContent-Length: 99999999999\r\n\r\n";
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut sent = 0;
    while stream.write_all(&[7; 64 << 10]).await.is_ok() {
        sent += 64 << 10;
        assert!(sent < 256 * MIB, "it may write for ever");
    }
}
