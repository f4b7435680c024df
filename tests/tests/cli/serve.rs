//! `bulla vault serve`, as Azure's SDK for Python and operators meet it.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use bulla_tests::skipped;
use reqwest::{Certificate, Client};
use serde_json::{Value, json};

use crate::world::World;

/// A running server, killed on drop.
pub(crate) struct Served {
    process: Child,
    /// What it printed when it was ready.
    pub(crate) info: Value,
}

impl Served {
    /// On ports of its own.
    pub(crate) fn start(world: &World, vault: &str, more: &[&str]) -> Self {
        let folder = world.path(vault);
        let ports = ["--listen", "127.0.0.1:0", "--identity-listen", "127.0.0.1:0"];
        let arguments = [&["vault", "serve", &folder], &ports[..], more, &["--json"]].concat();
        let mut command = world.command(&arguments);
        let mut process = command
            .env_remove("IDENTITY_HEADER")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let info = serde_json::from_str(&line).unwrap_or_else(|_| {
            let mut stderr = String::new();
            process.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
            panic!("it did not start: {line}{stderr}")
        });
        Self { process, info }
    }

    pub(crate) fn text(&self, field: &str) -> &str {
        self.info[field].as_str().unwrap()
    }

    fn settings(&self, world: &World, vault: &str) -> Value {
        let mut settings = self.info.clone();
        settings["folder"] = json!(world.path(vault));
        settings
    }

    fn signal(&self, name: &str) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A Python with Azure's SDK: `$BULLA_PYTHON`, or the one that `cargo xtask test` installs.
fn python() -> Option<PathBuf> {
    let python = match std::env::var_os("BULLA_PYTHON") {
        Some(python) => PathBuf::from(python),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/venv/bin/python"),
    };
    let import = ["-c", "import azure.identity, azure.keyvault.keys"];
    match Command::new(&python).args(import).output() {
        Ok(output) if output.status.success() => return Some(python),
        Ok(_) => skipped(&format!("{} has no azure-identity or no azure-keyvault-keys", python.display())),
        Err(error) => {
            skipped(&format!("no Python at {}: {error}; `cargo xtask test` installs it", python.display()))
        }
    }
    None
}

/// Status and body. Nothing but the server's certificate is trusted.
fn get(served: &Served, path: &str, token: Option<&str>) -> (u16, String) {
    // Installed by whichever test is first.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let certificate = Certificate::from_pem(&fs::read(served.text("certificate")).unwrap()).unwrap();
        let client = Client::builder().tls_certs_only([certificate]).no_proxy().build().unwrap();
        let mut request = client.get(format!("{}{path}", served.text("url")));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    })
}

fn bearer(world: &World, identity: &str) -> String {
    let token = world.ok(&["vault", "token", &world.path("vault"), "--identity", identity]);
    token.text().trim().to_owned()
}

