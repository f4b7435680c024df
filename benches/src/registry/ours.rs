//! Our registry, over a new store in a folder: this program again, as a server.

use std::env;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bulla_registry::access::{Access, Open};
use bulla_registry::server::{Server as Listening, ServerOptions};
use bulla_registry::{Registry, RegistryOptions, http};

use super::Server;
use crate::world::{Place, World};

/// Set for the server's process.
const ASKED: &str = "BULLA_BENCH_SERVE";

/// Starts it on a port of its own. Its store is in the folder for temporary files, as `folder` is.
pub(super) fn start(folder: &Path) -> Server {
    let program = env::current_exe().expect("a program has a path");
    let mut process = Command::new(program)
        .env(ASKED, "1")
        .env("TMPDIR", folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program starts again");
    let mut line = String::new();
    let stdout = process.stdout.as_mut().expect("it was asked for");
    BufReader::new(stdout).read_line(&mut line).expect("it says where it is");
    Server { process, address: line.trim().to_owned() }
}

/// In a process that is to be the server: serves for ever. Otherwise returns.
pub fn serve_if_asked() {
    if env::var_os(ASKED).is_none() {
        return;
    }
    let world = World::with(Place::Folder, Duration::from_secs(60));
    // What `bulla serve` runs on.
    let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads can start");
    tokio.block_on(async {
        let access: Arc<dyn Access> = Arc::new(Open);
        let mut options = ServerOptions::default();
        options.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let server = Listening::bind(&*access, options).await.expect("loopback has free ports");
        let registry = Registry::new(world.store.clone(), RegistryOptions::default());
        server.service().open(world.store.clone(), http::router(registry, access));
        println!("{}", server.address());
        std::io::stdout().flush().expect("who asked listens");
        server.serve(std::future::pending()).await;
    });
}
