//! Buckets of real servers, with a store in them.

use std::time::Duration;

use bulla_tests::part;
use bulla_tests::servers::Server;
use tempfile::TempDir;

use crate::world::{IDENTITY, World};

/// The prefix is somebody's who has more in the bucket.
const S3: &str = "s3://bucket/prefix";
const AZURE: &str = "az://bucket/prefix";
const GOOGLE: &str = "gs://bucket/prefix";

/// A store in a bucket; the server ends with it.
pub(crate) struct Place {
    pub(crate) server: Server,
    pub(crate) world: World,
    pub(crate) store: &'static str,
    /// Where Azurite keeps what it holds.
    pub(crate) folder: Option<TempDir>,
}

impl Place {
    /// `None`: there is no moto, and the test is skipped.
    pub(crate) fn s3() -> Option<Self> {
        let server = Server::moto(&part("BULLA_MOTO_SERVER", "moto_server")?).unwrap();
        server.make_bucket("bucket").unwrap();
        Some(Self::new(server, S3, None))
    }

    /// `None`: there is no Azurite, and the test is skipped.
    pub(crate) fn azure() -> Option<Self> {
        let program = part("BULLA_AZURITE_BLOB", "azurite-blob")?;
        let folder = TempDir::new().unwrap();
        let server = Server::azurite(&program, folder.path()).unwrap();
        server.make_container("bucket").unwrap();
        Some(Self::new(server, AZURE, Some(folder)))
    }

    /// One that takes an object's next change when `pause` is over. `None`: there is no fake-gcs-server, and the test is skipped.
    pub(crate) fn google(pause: Duration) -> Option<Self> {
        let server = Server::gcs(&part("BULLA_FAKE_GCS_SERVER", "fake-gcs-server")?, pause).unwrap();
        server.make_gcs_bucket("bucket").unwrap();
        Some(Self::new(server, GOOGLE, None))
    }

    fn new(server: Server, store: &'static str, folder: Option<TempDir>) -> Self {
        let mut world = World::with_vault();
        world.environment = server.environment();
        world.ok(&["init", store, "--kek", &world.kek(), "--identity", IDENTITY]);
        Self { server, world, store, folder }
    }
}
