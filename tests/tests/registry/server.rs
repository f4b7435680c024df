//! `bulla serve` as its operators meet it: signals, certificates, addresses.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use reqwest::{Certificate, Client};

use crate::certificates::Authority;
use crate::images::{noise, sha256};
use crate::node::Node;
use crate::world::World;

/// For what takes a moment.
const SOON: Duration = Duration::from_secs(20);
/// How long a server waits for transfers, as its help says.
const GRACE: Duration = Duration::from_secs(30);
/// More than the sockets of both ends hold, so that the other end must have seen some of it.
const LARGE: usize = 32 << 20;

fn client() -> Client {
    crate::oci_client::tls();
    Client::builder().no_proxy().build().unwrap()
}

/// Pushes a layer; its path.
async fn push(node: &Node, layer: &[u8]) -> String {
    let digest = sha256(layer);
    let post = format!("http://{}/v2/app/blobs/uploads/?digest={digest}", node.address());
    assert_eq!(client().post(post).body(layer.to_vec()).send().await.unwrap().status(), 201);
    format!("/v2/app/blobs/{digest}")
}

/// Begins an upload; its path.
async fn begin(node: &Node) -> String {
    let post = format!("http://{}/v2/app/blobs/uploads/", node.address());
    let response = client().post(post).send().await.unwrap();
    assert_eq!(response.status(), 202);
    let location = response.headers()["location"].to_str().unwrap();
    location.strip_prefix(&format!("http://{}", node.address())).unwrap_or(location).to_owned()
}

/// Waits until nobody listens there any more.
fn refused(node: &Node) {
    let since = Instant::now();
    while TcpStream::connect(node.address()).is_ok() {
        assert!(since.elapsed() < SOON, "it still takes connections");
        thread::yield_now();
    }
}