#[test]
fn azures_sdk_for_python_works_unmodified() {
    let Some(python) = python() else { return };
    let world = World::new();
    let all = |vault: &str, identity: &str| {
        let vault = world.path(vault);
        world.ok(&["vault", "set-policy", &vault, "--identity", identity, "--key-permissions", "all"]);
    };
    world.ok(&["vault", "create", &world.path("vault")]);
    world.ok(&["vault", "create", &world.path("scratch"), "--no-purge-protection"]);
    all("vault", "registry");
    all("vault", "system");
    all("scratch", "registry");
    all("scratch", "system");

    let protected = Served::start(&world, "vault", &[]);
    let unprotected = Served::start(&world, "scratch", &["--identity", "registry"]);
    // Two servers over one folder.
    let throttled = Served::start(&world, "vault", &["--throttle", "3/1s", "--retry-after"]);
    let binary = world.command(&[]).get_program().to_owned().into_string().unwrap();
    let settings = json!({
        "bulla": binary,
        "protected": protected.settings(&world, "vault"),
        "unprotected": unprotected.settings(&world, "scratch"),
        "throttled": throttled.settings(&world, "vault"),
    });
    let settings = world.write("settings.json", &serde_json::to_vec(&settings).unwrap());

    let identity = &protected.info["identity"];
    // The environment of the command's tests, so that the script can call the command too.
    let mut script = world.command(&[]);
    let environment: Vec<_> =
        script.get_envs().map(|(name, value)| (name.to_owned(), value.map(ToOwned::to_owned))).collect();
    script = Command::new(python);
    for (name, value) in environment {
        match value {
            Some(value) => script.env(name, value),
            None => script.env_remove(name),
        };
    }
    // `-B`: no compiled copies in the source tree.
    script
        .arg("-B")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/azure_keyvault.py"))
        .arg(settings);
    script.env("IDENTITY_ENDPOINT", identity["endpoint"].as_str().unwrap());
    script.env("IDENTITY_HEADER", identity["header"].as_str().unwrap());
    script.env("NO_PROXY", "*");
    let output = script.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(said.lines().count(), 13, "{said}");

    let log = fs::read_to_string(protected.text("auditLog")).unwrap();
    for line in log.lines() {
        let entry: Value = serde_json::from_str(line).unwrap();
        assert!(entry["operation"].is_string() && entry["outcome"].is_string(), "{line}");
    }
    for (operation, outcome) in [
        ("wrapKey", "Success"),
        ("unwrapKey", "KeyDisabled"),
        ("wrapKey", "KeyExpired"),
        ("get", "ForbiddenByPolicy"),
        ("get", "ForbiddenByFirewall"),
        ("get", "Throttled"),
        ("purge", "PurgeProtectionEnabled"),
        ("token", "Success"),
    ] {
        let seen = log.lines().any(|line| {
            line.contains(&format!(r#""operation":"{operation}""#))
                && line.contains(&format!(r#""outcome":"{outcome}""#))
        });
        assert!(seen, "{operation} {outcome}");
    }
    // What was wrapped, and tokens, are not in it.
    assert!(!log.contains("eyJ0eXAi") && !log.contains("AAECAwQFBgcICQoLDA0ODw"), "a secret");
}

#[test]
fn a_server_says_where_it_is_and_ends_when_told_to() {
    let world = World::with_vault();
    for signal in ["TERM", "INT"] {
        let mut served = Served::start(&world, "vault", &[]);
        let allowed = bearer(&world, crate::world::IDENTITY);
        let (status, body) = get(&served, "/keys/k?api-version=7.4", Some(&allowed));
        assert_eq!(status, 200, "{body}");
        assert!(body.contains(&format!("{}/keys/k/", served.text("url"))), "{body}");
        let (status, body) = get(&served, "/keys/k?api-version=7.4", None);
        assert_eq!(status, 401, "{body}");
        served.signal(signal);
        assert_eq!(served.process.wait().unwrap().code(), Some(0), "{signal}");
        let mut said = String::new();
        served.process.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(said, "", "{signal}");
    }
}

#[test]
fn a_policy_that_is_deleted_ends_a_tokens_use_at_the_next_request() {
    let world = World::with_vault();
    let served = Served::start(&world, "vault", &[]);
    let token = bearer(&world, crate::world::IDENTITY);
    let ask = || get(&served, "/keys/k?api-version=7.4", Some(&token));
    assert_eq!(ask().0, 200);
    world.deny();
    let (status, body) = ask();
    assert_eq!(status, 403, "{body}");
    assert!(body.contains("ForbiddenByPolicy"), "{body}");
    world.allow();
    assert_eq!(ask().0, 200);
}

#[test]
fn what_can_not_be_served_says_why() {
    let world = World::with_vault();
    let vault = world.path("vault");
    let nowhere = world.path("nowhere");
    world.fails(3, &["vault", "serve", &nowhere]);
    let served = Served::start(&world, "vault", &[]);
    let taken = served.text("url").strip_prefix("https://").unwrap().to_owned();
    assert!(
        world.fails(5, &["vault", "serve", &vault, "--listen", &taken]).contains("choose another address")
    );
    let line = world
        .fails(2, &["vault", "serve", &vault, "--listen", "127.0.0.1:0", "--identity-listen", "0.0.0.0:0"]);
    assert!(line.contains("loopback"), "{line}");
    let file = world.write("not.pem", b"no certificate");
    let line = world.fails(
        2,
        &["vault", "serve", &vault, "--listen", "127.0.0.1:0", "--tls-cert", &file, "--tls-key", &file],
    );
    assert!(line.contains("not.pem"), "{line}");
    world.fails(2, &["vault", "serve", &vault, "--tls-cert", &file]);
    world.fails(2, &["vault", "serve", &vault, "--throttle", "many"]);
    world.fails(2, &["vault", "token", &vault, "--identity", "registry", "--ttl", "1y"]);
    world.fails(2, &["vault", "network-rule", &vault, "--default-action", "deny", "--allow", "10.0.0.0/40"]);
    let mut wrong = world.command(&["vault", "serve", &vault, "--listen", "127.0.0.1:0"]);
    let output = wrong.env("BULLA_VAULT_PASSPHRASE", "wrong").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("BULLA_VAULT_PASSPHRASE"));
}

#[test]
fn network_rules_are_shown_replaced_and_cleared() {
    let world = World::with_vault();
    let vault = world.path("vault");
    let rule = |more: &[&str]| {
        world.json(&[&["vault", "network-rule", &vault], more].concat())["networkRules"].clone()
    };
    let open = json!({ "defaultAction": "allow", "allow": [], "bypass": "trusted-services" });
    assert_eq!(rule(&[]), open);
    let denied =
        rule(&["--default-action", "deny", "--allow", "10.1.2.3/8", "192.0.2.7", "--bypass", "none"]);
    assert_eq!(
        denied,
        json!({ "defaultAction": "deny", "allow": ["10.0.0.0/8", "192.0.2.7/32"], "bypass": "none" })
    );
    assert_eq!(rule(&[]), denied);
    let more = rule(&["--add", "192.0.2.7", "198.51.100.0/24"]);
    assert_eq!(
        more,
        json!({ "defaultAction": "deny", "allow": ["10.0.0.0/8", "192.0.2.7/32", "198.51.100.0/24"], "bypass": "none" })
    );
    let replaced = rule(&["--default-action", "deny"]);
    assert_eq!(replaced, json!({ "defaultAction": "deny", "allow": [], "bypass": "trusted-services" }));
    // The folder itself crosses no network.
    world.ok(&["init", &world.store(), "--kek", &world.kek(), "--identity", crate::world::IDENTITY]);
    assert_eq!(rule(&["--clear"]), open);
}
