//! Content trust beside a key of the customer's: what a publisher signed is found where it was pushed, and verifies.

use std::path::{Path, PathBuf};
use std::process::Command;

use bulla_tests::skipped;
use serde_json::{Value, json};

use crate::images::Tools;
use crate::node::Node;
use crate::world::{Ran, World, ran};

/// A signer and verifier that knows nothing of Bulla (`tests/interop/trust.py`).
struct Signer(PathBuf);

impl Signer {
    fn find() -> Option<Self> {
        let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/venv/bin/python");
        let python = std::env::var_os("BULLA_PYTHON").map_or(installed, PathBuf::from);
        let has = Command::new(&python).args(["-c", "import cryptography"]).output();
        if has.is_ok_and(|has| has.status.success()) {
            return Some(Self(python));
        }
        skipped("no Python with `cryptography`; `cargo xtask test` installs one");
        None
    }

    fn try_run(&self, arguments: &[&str]) -> Ran {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/trust.py");
        ran(Command::new(&self.0).arg(script).args(arguments).output().unwrap())
    }

    fn run(&self, arguments: &[&str]) -> String {
        let ran = self.try_run(arguments);
        assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.stderr);
        ran.text().to_owned()
    }
}

#[test]
fn what_was_signed_verifies_after_a_pull_and_nothing_else_does() {
    let (Some(tools), Some(signer)) = (Tools::find(), Signer::find()) else { return };
    let world = World::with_store();
    let node = Node::start(&world);
    let (key, public) = (tools.path("publisher.key"), tools.path("publisher.pub"));
    signer.run(&["keys", &key, &public]);

    tools.make("made", "v1", 2, 200_000, 20);
    tools.copy(&[], "oci:made:v1", &node.image("app:v1"));
    let digest = tools.digest("made", "v1");
    signer.run(&["sign", node.address(), "app", &digest, &key]);

    // Somebody else pulls, from another node, and asks about what was pulled.
    let other = Node::start(&world);
    tools.copy(&[], &other.image("app:v1"), "oci:pulled:v1");
    let pulled = tools.digest("pulled", "v1");
    let verified = signer.run(&["verify", other.address(), "app", &pulled, &public]);
    let verified: Value = serde_json::from_str(&verified).unwrap();
    assert_eq!(verified, json!({ "signatures": 1, "attestations": 1 }));

    for how in ["altered-signature", "altered-attestation", "another-image", "stranger"] {
        let name = format!("forged/{how}");
        tools.copy(&[], "oci:made:v1", &node.image(&format!("{name}:v1")));
        // Signatures of one repository are not another's.
        let none = signer.try_run(&["verify", node.address(), &name, &digest, &public]);
        assert!(none.stderr.contains("nothing to verify"), "{}", none.stderr);
        signer.run(&["forge", node.address(), &name, &digest, &key, how]);
        let forged = signer.try_run(&["verify", node.address(), &name, &digest, &public]);
        assert!(forged.code != 0 && forged.stderr.contains("refused: "), "{how}: {}", forged.stderr);
        assert!(!forged.stderr.contains("nothing to verify"), "{how}: {}", forged.stderr);
    }
    // And what was signed is still good.
    signer.run(&["verify", node.address(), "app", &digest, &public]);
}
