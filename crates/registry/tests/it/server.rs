//! TLS, limits, health, and an end without cut transfers.

use std::fs;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::IntoResponse;
use axum::routing::any;
use bulla_registry::access::{Access, Htpasswd, Open};
use bulla_registry::server::{Limits, Server, ServerError, ServerOptions, TlsFiles, describe_metrics};
use futures::StreamExt;
use metrics_exporter_prometheus::PrometheusBuilder;
use reqwest::{StatusCode, Version};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::served::{Served, World, certificate, client, guarded, trusting, until};

/// Answers with the length of what was sent, or 408.
fn echo() -> Router {
    Router::new().fallback(any(async |request: Request| {
        match axum::body::to_bytes(request.into_body(), usize::MAX).await {
            Ok(body) => body.len().to_string().into_response(),
            Err(_) => StatusCode::REQUEST_TIMEOUT.into_response(),
        }
    }))
}

async fn status(url: &str) -> (u16, Value) {
    let response = client().get(url).send().await.unwrap();
    let status = response.status().as_u16();
    (status, serde_json::from_str(&response.text().await.unwrap()).unwrap_or_default())
}

#[tokio::test]
async fn others_need_credentials_and_tls_unless_an_operator_says_otherwise() {
    let folder = TempDir::new().unwrap();
    let users = folder.path().join("users");
    fs::write(&users, format!("alice:{}\n", bcrypt::hash("secret", 4).unwrap())).unwrap();
    let users = Htpasswd::load(users, [].into()).await.unwrap();
    let tls = certificate(folder.path());
    let bind = async |listen: &str, access: &dyn Access, tls: Option<&TlsFiles>, insecure: bool| {
        let mut options = ServerOptions::default();
        options.listen = listen.parse().unwrap();
        options.tls = tls.cloned();
        options.insecure = insecure;
        Server::bind(access, options).await
    };
    for listen in ["0.0.0.0:0", "[::]:0"] {
        let error = bind(listen, &Open, Some(&tls), false).await.unwrap_err();
        assert!(matches!(error, ServerError::Open(_)) && error.to_string().contains("--htpasswd"), "{error}");
        let error = bind(listen, &users, None, false).await.unwrap_err();
        assert!(
            matches!(error, ServerError::Plain(_)) && error.to_string().contains("--tls-cert"),
            "{error}"
        );
    }
    bind("0.0.0.0:0", &users, Some(&tls), false).await.unwrap();
    for (admin, insecure, taken) in
        [("0.0.0.0:0", false, false), ("0.0.0.0:0", true, true), ("[::1]:0", false, true)]
    {
        let mut options = ServerOptions::default();
        options.listen = "127.0.0.1:0".parse().unwrap();
        options.admin = Some(admin.parse().unwrap());
        options.insecure = insecure;
        match Server::bind(&users, options).await {
            Ok(_) => assert!(taken, "{admin}"),
            Err(error) => assert!(!taken && error.to_string().contains("--insecure"), "{error}"),
        }
    }
    bind("0.0.0.0:0", &Open, None, true).await.unwrap();
    let server = bind("127.0.0.1:0", &Open, None, false).await.unwrap();
    let error = bind(&server.address().to_string(), &Open, None, false).await.unwrap_err();
    assert!(matches!(error, ServerError::Listen(..)), "{error}");
    let wrong = TlsFiles { certificate: tls.key.clone(), key: tls.key.clone() };
    assert!(matches!(bind("127.0.0.1:0", &Open, Some(&wrong), false).await, Err(ServerError::Tls(_))));
}

