//! Images made on the spot, and the programs that make, push and pull them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bulla::{Algorithm, Digest};
use bulla_tests::part;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::world::{Ran, files, ran};

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// skopeo and umoci, with a home of their own.
pub(crate) struct Tools {
    skopeo: PathBuf,
    umoci: PathBuf,
    pub(crate) dir: TempDir,
}

/// Bytes that no compression makes shorter, and that no other seed gives.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    Digest::of(Algorithm::Sha256, bytes).to_string()
}

impl Tools {
    /// `None`: they are not here, and the test is skipped.
    pub(crate) fn find() -> Option<Self> {
        let (skopeo, umoci) = (part("BULLA_SKOPEO", "skopeo")?, part("BULLA_UMOCI", "umoci")?);
        let dir = TempDir::new().unwrap();
        // Tests trust what they made, whatever this machine's administrator says.
        fs::write(dir.path().join("policy.json"), r#"{"default":[{"type":"insecureAcceptAnything"}]}"#)
            .unwrap();
        Some(Self { skopeo, umoci, dir })
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn run(&self, command: &mut Command) -> Ran {
        command
            .current_dir(self.dir.path())
            .env("HOME", self.dir.path())
            .env("XDG_RUNTIME_DIR", self.dir.path())
            .env("REGISTRY_AUTH_FILE", self.dir.path().join("auth.json"));
        ran(command.output().unwrap())
    }

    /// Runs skopeo, whatever comes of it.
    pub(crate) fn try_skopeo(&self, arguments: &[&str]) -> Ran {
        let policy = self.path("policy.json");
        self.run(Command::new(&self.skopeo).args(["--policy", &policy]).args(arguments))
    }

    /// Runs skopeo, which must succeed; what it printed.
    #[track_caller]
    pub(crate) fn skopeo(&self, arguments: &[&str]) -> String {
        let ran = self.try_skopeo(arguments);
        assert_eq!(ran.code, 0, "skopeo {}: {}", arguments.join(" "), ran.stderr);
        ran.text().to_owned()
    }

    /// Copies without TLS on either side.
    #[track_caller]
    pub(crate) fn copy(&self, more: &[&str], from: &str, to: &str) {
        let plain = ["copy", "--src-tls-verify=false", "--dest-tls-verify=false"];
        self.skopeo(&[&plain, more, &[from, to]].concat());
    }

    fn umoci(&self, arguments: &[&str]) {
        let ran = self.run(Command::new(&self.umoci).args(arguments));
        assert_eq!(ran.code, 0, "umoci {}: {}", arguments.join(" "), ran.stderr);
    }

    /// Makes an image of so many layers of so many bytes in the layout `layout`.
    pub(crate) fn make(&self, layout: &str, tag: &str, layers: usize, len: usize, seed: u64) {
        if !self.dir.path().join(layout).exists() {
            self.umoci(&["init", "--layout", layout]);
        }
        let image = format!("{layout}:{tag}");
        self.umoci(&["new", "--image", &image]);
        for layer in 0..layers {
            let file = self.dir.path().join("content");
            fs::write(&file, noise(len, seed * 1000 + layer as u64)).unwrap();
            let path = format!("/data/{seed}-{layer}");
            self.umoci(&["insert", "--rootless", "--image", &image, "content", &path]);
        }
    }

    /// Makes two images in the layout `images`, `one` and `two`, and an index of them, `both`.
    pub(crate) fn make_both(&self) {
        for (tag, seed) in [("one", 1), ("two", 2)] {
            self.make("images", tag, 2, 400_000, seed);
        }
        self.index("images", "both", &["one", "two"]);
    }

    /// The files of an image, as a runtime unpacks it.
    pub(crate) fn unpack(&self, layout: &str, tag: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        let bundle = format!("{layout}-{tag}-bundle");
        self.umoci(&["unpack", "--rootless", "--image", &format!("{layout}:{tag}"), &bundle]);
        let root = self.dir.path().join(bundle).join("rootfs");
        let all = files(&root);
        all.into_iter()
            .map(|file| (file.strip_prefix(&root).unwrap().to_owned(), fs::read(&file).unwrap()))
            .collect()
    }

    /// The digest of an image in a layout.
    pub(crate) fn digest(&self, layout: &str, tag: &str) -> String {
        let index: Value = json_file(&self.dir.path().join(layout).join("index.json"));
        let named = |entry: &&Value| entry["annotations"]["org.opencontainers.image.ref.name"] == tag;
        let entry = index["manifests"].as_array().unwrap().iter().find(named).unwrap();
        entry["digest"].as_str().unwrap().to_owned()
    }

    /// Makes an index of images of a layout, and tags it there.
    pub(crate) fn index(&self, layout: &str, tag: &str, of: &[&str]) {
        let folder = self.dir.path().join(layout);
        let mut index = json_file(&folder.join("index.json"));
        let machines = ["amd64", "arm64", "s390x", "riscv64"];
        let entries: Vec<Value> = of
            .iter()
            .zip(machines)
            .map(|(tag, machine)| {
                let digest = self.digest(layout, tag);
                let size = fs::metadata(blob(&folder, &digest)).unwrap().len();
                json!({"mediaType": OCI_MANIFEST, "digest": digest, "size": size,
                    "platform": {"architecture": machine, "os": "linux"}})
            })
            .collect();
        let bytes = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).to_string();
        let digest = sha256(bytes.as_bytes());
        fs::write(blob(&folder, &digest), &bytes).unwrap();
        index["manifests"].as_array_mut().unwrap().push(json!({
            "mediaType": OCI_INDEX, "digest": digest, "size": bytes.len(),
            "annotations": {"org.opencontainers.image.ref.name": tag},
        }));
        fs::write(folder.join("index.json"), index.to_string()).unwrap();
    }

    /// Makes an image of a layout one that is about another, as signatures are.
    pub(crate) fn make_about(&self, layout: &str, tag: &str, subject: &str) {
        let subject = self.digest(layout, subject);
        let size = fs::metadata(blob(&self.dir.path().join(layout), &subject)).unwrap().len();
        self.remake(layout, tag, |manifest| {
            manifest["subject"] = json!({"mediaType": OCI_MANIFEST, "digest": subject, "size": size});
            manifest["annotations"] = json!({"about": "another"});
        });
    }

    /// Gives an image of a layout one more layer, which is not in the layout.
    pub(crate) fn make_partly_elsewhere(&self, layout: &str, tag: &str) {
        self.remake(layout, tag, |manifest| {
            manifest["layers"].as_array_mut().unwrap().push(json!({
                "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
                "digest": sha256(b"elsewhere"), "size": 9, "urls": ["https://elsewhere.example/layer"],
            }));
        });
    }

    fn remake(&self, layout: &str, tag: &str, change: impl FnOnce(&mut Value)) {
        let folder = self.dir.path().join(layout);
        let before = self.digest(layout, tag);
        let mut manifest = json_file(&blob(&folder, &before));
        change(&mut manifest);
        let bytes = manifest.to_string();
        let digest = sha256(bytes.as_bytes());
        fs::write(blob(&folder, &digest), &bytes).unwrap();
        let mut index = json_file(&folder.join("index.json"));
        for entry in index["manifests"].as_array_mut().unwrap() {
            if entry["digest"] == *before {
                (entry["digest"], entry["size"]) = (json!(digest), json!(bytes.len()));
            }
        }
        fs::write(folder.join("index.json"), index.to_string()).unwrap();
    }

    /// The names of a layout's blobs, each of which is what its name says.
    pub(crate) fn blobs(&self, layout: &str) -> Vec<String> {
        let all = files(self.dir.path().join(layout).join("blobs/sha256"));
        let name = |file: &PathBuf| {
            let name = format!("sha256:{}", file.file_name().unwrap().to_str().unwrap());
            assert_eq!(sha256(&fs::read(file).unwrap()), name);
            name
        };
        all.iter().map(name).collect()
    }
}

fn blob(layout: &Path, digest: &str) -> PathBuf {
    layout.join("blobs").join(digest.replace(':', "/"))
}

fn json_file(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}
