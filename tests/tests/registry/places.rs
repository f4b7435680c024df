//! Buckets of real servers, with a store in them.

use std::path::PathBuf;

use bulla_tests::part;
use bulla_tests::servers::Server;
use tempfile::TempDir;

use crate::world::{IDENTITY, World};

/// The prefix is somebody's who has more in the bucket.
const S3: &str = "s3://bucket/prefix";
const AZURE: &str = "az://bucket/prefix";

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
        let environment = vec![
            ("AWS_ENDPOINT", server.url().into()),
            ("AWS_ALLOW_HTTP", "true".into()),
            ("AWS_ACCESS_KEY_ID", "key".into()),
            ("AWS_SECRET_ACCESS_KEY", "secret".into()),
            ("AWS_REGION", "us-east-1".into()),
        ];
        Some(Self::new(server, environment, S3, None))
    }

    /// `None`: there is no Azurite, and the test is skipped.
    pub(crate) fn azure() -> Option<Self> {
        let program = part("BULLA_AZURITE_BLOB", "azurite-blob")?;
        let folder = TempDir::new().unwrap();
        let server = Server::azurite(&program, folder.path()).unwrap();
        server.make_container("bucket").unwrap();
        let environment = vec![
            ("AZURE_STORAGE_USE_EMULATOR", "true".into()),
            ("AZURITE_BLOB_STORAGE_URL", server.url().into()),
        ];
        Some(Self::new(server, environment, AZURE, Some(folder)))
    }

    fn new(
        server: Server,
        environment: Vec<(&'static str, PathBuf)>,
        store: &'static str,
        folder: Option<TempDir>,
    ) -> Self {
        let mut world = World::with_vault();
        world.environment = environment;
        world.ok(&["init", store, "--kek", &world.kek(), "--identity", IDENTITY]);
        Self { server, world, store, folder }
    }
}
