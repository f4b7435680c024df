//! One `bulla serve`, on a port of its own.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use serde_json::Value;

use crate::world::World;

/// A running server, killed on drop as by `kill -9`.
pub(crate) struct Node {
    process: Child,
    info: Value,
}

impl Node {
    /// Of the world's store in a folder.
    pub(crate) fn start(world: &World) -> Self {
        Self::of(world, &world.store(), &[])
    }

    /// Of a store, with more options.
    pub(crate) fn of(world: &World, store: &str, more: &[&str]) -> Self {
        let arguments = [&["serve", store, "--listen", "127.0.0.1:0", "--json"], more].concat();
        let log = world.dir.path().join("serve.log");
        let mut process = world
            .command(&arguments)
            .stdout(Stdio::piped())
            .stderr(fs::File::options().create(true).append(true).open(&log).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let info = serde_json::from_str(&line)
            .unwrap_or_else(|_| panic!("it did not start: {line}{}", fs::read_to_string(&log).unwrap()));
        Self { process, info }
    }

    /// `127.0.0.1:PORT`.
    pub(crate) fn address(&self) -> &str {
        self.info["address"].as_str().unwrap()
    }

    /// The whole name of an image, as skopeo has it.
    pub(crate) fn image(&self, name: &str) -> String {
        format!("docker://{}/{name}", self.address())
    }

    pub(crate) fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}