/// A new certificate is served without a restart, and cuts nobody off.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_certificate_that_changes_is_taken_and_connections_stay() {
    let (folder, world) = (TempDir::new().unwrap(), World::new().await);
    let files = certificate(folder.path());
    let mut options = ServerOptions::default();
    options.tls = Some(files.clone());
    let served = Served::start(&Open, options).await;
    let (wait, go) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
    let router = {
        let (wait, go) = (Arc::clone(&wait), Arc::clone(&go));
        Router::new().route("/v2/", axum::routing::get(async || "")).route(
            "/v2/slow",
            axum::routing::get(async move || {
                go.store(true, Ordering::Relaxed);
                wait.notified().await;
                "done"
            }),
        )
    };
    served.service.open(world.store.clone(), router);
    let url = format!("{}/v2/", served.url);
    let before = trusting(&files.certificate);
    let response = before.get(&url).send().await.unwrap();
    assert_eq!((response.version(), response.status().as_u16()), (Version::HTTP_2, 200));
    let slow = tokio::spawn(before.get(format!("{}/v2/slow", served.url)).send());
    until(async || go.load(Ordering::Relaxed)).await;

    // One file of the two: not yet.
    let other = TempDir::new().unwrap();
    let new = certificate(other.path());
    fs::copy(&new.certificate, &files.certificate).unwrap();
    let after = trusting(&new.certificate);
    assert!(after.get(&url).send().await.is_err());
    fs::copy(&new.key, &files.key).unwrap();
    until(async || after.get(&url).send().await.is_ok()).await;
    let first = before.get(&url).send().await.unwrap();
    assert_eq!(first.status(), 200, "the old connection goes on");
    wait.notify_one();
    assert_eq!(slow.await.unwrap().unwrap().text().await.unwrap(), "done");
}

