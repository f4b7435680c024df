//! TLS, HTTP, and clients that mean no good.

use std::fs;
use std::io::ErrorKind;
use std::time::Duration;

use bulla_vault_server::{Api, ApiOptions, Server, ServerErrorKind, ServerOptions, TlsSource};
use reqwest::{Method, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::support::{World, client, user};

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn http_1_and_2() {
    let world = World::new().await;
    let url = format!("{}/keys?api-version=7.4", world.url);
    let response = world.client.get(&url).bearer_auth(world.token(&user())).send().await.unwrap();
    assert_eq!((response.version(), response.status().as_u16()), (Version::HTTP_2, 200));
    let server = Server::bind(world.api.clone(), ServerOptions::default()).await.unwrap();
    let certificate = reqwest::Certificate::from_pem(&fs::read(server.certificate()).unwrap()).unwrap();
    let old =
        reqwest::Client::builder().tls_certs_only([certificate]).http1_only().no_proxy().build().unwrap();
    let response = old.get(&url).bearer_auth(world.token(&user())).send().await.unwrap();
    assert_eq!((response.version(), response.status().as_u16()), (Version::HTTP_11, 200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_certificate_is_used_again_while_it_has_the_names() {
    let world = World::new().await;
    let path = world.vault.dir().join("tls/cert.pem");
    let first = fs::read(&path).unwrap();
    let bind = async |names: &[&str]| {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        let options = ServerOptions { tls: TlsSource::SelfSigned { dir: None, names }, ..Default::default() };
        Server::bind(world.api.clone(), options).await.unwrap();
        fs::read(&path).unwrap()
    };
    assert_eq!(bind(&[]).await, first);
    let named = bind(&["vault.internal"]).await;
    assert_ne!(named, first);
    assert_eq!(bind(&["vault.internal"]).await, named);
    assert_eq!(bind(&[]).await, named, "more names than needed are enough");
    fs::write(&path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    assert_ne!(bind(&["vault.internal"]).await, named, "damaged: made anew");
    let before = fs::read(&path).unwrap();
    fs::copy(World::new().await.vault.dir().join("tls/key.pem"), path.with_file_name("key.pem")).unwrap();
    assert_ne!(bind(&[]).await, before, "another's key: made anew");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let key = world.vault.dir().join("tls/key.pem");
        assert_eq!(fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_certificate_can_be_given_and_must_be_one() {
    let world = World::new().await;
    let dir = world.vault.dir().join("tls");
    let files = |certificate: &str, key: &str| {
        let tls = TlsSource::Files { certificate: dir.join(certificate), key: dir.join(key) };
        ServerOptions { tls, ..Default::default() }
    };
    let server = Server::bind(world.api.clone(), files("cert.pem", "key.pem")).await.unwrap();
    assert_eq!(server.certificate(), dir.join("cert.pem"));
    for (certificate, key) in [("key.pem", "key.pem"), ("cert.pem", "cert.pem"), ("none.pem", "key.pem")] {
        let error = Server::bind(world.api.clone(), files(certificate, key)).await.unwrap_err();
        assert_eq!(error.kind(), ServerErrorKind::Invalid, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn bodies_have_a_limit() {
    let world = World::new().await;
    let url = format!("{}/keys/k/create?api-version=7.4", world.url);
    let request = world.client.post(url).bearer_auth(world.token(&user())).body(vec![b' '; 100_000]);
    assert_eq!(request.send().await.unwrap().status(), 413);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_not_there_is_said_so() {
    let world = World::new().await;
    for (method, path, status) in [
        (Method::GET, "/secrets/s", 404),
        (Method::GET, "/", 404),
        (Method::POST, "/keys", 405),
        (Method::POST, "/keys/k/1/sign", 501),
    ] {
        assert_eq!(world.ask(method, path, None).await.status, status, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_or_says_it_slowly_is_cut_off() {
    // The clock of this test moves by itself whenever everybody waits.
    let world = World::new().await;
    let address = world.url.strip_prefix("https://").unwrap().to_owned();
    let mut silent = TcpStream::connect(&address).await.unwrap();
    assert_eq!(silent.read(&mut [0; 1]).await.unwrap_or(0), 0, "no handshake");

    // The plain listener: the head of a request, a byte at a time, without end.
    let address = world.identity.0.strip_prefix("http://").unwrap().split('/').next().unwrap().to_owned();
    let mut slow = TcpStream::connect(&address).await.unwrap();
    slow.write_all(b"GET /msi/token HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    let ended = async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if let Err(error) = slow.write_all(b"x-a: b\r\n").await {
                return error.kind();
            }
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(60), ended).await.unwrap();
    assert!(matches!(ended, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_server_that_is_told_to_stop_answers_what_was_asked() {
    let world = World::new().await;
    let api = Api::new(world.vault.clone(), ApiOptions::default()).await.unwrap();
    let server = Server::bind(api, ServerOptions::default()).await.unwrap();
    let (url, client) = (server.url(), client(&server));
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve(async move { drop(stopped.await) }));
    let ask = |body: &'static str| {
        let request = client.post(format!("{url}/keys/k/create?api-version=7.4"));
        request.bearer_auth(world.token(&user())).body(body).send()
    };
    // RSA takes long enough for the stop to come in between.
    let asked = tokio::spawn(ask(r#"{"kty":"RSA","key_size":4096}"#));
    while world.audit().is_empty() {
        // Connections are up once somebody was answered.
        drop(ask("{}").await.unwrap());
    }
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
    let status = asked.await.unwrap().unwrap().status();
    assert_eq!(status, 200);
    assert!(ask("{}").await.is_err(), "nobody listens any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_identity_endpoint_is_for_this_machine_only() {
    let world = World::new().await;
    let identity = bulla_vault_server::IdentityOptions { listen: "0.0.0.0:0".parse().unwrap(), header: None };
    let options = ServerOptions { identity: Some(identity), ..Default::default() };
    let error = Server::bind(world.api.clone(), options).await.unwrap_err();
    assert_eq!(error.kind(), ServerErrorKind::Invalid);
    assert!(error.to_string().contains("127.0.0.1"), "{error}");
}
