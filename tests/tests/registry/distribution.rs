//! Debian's `docker-registry`, CNCF Distribution's server, as the source of adoptions.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bulla_tests::part;

use crate::images::Tools;
use crate::world::World;

/// A running server, killed on drop.
pub(crate) struct Distribution {
    process: Child,
    address: String,
}

impl Distribution {
    /// Over the folder `source`. `None`: it is not here, and the test is skipped.
    pub(crate) fn of_folder(world: &World) -> Option<Self> {
        Self::start(world, &format!("  filesystem:\n    rootdirectory: {}\n", world.path("source")))
    }

    /// Over the prefix `registry` of the bucket `bucket`.
    pub(crate) fn of_s3(world: &World, url: &str) -> Option<Self> {
        let storage = format!(
            "  s3:\n    region: us-east-1\n    regionendpoint: {url}\n    bucket: bucket\n    accesskey: key\n    \
             secretkey: secret\n    secure: false\n    rootdirectory: /registry\n  redirect:\n    disable: true\n"
        );
        Self::start(world, &storage)
    }

    fn start(world: &World, storage: &str) -> Option<Self> {
        let program = part("BULLA_DOCKER_REGISTRY", "docker-registry")?;
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config =
            format!("version: 0.1\nstorage:\n{storage}  delete:\n    enabled: true\nhttp:\n  addr: {free}\n");
        let config = world.write("registry.yml", config.as_bytes());
        let mut process = Command::new(program)
            .args(["serve", &config])
            // Its S3 client can't have one, and needs none here.
            .env_remove("AWS_CA_BUNDLE")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while TcpStream::connect(free).is_err() {
            assert_eq!(process.try_wait().unwrap(), None, "the other registry ended");
            assert!(begun.elapsed() < Duration::from_secs(30), "the other registry does not start");
            std::thread::yield_now();
        }
        Some(Self { process, address: free.to_string() })
    }

    pub(crate) fn image(&self, name: &str) -> String {
        format!("docker://{}/{name}", self.address)
    }

    /// Fills it with two repositories, which share an image; an index; and the layers of an image that was deleted.
    pub(crate) fn fill(&self, tools: &Tools) {
        tools.make_both();
        tools.make("images", "gone", 2, 400_000, 3);
        for (tag, to) in [
            ("one", "library/app:one"),
            ("two", "library/app:two"),
            ("one", "copy:one"),
            ("gone", "copy:gone"),
        ] {
            tools.copy(&[], &format!("oci:images:{tag}"), &self.image(to));
        }
        tools.copy(&["--all"], "oci:images:both", &self.image("library/app:both"));
        tools.skopeo(&["delete", "--tls-verify=false", &self.image("copy:gone")]);
    }
}

impl Drop for Distribution {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