#[tokio::test(start_paused = true)]
async fn heads_and_bodies_that_do_not_come_are_cut_off() {
    // The clock of this test moves by itself whenever everybody waits. The store's own clock is the real one.
    let world = World::new().await;
    let served = Served::start(&Open, ServerOptions::default()).await;
    served.service.open(world.store.clone(), echo());
    let started = tokio::time::Instant::now();
    let mut silent = TcpStream::connect(served.address).await.unwrap();
    assert_eq!(silent.read(&mut [0; 1]).await.unwrap_or(0), 0, "no request");
    assert!(started.elapsed() < Duration::from_secs(15));

    // A byte every ten seconds, without end: never silent for long, and far too slow.
    let mut slow = TcpStream::connect(served.address).await.unwrap();
    slow.write_all(b"PUT /v2/a/blobs/uploads/x HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n")
        .await
        .unwrap();
    let started = tokio::time::Instant::now();
    let ended = async {
        loop {
            tokio::time::sleep(Duration::from_secs(10)).await;
            if let Err(error) = slow.write_all(b"x").await {
                return error.kind();
            }
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(200), ended).await.unwrap();
    assert!(matches!(ended, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{ended:?}");
    assert!(started.elapsed() > Duration::from_secs(50), "it had its minute");

    // Silence after the first bytes.
    let mut half = TcpStream::connect(served.address).await.unwrap();
    half.write_all(b"PUT /v2/a/blobs/uploads/x HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nhalf")
        .await
        .unwrap();
    let mut answer = String::new();
    half.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}

/// As a client that sends a layer first and its password when it is asked for it.
#[tokio::test]
async fn an_answer_arrives_while_what_nobody_reads_is_still_being_sent() {
    // More than both ends' sockets hold.
    const SIZE: usize = 32 << 20;
    let world = World::new().await;
    let served = Served::start(&Open, ServerOptions::default()).await;
    let router = Router::new().fallback(any(async || (StatusCode::UNAUTHORIZED, "who are you?")));
    served.service.open(world.store.clone(), router);
    let head = |more: &str| format!("PUT /v2/a/blobs/uploads/x HTTP/1.1\r\nhost: x\r\n{more}\r\n");
    let answer = async |stream: &mut TcpStream| {
        let mut answer = Vec::new();
        while !answer.ends_with(b"who are you?") {
            assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "no answer");
        }
        String::from_utf8(answer).unwrap()
    };
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let known = head(&format!("content-length: {SIZE}\r\n"));
    let chunked = head("transfer-encoding: chunked\r\n");
    let body = vec![7; SIZE];
    let chunks = [format!("{SIZE:x}\r\n").as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
    for (head, body) in [(&known, &body), (&chunked, &chunks), (&known, &body)] {
        // Without a look at what comes back, on one connection.
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        assert!(answer(&mut stream).await.starts_with("HTTP/1.1 401 "));
    }
    // Who asks before sending is not told to go on.
    let asked = head(&format!("content-length: {SIZE}\r\nexpect: 100-continue\r\n"));
    stream.write_all(asked.as_bytes()).await.unwrap();
    assert!(answer(&mut stream).await.starts_with("HTTP/1.1 401 "));
}

#[tokio::test(start_paused = true)]
async fn who_goes_on_sending_after_the_answer_is_cut_off() {
    let world = World::new().await;
    let served = Served::start(&Open, ServerOptions::default()).await;
    served.service.open(world.store.clone(), Router::new().fallback(any(async || StatusCode::UNAUTHORIZED)));
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream
        .write_all(b"PUT /v2/a/blobs/uploads/x HTTP/1.1\r\nhost: x\r\ncontent-length: 100000000\r\n\r\n")
        .await
        .unwrap();
    let started = tokio::time::Instant::now();
    let ended = async {
        while stream.write_all(&[7; 1000]).await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), ended).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn who_stops_taking_an_answer_does_not_hold_it_for_ever() {
    struct Held(Arc<Notify>);
    impl Drop for Held {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    let world = World::new().await;
    let served = Served::start(&Open, ServerOptions::default()).await;
    let dropped = Arc::new(Notify::new());
    let router = {
        let dropped = Arc::clone(&dropped);
        Router::new().fallback(any(async move || {
            let held = Held(Arc::clone(&dropped));
            let endless = futures::stream::repeat_with(move || {
                let _ = &held;
                Ok::<_, std::io::Error>(Bytes::from_static(&[0; 65_536]))
            });
            Body::from_stream(endless)
        }))
    };
    served.service.open(world.store.clone(), router);
    let mut client = TcpStream::connect(served.address).await.unwrap();
    client.write_all(b"GET /v2/a/blobs/x HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    tokio::time::timeout(Duration::from_secs(120), dropped.notified()).await.unwrap();
}

/// A download and an upload are under way when the server is told to stop: both end, and then the server.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn transfers_under_way_end_before_the_server_does() {
    let world = World::new().await;
    let mut served = Served::start(&Open, ServerOptions::default()).await;
    let (asked, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let router = {
        let (asked, go) = (Arc::clone(&asked), Arc::clone(&go));
        let up = async move |request: Request| {
            asked.notify_one();
            axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap().len().to_string()
        };
        Router::new().fallback(any(up)).route(
            "/v2/down",
            axum::routing::get(async move || {
                let rest = async move {
                    go.notified().await;
                    Ok::<_, std::io::Error>(Bytes::from_static(b"second"))
                };
                let first = futures::stream::iter([Ok(Bytes::from_static(b"first "))]);
                Body::from_stream(first.chain(futures::stream::once(rest)))
            }),
        )
    };
    served.service.open(world.store.clone(), router);
    let (client, url) = (client(), served.url.clone());
    let mut down = client.get(format!("{url}/v2/down")).send().await.unwrap();
    assert_eq!(down.chunk().await.unwrap().unwrap(), "first ");
    let (send, receive) = futures::channel::mpsc::unbounded::<Result<Bytes, std::io::Error>>();
    send.unbounded_send(Ok(Bytes::from_static(b"12345"))).unwrap();
    let up = client.put(format!("{url}/v2/a/blobs/uploads/x")).body(reqwest::Body::wrap_stream(receive));
    let up = tokio::spawn(up.send());
    asked.notified().await;

    served.tell_to_stop();
    until(async || TcpStream::connect(served.address).await.is_err()).await;
    assert!(!served.serving.is_finished());
    go.notify_one();
    assert_eq!(down.chunk().await.unwrap().unwrap(), "second");
    assert_eq!(down.chunk().await.unwrap(), None);
    send.unbounded_send(Ok(Bytes::from_static(b"678"))).unwrap();
    drop(send);
    assert_eq!(up.await.unwrap().unwrap().text().await.unwrap(), "8");
    served.serving.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_transfer_without_end_does_not_keep_the_server() {
    let world = World::new().await;
    let mut options = ServerOptions::default();
    options.limits.grace = Duration::from_secs(30);
    let mut served = Served::start(&Open, options).await;
    let asked = Arc::new(Notify::new());
    let router = {
        let asked = Arc::clone(&asked);
        Router::new().fallback(any(async move || {
            asked.notify_one();
            std::future::pending::<()>().await;
        }))
    };
    served.service.open(world.store.clone(), router);
    let mut client = TcpStream::connect(served.address).await.unwrap();
    client.write_all(b"GET /v2/ HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    asked.notified().await;
    let started = tokio::time::Instant::now();
    served.tell_to_stop();
    served.serving.await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(30) && started.elapsed() < Duration::from_secs(40));
}

#[tokio::test(start_paused = true)]
async fn uploads_wait_for_a_place_and_then_are_told_to_come_back() {
    let world = World::new().await;
    let mut options = ServerOptions::default();
    options.uploads = 1;
    let served = Served::start(&Open, options).await;
    let (asked, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let router = {
        let (asked, go) = (Arc::clone(&asked), Arc::clone(&go));
        Router::new().fallback(any(async move || {
            asked.notify_one();
            go.notified().await;
        }))
    };
    served.service.open(world.store.clone(), router);
    let send = async |method: &str, path: &str| {
        let mut client = TcpStream::connect(served.address).await.unwrap();
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        client
    };
    let answer = async |mut client: TcpStream| {
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let first = send("PATCH", "/v2/a/blobs/uploads/1").await;
    asked.notified().await;
    // A pull has nothing to wait for, and a manifest not for blobs.
    let pull = send("GET", "/v2/a/blobs/x").await;
    asked.notified().await;
    let manifest = send("PUT", "/v2/a/manifests/v1").await;
    asked.notified().await;
    // However the path is written.
    for (method, path) in [
        ("PATCH", "/v2/a/blobs/uploads/2"),
        ("POST", "/v2/a/blobs/uploads?digest=x"),
        ("PUT", "/v2/a/%62lobs/%75ploads/2"),
        ("PUT", "/v2/a/manifests/v2"),
    ] {
        let late = answer(send(method, path).await).await;
        assert!(late.starts_with("HTTP/1.1 429"), "{path}: {late}");
        assert!(late.to_lowercase().contains("retry-after: 1"), "{late}");
        assert!(late.contains(r#""code":"TOOMANYREQUESTS""#), "{late}");
    }
    let next = send("PUT", "/v2/a/blobs/uploads/3").await;
    go.notify_waiters();
    for done in [first, pull, manifest] {
        assert!(answer(done).await.starts_with("HTTP/1.1 200"));
    }
    asked.notified().await;
    go.notify_one();
    assert!(answer(next).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn readiness_follows_the_key_and_an_idle_store_is_ready() {
    let world = World::new().await;
    let served = Served::start(&Open, ServerOptions::default()).await;
    let ready = format!("{}/readyz", served.url);
    assert_eq!(status(&ready).await.0, 503);
    let (code, body) = status(&format!("{}/v2/", served.url)).await;
    assert_eq!((code, body["errors"][0]["code"].as_str()), (503, Some("UNAVAILABLE")));
    served.service.open(world.store.clone(), guarded(Arc::new(Open)));
    until(async || status(&ready).await.0 == 200).await;

    world.enable_key(false);
    until(async || status(&ready).await.0 == 503).await;
    let (_, body) = status(&ready).await;
    assert_eq!((body["status"].as_str(), body["reason"].as_str()), (Some("revoked"), Some("Disabled")));
    assert!(body["message"].is_string(), "this machine may know more: {body}");
    assert_eq!(status(&format!("{}/healthz", served.url)).await.0, 200, "the process lives");
    world.enable_key(true);
    until(async || status(&ready).await.0 == 200).await;
    // The lease of an idle store ends; that alone is no trouble.
    until(async || !matches!(world.store.key_state(), bulla::KeyState::Live { .. })).await;
    assert_eq!(status(&ready).await.0, 200);
}

#[tokio::test]
async fn a_server_may_start_before_its_key_is_back() {
    let world = World::new().await;
    let served = Served::start(&Open, ServerOptions::default()).await;
    world.enable_key(false);
    let mut failed = None;
    until(async || {
        failed = world.store.contains(&bulla::Digest::of(bulla::Algorithm::Sha256, b"")).await.err();
        failed.is_some()
    })
    .await;
    served.service.wait_for(&failed.unwrap());
    let response = client().get(format!("{}/v2/a/manifests/x", served.url)).send().await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "5");
    let body: Value = response.json().await.unwrap();
    let message = body["errors"][0]["message"].as_str().unwrap();
    assert!(message.contains("withdrawn") && !message.contains("vault"), "{message}");
    assert_eq!(status(&format!("{}/readyz", served.url)).await.1["reason"], "Disabled");
}

#[tokio::test]
async fn numbers_name_nothing_and_are_for_operators() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let shown = recorder.handle();
    // This test's only thread.
    let _recording = metrics::set_default_local_recorder(&recorder);
    describe_metrics();
    let world = World::new().await;
    let mut options = ServerOptions::default();
    options.admin = Some("127.0.0.1:0".parse().unwrap());
    options.metrics = Some(Arc::new(move || shown.render()));
    let served = Served::start(&Open, options).await;
    served.service.open(world.store.clone(), echo());
    let client = client();
    let put = client.put(format!("{}/v2/secret/name/blobs/uploads/hidden?digest=sha256:00", served.url));
    assert_eq!(put.body("12345").send().await.unwrap().text().await.unwrap(), "5");
    let odd = reqwest::Method::from_bytes(b"SECRET").unwrap();
    client.request(odd, format!("{}/hidden/path", served.url)).send().await.unwrap();

    let admin = format!("http://{}", served.admin.unwrap());
    let text = client.get(format!("{admin}/metrics")).send().await.unwrap().text().await.unwrap();
    for line in [
        r#"bulla_registry_requests_total{route="uploads",method="PUT",status="200"} 1"#,
        r#"bulla_registry_requests_total{route="other",method="other",status="200"} 1"#,
        r#"bulla_registry_received_bytes_total{route="uploads"} 5"#,
        r#"bulla_registry_sent_bytes_total{route="uploads"} 1"#,
        r"bulla_registry_requests_under_way 0",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    for line in text.lines().filter(|line| line.starts_with("# TYPE bulla_registry_")) {
        let name = line.split(' ').nth(2).unwrap();
        assert!(text.contains(&format!("# HELP {name} ")), "{name} is not described\n{text}");
    }
    assert!(!text.to_lowercase().contains("secret") && !text.contains("hidden"), "{text}");
    // On the registry's address the path is nothing special, and nothing else is on the operators'.
    assert_eq!(
        client.get(format!("{}/metrics", served.url)).send().await.unwrap().text().await.unwrap(),
        "0"
    );
    assert_eq!(client.get(format!("{admin}/healthz")).send().await.unwrap().status(), 200);
    assert_eq!(client.get(format!("{admin}/readyz")).send().await.unwrap().status(), 200);
    assert_eq!(client.get(format!("{admin}/v2/")).send().await.unwrap().status(), 404);
}

#[tokio::test]
async fn connections_are_bounded() {
    let world = World::new().await;
    let mut options = ServerOptions::default();
    options.limits = Limits::default();
    options.limits.connections = 1;
    let served = Served::start(&Open, options).await;
    served.service.open(world.store.clone(), echo());
    let ask = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut first = TcpStream::connect(served.address).await.unwrap();
    first.write_all(ask).await.unwrap();
    assert_ne!(first.read(&mut [0; 1]).await.unwrap(), 0);
    let mut second = TcpStream::connect(served.address).await.unwrap();
    second.write_all(ask).await.unwrap();
    let mut byte = [0; 1];
    let early = tokio::time::timeout(Duration::from_millis(200), second.read(&mut byte)).await;
    assert!(early.is_err(), "it waits");
    drop(first);
    assert_eq!(second.read(&mut byte).await.unwrap(), 1);
}
