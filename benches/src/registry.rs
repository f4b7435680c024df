//! The registry beside CNCF Distribution's: the same pushes and pulls over loopback, by the same client, on the same disk.
//!
//! Ours seals and makes durable what it acknowledges; theirs writes plain files and leaves them to the page cache. Each is a
//! process of its own with an empty folder per round; the rounds alternate, and medians are compared. Wall-clock time: a
//! client waits for a disk, too. `cargo xtask bench-report` prints what is written down here.

#![allow(clippy::print_stdout, reason = "a bench prints, and a server says where it is")]

mod client;
mod ours;
mod theirs;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

pub use ours::serve_if_asked;

use client::Client;

/// What is pushed and pulled.
#[derive(Clone, Copy, Debug)]
struct Load {
    blobs: usize,
    len: usize,
}

/// A full run's, and those of a short one that only shows that everything works.
const LOADS: [Load; 3] = [
    Load { blobs: 1, len: 200 << 20 },
    Load { blobs: 20, len: 10 << 20 },
    Load { blobs: 10_000, len: 4 << 10 },
];
const QUICK: [Load; 3] =
    [Load { blobs: 1, len: 20 << 20 }, Load { blobs: 4, len: 5 << 20 }, Load { blobs: 200, len: 4 << 10 }];

/// A registry in a process of its own; it ends with this.
#[derive(Debug)]
struct Server {
    process: Child,
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Whose registry.
#[derive(Clone, Copy, Debug)]
enum Whose {
    Ours,
    Theirs,
}

/// Times of one round.
#[derive(Clone, Copy, Debug)]
struct Times {
    push: Duration,
    pull: Duration,
}

/// Measures both and writes down the medians.
pub fn compare() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_quick = arguments.iter().any(|argument| argument == "--quick");
    let (loads, rounds) = if is_quick { (QUICK, 1) } else { (LOADS, 3) };
    let peer = theirs::find();
    if peer.is_none() {
        println!("SKIPPED: no docker-registry on PATH or in BULLA_DOCKER_REGISTRY; measuring ours alone");
    }
    let mut lines = Vec::new();
    for load in loads {
        let client = Client::new(load);
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            ours.push(round(Whose::Ours, None, &client));
            if let Some(peer) = &peer {
                theirs.push(round(Whose::Theirs, Some(peer), &client));
            }
        }
        for (what, of) in
            [("push", (|times| times.push) as fn(&Times) -> Duration), ("pull", |times| times.pull)]
        {
            let (ours, theirs) = (median(&ours, of), median(&theirs, of));
            println!("{what} {} × {} B: ours {ours:.3} s, theirs {theirs:.3} s", load.blobs, load.len);
            lines.push(format!(
                "{{\"what\":\"{what}\",\"blobs\":{},\"len\":{},\"ours_s\":{ours:.4},\"theirs_s\":{theirs:.4}}}",
                load.blobs, load.len
            ));
        }
    }
    // Where criterion's own results are.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/criterion");
    fs::create_dir_all(&folder).expect("the target folder is writable");
    fs::write(folder.join("registry.json"), format!("[{}]\n", lines.join(",")))
        .expect("the target folder is writable");
}

/// Seconds; 0 if nothing was measured.
fn median(times: &[Times], of: fn(&Times) -> Duration) -> f64 {
    let mut times: Vec<Duration> = times.iter().map(of).collect();
    times.sort_unstable();
    times.get(times.len() / 2).map_or(0.0, Duration::as_secs_f64)
}

fn round(whose: Whose, peer: Option<&PathBuf>, client: &Client) -> Times {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let server = match (whose, peer) {
        (Whose::Theirs, Some(program)) => theirs::start(program, folder.path()),
        _ => ours::start(folder.path()),
    };
    settle();
    let push = client.push(&server.address);
    settle();
    let pull = client.pull(&server.address);
    Times { push, pull }
}

/// What one left to the page cache is not written while the other is measured.
fn settle() {
    let synced = Command::new("sync").status().expect("coreutils are installed");
    assert!(synced.success());
}
