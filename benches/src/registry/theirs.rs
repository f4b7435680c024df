//! CNCF Distribution's registry with its file system driver, as a distribution packages it.

use std::env;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::Server;

const NAME: &str = "docker-registry";

/// `$BULLA_DOCKER_REGISTRY`, or the one on PATH.
pub(super) fn find() -> Option<PathBuf> {
    if let Some(path) = env::var_os("BULLA_DOCKER_REGISTRY") {
        return Some(path.into());
    }
    let paths = env::var_os("PATH")?;
    env::split_paths(&paths).map(|folder| folder.join(NAME)).find(|path| path.is_file())
}

pub(super) fn start(program: &Path, folder: &Path) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    let address = listener.local_addr().expect("it is bound").to_string();
    drop(listener);
    let configuration = folder.join("config.yml");
    let root = folder.join("registry");
    let text = format!(
        "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: {}\n  \
         maintenance:\n    uploadpurging:\n      enabled: false\nhttp:\n  addr: {address}\n",
        root.display()
    );
    fs::write(&configuration, text).expect("the temporary folder is writable");
    let process = Command::new(program)
        .arg("serve")
        .arg(&configuration)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let server = Server { process, address };
    let give_up = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(&server.address).is_err() {
        assert!(Instant::now() < give_up, "docker-registry does not listen");
        thread::sleep(Duration::from_millis(20));
    }
    server
}
