//! The OCI Distribution Specification's own conformance suites, run against `bulla serve`.
//!
//! They are in Go, in `conformance/` of the specification's repository: up to 1.1 tests for `go test`, since then a
//! program of their own. Neither the sources nor Go are fetched here, so this is no part of CI.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::sh::{self, Outcome};

/// What `go` is asked for, and the file that shows that it was done.
struct Suite {
    go: &'static str,
    report: &'static str,
    environment: Vec<(&'static str, String)>,
}

/// `cargo xtask conformance DIR`. Reports are left in `target/conformance/`.
pub(crate) fn run(checkout: &Path) -> Outcome {
    let tests = checkout.join("conformance");
    if !tests.join("go.mod").is_file() {
        return Err(format!("{} is not a checkout of the distribution specification", checkout.display()));
    }
    if !sh::succeeds(&mut sh::command("go version")) {
        return Err("the suites are Go programs: install Go, and put it on PATH".into());
    }
    let folder = sh::root().join("target/conformance");
    let _ = fs::remove_dir_all(&folder);
    let reports = folder.join("reports");
    fs::create_dir_all(&reports).map_err(|error| format!("cannot create {}: {error}", reports.display()))?;
    let server = Server::start(folder.join("registry"))?;
    let suite = suite(&tests, &server.address, &reports);
    sh::run(sh::command(suite.go).envs(suite.environment).current_dir(&tests))?;
    // One that can't read its configuration ends with success.
    let report = reports.join(suite.report);
    if !report.is_file() {
        return Err(format!("the suite ended without a report, {}", report.display()));
    }
    println!("reports: {}", reports.display());
    Ok(())
}

/// Every workflow, with all that is optional and that we have.
fn suite(tests: &Path, address: &str, reports: &Path) -> Suite {
    let reports = reports.display().to_string();
    if tests.join("main.go").is_file() {
        let environment = [
            ("OCI_VERSION", "dev"),
            ("OCI_REGISTRY", address),
            ("OCI_TLS", "disabled"),
            ("OCI_RESULTS_DIR", &reports),
        ];
        return Suite { go: "go run .", report: "results.yaml", environment: owned(&environment) };
    }
    let url = format!("http://{address}");
    let environment = [
        ("OCI_ROOT_URL", url.as_str()),
        ("OCI_NAMESPACE", "conformance/repo1"),
        ("OCI_CROSSMOUNT_NAMESPACE", "conformance/repo2"),
        // A blob is mounted without being told from where.
        ("OCI_AUTOMATIC_CROSSMOUNT", "1"),
        ("OCI_TEST_PULL", "1"),
        ("OCI_TEST_PUSH", "1"),
        ("OCI_TEST_CONTENT_DISCOVERY", "1"),
        ("OCI_TEST_CONTENT_MANAGEMENT", "1"),
        ("OCI_HIDE_SKIPPED_WORKFLOWS", "0"),
        ("OCI_REPORT_DIR", &reports),
    ];
    Suite { go: "go test -count=1 -v .", report: "junit.xml", environment: owned(&environment) }
}

fn owned(environment: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    environment.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
}

/// A registry over a store with a vault of its own. All of it is gone when it is dropped.
struct Server {
    /// Host and port.
    address: String,
    folder: PathBuf,
    process: Child,
    /// Kept open: a command that nobody reads ends.
    printed: BufReader<ChildStdout>,
}

impl Server {
    fn start(folder: PathBuf) -> Outcome<Self> {
        sh::run(&mut sh::command("cargo build --locked -p bulla-cli"))?;
        let cannot = |error| format!("cannot start the registry: {error}");
        fs::create_dir_all(&folder).map_err(cannot)?;
        let bulla = |line: &str| {
            let mut command = Command::new(sh::root().join("target/debug/bulla"));
            command.args(line.split(' ')).current_dir(&folder).env("BULLA_VAULT_PASSPHRASE", "conformance");
            command
        };
        sh::run(&mut bulla("vault create vault"))?;
        sh::run(&mut bulla("vault key create vault --name registry"))?;
        let rights = "get wrapKey unwrapKey";
        sh::run(&mut bulla(&format!(
            "vault set-policy vault --identity registry --key-permissions {rights}"
        )))?;
        let key = format!("vault+file://{}/vault/keys/registry", folder.display());
        sh::run(bulla("init store --identity registry --kek").arg(key))?;
        let mut serve = bulla("serve store --listen 127.0.0.1:0");
        let mut process = serve.stdout(Stdio::piped()).spawn().map_err(cannot)?;
        let printed = process.stdout.take().ok_or("the registry prints nothing")?;
        let mut server = Self { address: String::new(), folder, process, printed: BufReader::new(printed) };
        let mut line = String::new();
        server.printed.read_line(&mut line).map_err(cannot)?;
        let (_, address) =
            line.trim_end().split_once("http://").ok_or("the registry does not say where it serves")?;
        address.clone_into(&mut server.address);
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}
