//! One `bulla serve`, on a port of its own.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

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
        Self::run(world, &[&["serve", store, "--listen", "127.0.0.1:0"], more].concat())
    }

    /// As these arguments say.
    pub(crate) fn run(world: &World, arguments: &[&str]) -> Self {
        let arguments = [arguments, &["--json"]].concat();
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

    /// A page of operators: `health`, `ready` or `metrics`.
    pub(crate) fn url(&self, page: &str) -> &str {
        self.info[page].as_str().unwrap()
    }

    /// The whole name of an image, as skopeo has it.
    pub(crate) fn image(&self, name: &str) -> String {
        format!("docker://{}/{name}", self.address())
    }

    /// What a plain GET without credentials answers.
    pub(crate) fn get(&self, path: &str, accept: &str) -> Vec<u8> {
        crate::oci_client::tls();
        let url = format!("http://{}{path}", self.address());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            let answer = client.get(url).header("accept", accept).send().await.unwrap();
            answer.error_for_status().unwrap().bytes().await.unwrap().to_vec()
        })
    }

    /// The manifest of that name, `REPOSITORY:TAG`, as a client of today gets it.
    pub(crate) fn manifest(&self, name: &str) -> Value {
        let (name, tag) = name.rsplit_once(':').unwrap();
        serde_json::from_slice(&self.get(&format!("/v2/{name}/manifests/{tag}"), "*/*")).unwrap()
    }

    /// The bytes of layers that were sent to anybody.
    pub(crate) fn sent(&self) -> u64 {
        let metrics = String::from_utf8(self.get("/metrics", "*/*")).unwrap();
        let name = "bulla_registry_sent_bytes_total{route=\"blobs\"} ";
        metrics.lines().find_map(|line| line.strip_prefix(name)).map_or(0, |sent| sent.parse().unwrap())
    }

    /// Sends `TERM`, `INT` or another signal.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    /// Waits for its end; the exit code, as a shell has it.
    pub(crate) fn wait(&mut self) -> i32 {
        let status = self.process.wait().unwrap();
        status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
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