/// Tells a server to stop while something is under way, which it waits for.
fn told_to_stop(node: &mut Node, under_way: &str) {
    node.signal("TERM");
    refused(node);
    assert!(node.is_running(), "a {under_way} is under way");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_under_way_ends_before_the_server_does() {
    let world = World::with_store();
    let mut node = Node::start(&world);
    let layer = noise(LARGE, 50);
    let path = push(&node, &layer).await;
    let mut response = client().get(format!("http://{}{path}", node.address())).send().await.unwrap();
    let mut got = response.chunk().await.unwrap().unwrap().to_vec();
    told_to_stop(&mut node, "pull");
    while let Some(piece) = response.chunk().await.unwrap() {
        got.extend_from_slice(&piece);
    }
    assert!(got == layer);
    assert_eq!(node.wait(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_under_way_is_acknowledged_before_the_server_ends() {
    let world = World::with_store();
    let mut node = Node::start(&world);
    let layer = noise(LARGE, 51);
    let path = begin(&node).await;
    let mut stream = TcpStream::connect(node.address()).unwrap();
    let head =
        format!("PATCH {path} HTTP/1.1\r\nhost: {}\r\ncontent-length: {LARGE}\r\n\r\n", node.address());
    stream.write_all(head.as_bytes()).unwrap();
    let (first, rest) = layer.split_at(LARGE / 4 * 3);
    stream.write_all(first).unwrap();
    told_to_stop(&mut node, "push");
    stream.write_all(rest).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    assert_eq!(node.wait(), 0);

    // The next server goes on where this one stopped.
    let node = Node::start(&world);
    let (url, digest) = (format!("http://{}{path}", node.address()), sha256(&layer));
    let status = client().get(&url).send().await.unwrap();
    assert_eq!(status.headers()["range"], format!("0-{}", LARGE - 1));
    let done = client().put(format!("{url}?digest={digest}")).send().await.unwrap();
    assert_eq!(done.status(), 201);
    let got = client().get(format!("http://{}/v2/app/blobs/{digest}", node.address())).send().await.unwrap();
    assert!(got.bytes().await.unwrap() == layer);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_without_end_is_cut_by_the_limit_or_a_second_signal() {
    let world = World::with_store();
    let (mut patient, mut hurried) = (Node::start(&world), Node::start(&world));
    let path = push(&patient, &noise(LARGE, 52)).await;
    // Clients that take no more.
    let mut stalled = Vec::new();
    for node in [&mut patient, &mut hurried] {
        let mut response = client().get(format!("http://{}{path}", node.address())).send().await.unwrap();
        response.chunk().await.unwrap().unwrap();
        stalled.push(response);
    }
    let told = Instant::now();
    told_to_stop(&mut patient, "pull");
    told_to_stop(&mut hurried, "pull");
    hurried.signal("TERM");
    assert_eq!(hurried.wait(), 128 + 15);
    assert!(told.elapsed() < SOON);
    assert_eq!(patient.wait(), 0);
    let took = told.elapsed();
    assert!((GRACE..GRACE + SOON).contains(&took), "{took:?}");
    // Neither looks complete.
    for mut response in stalled {
        let mut ended = response.chunk().await;
        while let Ok(Some(_)) = ended {
            ended = response.chunk().await;
        }
        ended.unwrap_err();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_changed_while_it_is_used() {
    crate::oci_client::tls();
    let world = World::with_store();
    let trusting = |authority: &Authority| {
        let certificate = Certificate::from_pem(authority.pem().as_bytes()).unwrap();
        Client::builder().no_proxy().tls_certs_only([certificate]).build().unwrap()
    };
    let (before, after) = (Authority::new(), Authority::new());
    let (chain, key) = before.issue(&world);
    let node = Node::of(&world, &world.store(), &["--tls-cert", &chain, "--tls-key", &key]);
    let url = format!("https://{}/v2/", node.address());
    let old = trusting(&before);
    assert_eq!(old.get(&url).send().await.unwrap().status(), 200);
    after.issue(&world);
    let since = Instant::now();
    // A new client each time: a connection of its own.
    while trusting(&after).get(&url).send().await.is_err() {
        assert!(since.elapsed() < SOON, "the certificate is not taken");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    trusting(&before).get(&url).send().await.unwrap_err();
    // It knows the old authority only, so this is the connection that it has.
    assert_eq!(old.get(&url).send().await.unwrap().status(), 200);
}

/// Why, and what to do: the address or the file, the operating system's reason, the flag.
#[test]
fn what_keeps_a_server_from_starting_is_said_with_its_fix() {
    let world = World::with_store();
    let node = Node::start(&world);
    let line = world.fails(5, &["serve", &world.store(), "--listen", node.address()]);
    for part in [node.address(), "Address already in use", "--listen"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    let line = world.fails(5, &["serve", &world.store(), "--listen", "192.0.2.1:5000", "--insecure"]);
    assert!(line.contains("192.0.2.1:5000") && line.contains("Cannot assign"), "{line}");
    let local = ["serve", &world.store(), "--listen", "127.0.0.1:0"];
    let (chain, key) = Authority::new().issue(&world);
    for (tls, flag, file) in
        [(["gone.pem", &key], "--tls-cert", "gone.pem"), ([&chain, "gone.pem"], "--tls-key", "gone.pem")]
    {
        let line = world.fails(2, &[&local[..], &["--tls-cert", tls[0], "--tls-key", tls[1]]].concat());
        for part in [flag, file, "No such file"] {
            assert!(line.contains(part), "{part}: {line}");
        }
    }
    let line = world.fails(2, &[&local[..], &["--htpasswd", "gone"]].concat());
    assert!(line.contains("gone") && line.contains("No such file"), "{line}");
    let line = world.fails(2, &[&local[..], &["--admin-listen", "0.0.0.0:0"]].concat());
    assert!(line.contains("0.0.0.0:0") && line.contains("--insecure"), "{line}");
}

/// Scripts and dashboards find everything from the one line that `serve --json` prints.
#[tokio::test]
async fn pages_of_operators_are_where_the_server_says_and_every_number_is_described() {
    let world = World::with_store();
    let node = Node::of(&world, &world.store(), &["--admin-listen", "127.0.0.1:0"]);
    push(&node, b"a layer").await;
    let get = async |page: &str| {
        let response = client().get(node.url(page)).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    assert_eq!(get("health").await.0, 200);
    assert_eq!(get("ready").await.0, 200);
    let (_, metrics) = get("metrics").await;
    let mut names = 0;
    for line in metrics.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let sample = line.split(['{', ' ']).next().unwrap();
        let described =
            |name: &str| ["HELP", "TYPE"].iter().all(|what| metrics.contains(&format!("# {what} {name} ")));
        let parts = ["_bucket", "_sum", "_count"].iter().filter_map(|part| sample.strip_suffix(part));
        assert!(described(sample) || parts.into_iter().any(described), "{line} is not described\n{metrics}");
        names += usize::from(line.starts_with("bulla_"));
    }
    assert!(names > 10, "{metrics}");
    for name in ["bulla_events_total", "bulla_event_seconds", "bulla_registry_requests_total"] {
        assert!(metrics.contains(name), "{name}\n{metrics}");
    }
}

#[test]
fn others_are_let_in_on_purpose_only() {
    let world = World::with_store();
    let everywhere = ["serve", &world.store(), "--listen", "0.0.0.0:0"];
    let line = world.fails(2, &everywhere);
    for flag in ["--htpasswd", "--token-key", "--insecure"] {
        assert!(line.contains(flag), "{flag}: {line}");
    }
    let users =
        world.write("users", format!("alice:{}\n", bcrypt::hash("wonderland", 4).unwrap()).as_bytes());
    let with_users = [&everywhere[..], &["--htpasswd", &users]].concat();
    let line = world.fails(2, &with_users);
    for flag in ["--tls-cert", "--tls-key", "--insecure"] {
        assert!(line.contains(flag), "{flag}: {line}");
    }
    // Users make no TLS, and TLS no users.
    let (chain, key) = Authority::new().issue(&world);
    let tls = ["--tls-cert", &chain, "--tls-key", &key];
    assert!(world.fails(2, &[&everywhere[..], &tls].concat()).contains("--htpasswd"));
    drop(Node::run(&world, &[&with_users[..], &tls].concat()));
    let mut node = Node::run(&world, &[&everywhere[..], &["--insecure"]].concat());
    assert!(node.address().starts_with("0.0.0.0:"), "{}", node.address());
    TcpStream::connect(node.address().replace("0.0.0.0", "127.0.0.1")).unwrap();
    node.signal("INT");
    assert_eq!(node.wait(), 0);
}
