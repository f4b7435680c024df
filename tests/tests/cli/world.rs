//! A machine of its own for each test: folders, configuration, passphrase; and the built command.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::SystemTime;

use serde_json::Value;
use tempfile::TempDir;

/// As whom the stores of the tests use their key.
pub(crate) const IDENTITY: &str = "web";

pub(crate) struct World {
    pub(crate) dir: TempDir,
    /// Another machine has another configuration.
    pub(crate) config: PathBuf,
    /// What else is in the environment of commands.
    pub(crate) environment: Vec<(&'static str, OsString)>,
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let config = dir.path().join("config");
        Self { dir, config, environment: Vec::new() }
    }

    /// With a vault, a key `k` in it and a policy for [`IDENTITY`].
    pub(crate) fn with_vault() -> Self {
        let world = Self::new();
        world.ok(&["vault", "create", &world.path("vault")]);
        world.new_version("k");
        world.allow();
        world
    }

    /// With a vault, and a store under its key.
    pub(crate) fn with_store() -> Self {
        let world = Self::with_vault();
        world.ok(&["init", &world.store(), "--kek", &world.kek(), "--identity", IDENTITY]);
        world
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    pub(crate) fn store(&self) -> String {
        self.path("store")
    }

    pub(crate) fn kek(&self) -> String {
        format!("vault+file://{}/keys/k", self.path("vault"))
    }

    pub(crate) fn new_version(&self, name: &str) -> String {
        let key = self.json(&["vault", "key", "create", &self.path("vault"), "--name", name, "--kty", "AES"]);
        key["key"]["kid"].as_str().unwrap().to_owned()
    }

    pub(crate) fn allow(&self) {
        let vault = self.path("vault");
        self.ok(&[
            "vault",
            "set-policy",
            &vault,
            "--identity",
            IDENTITY,
            "--key-permissions",
            "get",
            "wrapKey",
            "unwrapKey",
        ]);
    }

    pub(crate) fn deny(&self) {
        self.ok(&["vault", "delete-policy", &self.path("vault"), "--identity", IDENTITY]);
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> String {
        fs::write(self.dir.path().join(name), bytes).unwrap();
        self.path(name)
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.dir.path().join(name)).unwrap()
    }

    /// Puts bytes; their digest.
    pub(crate) fn put(&self, bytes: &[u8]) -> String {
        let file = self.write("to-put", bytes);
        self.ok(&["put", &self.store(), &file]).text().trim().to_owned()
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        for name in ["BULLA_STORE", "BULLA_VAULT_PASSPHRASE_FILE", "RUST_LOG", "XDG_CONFIG_HOME"] {
            command.env_remove(name);
        }
        command
            .args(arguments)
            .env("BULLA_CONFIG_DIR", &self.config)
            .env("BULLA_VAULT_PASSPHRASE", "open sesame")
            .envs(self.environment.iter().cloned())
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        ran(self.command(arguments).output().unwrap())
    }

    /// Runs what must succeed, without a word on stderr.
    pub(crate) fn ok(&self, arguments: &[&str]) -> Ran {
        let ran = self.run(arguments);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "bulla {}", arguments.join(" "));
        ran
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let ran = self.ok(&[arguments, &["--json"]].concat());
        serde_json::from_slice(&ran.stdout).unwrap()
    }

    /// Runs what must fail with this code, one line on stderr and nothing on stdout; the line.
    pub(crate) fn fails(&self, code: i32, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        let what = format!("bulla {}: {ran:?}", arguments.join(" "));
        assert_eq!(ran.code, code, "{what}");
        assert_eq!(ran.stdout, b"", "{what}");
        assert!(ran.stderr.starts_with("error: ") && ran.stderr.lines().count() == 1, "{what}");
        ran.stderr
    }
}

impl Ran {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }
}

pub(crate) fn ran(output: Output) -> Ran {
    use std::os::unix::process::ExitStatusExt;
    Ran {
        // As a shell has it.
        code: output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0)),
        stdout: output.stdout,
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Every file below a folder, sorted.
pub(crate) fn files(folder: impl AsRef<Path>) -> Vec<PathBuf> {
    let Ok(names) = fs::read_dir(folder) else { return Vec::new() };
    let mut found: Vec<PathBuf> = names
        .flat_map(|name| {
            let path = name.unwrap().path();
            if path.is_dir() { files(&path) } else { vec![path] }
        })
        .collect();
    found.sort();
    found
}

/// Copies a folder with all that is in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(&file, &target).unwrap();
    }
}

/// The command, of the same profile as this test. `cargo test --workspace` has built it; where only this package's tests are
/// run it may be missing or old, and is built here.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let profile = test.parent().and_then(Path::parent).unwrap();
        let binary = profile.join(format!("bulla{}", std::env::consts::EXE_SUFFIX));
        let built = fs::metadata(&binary).and_then(|meta| meta.modified()).ok();
        if built.is_none_or(|built| built < newest_source()) {
            let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            build.args(["build", "--quiet", "--package", "bulla-cli", "--bin", "bulla"]);
            if profile.file_name() == Some(OsStr::new("release")) {
                build.arg("--release");
            }
            build.arg("--target-dir").arg(profile.parent().unwrap());
            assert!(build.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap().success());
        }
        binary
    })
}

fn newest_source() -> SystemTime {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates");
    let sources =
        ["bulla", "cli", "envelope", "kek", "kek-azure", "listener", "registry", "vault", "vault-server"]
            .iter()
            .flat_map(|name| files(crates.join(name).join("src")));
    sources.map(|file| fs::metadata(file).unwrap().modified().unwrap()).max().unwrap()
}
