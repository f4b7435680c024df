//! podman and buildah, each with storage, settings and passwords of its own.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bulla_tests::part;
use tempfile::TempDir;

use crate::world::{Ran, ran};

pub(crate) struct Containers {
    program: PathBuf,
    /// Whether it is to think that it is in a user's namespace.
    as_user: Cell<bool>,
    dir: TempDir,
}

impl Containers {
    /// `None`: it is not here, and the test is skipped.
    pub(crate) fn buildah() -> Option<Self> {
        part("BULLA_BUILDAH", "buildah").map(Self::new)
    }

    /// `None`: it is not here or can't work here, and the test is skipped.
    pub(crate) fn podman() -> Option<Self> {
        part("BULLA_PODMAN", "podman").filter(|_| bulla_tests::lets_engines_work()).map(Self::new)
    }

    fn new(program: PathBuf) -> Self {
        let containers = Self { program, as_user: Cell::new(true), dir: TempDir::new().unwrap() };
        fs::create_dir_all(containers.settings()).unwrap();
        fs::create_dir(containers.path("tmp")).unwrap();
        containers.set("policy.json", r#"{"default":[{"type":"insecureAcceptAnything"}]}"#);
        containers
            .set("containers.conf", "[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n");
        containers.store_in("vfs", "");
        fs::write(containers.path("auth.json"), "{}").unwrap();
        containers
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// What a command wrote to this file.
    pub(crate) fn written(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn settings(&self) -> PathBuf {
        self.dir.path().join(".config/containers")
    }

    fn set(&self, name: &str, content: &str) {
        fs::write(self.settings().join(name), content).unwrap();
    }

    /// As root, who may mount.
    pub(crate) fn as_root(&self) {
        self.as_user.set(false);
    }

    /// Images are stored by this driver, with these options of it.
    pub(crate) fn store_in(&self, driver: &str, options: &str) {
        let (root, run) = (self.path("root"), self.path("run"));
        self.set(
            "storage.conf",
            &format!(
                "[storage]\ndriver = \"{driver}\"\ngraphroot = \"{root}\"\nrootless_storage_path = \"{root}\"\n\
                 runroot = \"{run}\"\n{options}"
            ),
        );
    }

    /// Registries that are asked without TLS; and those that are asked for `docker.io`'s images.
    pub(crate) fn plain(&self, addresses: &[&str], mirrors: &[&str]) {
        let mut text = String::new();
        for address in addresses {
            text.push_str(&format!("[[registry]]\nlocation = \"{address}\"\ninsecure = true\n"));
        }
        if !mirrors.is_empty() {
            text.push_str("[[registry]]\nprefix = \"docker.io\"\nlocation = \"docker.io\"\n");
        }
        for address in mirrors {
            text.push_str(&format!("[[registry.mirror]]\nlocation = \"{address}\"\ninsecure = true\n"));
        }
        self.set("registries.conf", &text);
    }

    /// The registry's certificate is from this authority.
    pub(crate) fn trust(&self, address: &str, authority: &str) {
        let folder = self.settings().join("certs.d").join(address);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("ca.crt"), authority).unwrap();
    }

    /// Runs it, whatever comes of it.
    pub(crate) fn attempt(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .current_dir(self.dir.path())
            .env("HOME", self.dir.path())
            .env("XDG_RUNTIME_DIR", self.dir.path())
            .env("TMPDIR", self.path("tmp"))
            .env("CONTAINERS_CONF", self.settings().join("containers.conf"))
            .env("CONTAINERS_STORAGE_CONF", self.settings().join("storage.conf"))
            .env("REGISTRY_AUTH_FILE", self.path("auth.json"))
            .env("BUILDAH_ISOLATION", "chroot");
        if self.as_user.get() {
            // A plain container lets nobody make one; and what root has in `/var/lib/containers` is left alone.
            command.env("_CONTAINERS_USERNS_CONFIGURED", "done").env("_CONTAINERS_ROOTLESS_UID", "1");
        }
        ran(command.output().unwrap())
    }

    /// Runs it, which must succeed; what it printed.
    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        let ran = self.attempt(arguments);
        let name = self.program.file_name().unwrap().display();
        assert_eq!(ran.code, 0, "{name} {}: {}", arguments.join(" "), ran.stderr);
        ran.text().trim().to_owned()
    }

    /// Builds an image: these files, in `/data`, upon the image `from`.
    #[track_caller]
    pub(crate) fn build(&self, from: &str, files: &[(&str, &[u8])], name: &str, more: &[&str]) {
        let context = self.dir.path().join("context");
        let _ = fs::remove_dir_all(&context);
        fs::create_dir_all(context.join("data")).unwrap();
        for (file, content) in files {
            fs::write(context.join("data").join(file), content).unwrap();
        }
        fs::write(context.join("Containerfile"), format!("FROM {from}\nCOPY data /data\n")).unwrap();
        self.run(&[&["build", "-q", "-t", name], more, &["context"]].concat());
    }
}

/// The content of a file of a mounted image.
pub(crate) fn file(mounted: &str, name: &str) -> Vec<u8> {
    fs::read(Path::new(mounted).join("data").join(name)).unwrap()
}
