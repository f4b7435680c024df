//! Clients in Python: oras-py with artifacts, python-dxf with blobs (`tests/interop/`).

use std::path::{Path, PathBuf};
use std::process::Command;

use bulla_tests::skipped;
use serde_json::{Value, json};

use crate::certificates::Authority;
use crate::node::Node;
use crate::world::{Ran, World, ran};

/// The Python that has these clients. `None`: there is none, and the test is skipped.
fn python() -> Option<PathBuf> {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/venv/bin/python");
    let python = std::env::var_os("BULLA_PYTHON").map_or(installed, PathBuf::from);
    let has = Command::new(&python).args(["-c", "import oras, dxf"]).output();
    if has.is_ok_and(|has| has.status.success()) {
        return Some(python);
    }
    skipped("no Python with `oras` and `python-dxf`; `cargo xtask test` installs one");
    None
}

fn attempt(python: &Path, world: &World, script: &str, arguments: &[&str]) -> Ran {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop").join(script);
    let mut command = Command::new(python);
    command.arg(script).args(arguments).env("HOME", world.dir.path());
    ran(command.env("REQUESTS_CA_BUNDLE", world.path("ca.pem")).output().unwrap())
}

/// What a script saw of a registry that is open, and of one that has users. That one turns a wrong password away.
fn open_and_with_password(script: &str) -> Option<[Value; 2]> {
    let python = python()?;
    let worlds = [World::with_store(), World::with_store()];
    let authority = Authority::new();
    let nodes = [Node::start(&worlds[0]), authority.node_with_users(&worlds[1])];
    for world in &worlds {
        world.write("ca.pem", authority.pem().as_bytes());
    }
    let run = |which: usize, password: &[&str]| {
        let folder = worlds[which].dir.path().display().to_string();
        attempt(&python, &worlds[which], script, &[&[nodes[which].address(), &folder][..], password].concat())
    };
    assert_ne!(run(1, &["guess"]).code, 0);
    Some([(0, &[][..]), (1, &["wonderland"])].map(|(which, password)| {
        let ran = run(which, password);
        assert_eq!(ran.code, 0, "{script}: {}", ran.stderr);
        serde_json::from_slice(&ran.stdout).unwrap()
    }))
}

#[test]
fn oras_pushes_and_pulls_artifacts() {
    let Some(saw) = open_and_with_password("oras_client.py") else { return };
    for saw in saw {
        assert_eq!(
            saw,
            json!({ "tags": ["chunked", "v1"], "left": ["v1"], "annotations": { "of": "the tests" },
                "types": ["application/vnd.example.part"] })
        );
    }
}

#[test]
fn dxf_pushes_mounts_and_names_blobs() {
    let Some(saw) = open_and_with_password("dxf_client.py") else { return };
    for saw in saw {
        assert_eq!(
            saw,
            json!({ "aliases": ["both", "one"], "both": true, "left": ["both"],
                "repositories": ["other", "team/blobs"] })
        );
    }
}
