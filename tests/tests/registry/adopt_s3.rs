//! `bulla adopt` within one S3 bucket, killed at chosen requests.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bulla_tests::part;
use bulla_tests::servers::Server;

use crate::adopt::assert_served;
use crate::distribution::Distribution;
use crate::images::Tools;
use crate::node::Node;
use crate::nodes::objects;
use crate::world::{IDENTITY, World};

/// A way to the server on which nothing passes any more from a chosen request on.
struct Gate {
    address: String,
    shut: Receiver<()>,
    state: Arc<Mutex<State>>,
}

struct State {
    /// What is in the request: in its head or its body, which come in one piece each.
    request: &'static str,
    /// So many of them pass.
    pass: usize,
    is_shut: bool,
    tell: Sender<()>,
}

impl Gate {
    fn before(server: &Server, request: &'static str, pass: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let server = server.url().trim_start_matches("http://").to_owned();
        let (tell, shut) = channel();
        let state = Arc::new(Mutex::new(State { request, pass, is_shut: false, tell }));
        let gate = Self { address, shut, state: Arc::clone(&state) };
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), TcpStream::connect(&server).unwrap());
                let (back, state) =
                    ((server.try_clone().unwrap(), client.try_clone().unwrap()), Arc::clone(&state));
                thread::spawn(move || pump(back.0, back.1, |_| true));
                thread::spawn(move || pump(client, server, |bytes| state.lock().unwrap().passes(bytes)));
            }
        });
        gate
    }
}

impl State {
    fn passes(&mut self, bytes: &[u8]) -> bool {
        if memchr::memmem::find(bytes, self.request.as_bytes()).is_some() {
            self.is_shut |= self.pass == 0;
            self.pass = self.pass.saturating_sub(1);
        }
        if self.is_shut {
            // The test may have heard of it already.
            let _ = self.tell.send(());
        }
        !self.is_shut
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, mut passes: impl FnMut(&[u8]) -> bool) {
    let mut bytes = [0; 65_536];
    while let Ok(len @ 1..) = from.read(&mut bytes) {
        if !passes(&bytes[..len]) {
            // Nothing more passes, and no end is seen.
            loop {
                thread::park();
            }
        }
        if to.write_all(&bytes[..len]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

#[test]
fn within_one_bucket_killed_at_chosen_requests_it_finishes() {
    let (Some(tools), Some(moto)) = (Tools::find(), part("BULLA_MOTO_SERVER", "moto_server")) else { return };
    let server = Server::moto(&moto).unwrap();
    server.make_bucket("bucket").unwrap();
    let mut world = World::with_vault();
    world.environment = server.environment();
    let Some(other) = Distribution::of_s3(&world, &server.url()) else { return };
    other.fill(&tools);
    drop(other);
    let originals = || {
        let all = objects(&server.url());
        all.into_iter().filter(|(name, _)| name.starts_with("registry/docker/")).count()
    };
    let all = originals();
    let (from, store) = ("s3://bucket/registry", "s3://bucket/sealed");
    let within = "s3://bucket/registry/docker/registry/v2/sealed";
    assert!(world.fails(2, &["adopt", from, within]).contains("put it beside that"));
    world.ok(&["init", store, "--kek", &world.kek(), "--identity", IDENTITY]);
    let arguments = ["adopt", from, store, "--delete-source", "--drop-unlinked"];

    let to_do = || world.json(&["adopt", from, store, "--dry-run"]);
    let begin = to_do();
    assert_eq!((&begin["tags"], &begin["unsealed"]), (&4.into(), &all.into()), "{begin:#}");
    for (request, pass) in [
        ("GET /bucket/registry/docker/registry/v2/blobs", 2),
        ("PUT /bucket/sealed/meta/", 9),
        ("PUT /bucket/sealed/meta/", 4),
        ("<Key>registry/docker/", 0),
    ] {
        let gate = Gate::before(&server, request, pass);
        let mut adopting = world
            .command(&arguments)
            .env("AWS_ENDPOINT", &gate.address)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        gate.shut.recv_timeout(Duration::from_secs(60)).unwrap_or_else(|_| panic!("there is no {request}"));
        assert!(gate.state.lock().unwrap().is_shut);
        assert_eq!(adopting.try_wait().unwrap(), None, "it waits for its answer");
        adopting.kill().unwrap();
        adopting.wait().unwrap();
        assert_eq!(originals(), all, "{request}");
        let left = to_do();
        let is_done =
            left["sealed"]["objects"] == 0 && left["manifests"]["objects"] == 0 && left["tags"] == 0;
        assert_eq!(is_done, request.starts_with("<Key>"), "{request}: {left:#}");
    }

    let ran = world.ok(&arguments);
    assert_eq!(ran.text().lines().last().unwrap(), format!("0 of {all} objects unsealed"));
    assert_eq!(originals(), 0);
    assert_served(&tools, &Node::of(&world, store, &[]));
    let verified = world.ok(&["verify", store, "--deep"]);
    assert!(verified.text().contains("damaged  0"), "{verified:?}");
}
