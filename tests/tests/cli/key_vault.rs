//! Stores under a key in a key vault: `bulla vault serve` in Azure's place, real managed identities, and whatever can be
//! wrong with them.

use std::fs;

use serde_json::Value;

use crate::serve::Served;
use crate::world::{IDENTITY, Ran, World, ran};

/// A served vault with a key `k`, and a machine that may ask it.
pub(crate) struct KeyVault {
    pub(crate) world: World,
    served: Served,
    environment: Vec<(&'static str, String)>,
}

impl KeyVault {
    pub(crate) fn new() -> Self {
        let world = World::new();
        world.ok(&["vault", "create", &world.path("vault")]);
        let keyvault = Self::serving(world, &["--identity", &format!("system,{IDENTITY},web-2")]);
        keyvault.new_version("k", "RSA");
        keyvault.world.allow();
        keyvault
    }

    fn serving(world: World, more: &[&str]) -> Self {
        let served = Served::start(&world, "vault", more);
        let host = served.text("url").strip_prefix("https://").unwrap().to_owned();
        let environment = vec![
            ("BULLA_KEYVAULT_HOSTS", host),
            ("BULLA_KEYVAULT_CA_FILE", served.text("certificate").to_owned()),
            ("IDENTITY_ENDPOINT", served.info["identity"]["endpoint"].as_str().unwrap().to_owned()),
            ("IDENTITY_HEADER", served.info["identity"]["header"].as_str().unwrap().to_owned()),
        ];
        Self { world, served, environment }
    }

    pub(crate) fn new_version(&self, name: &str, kty: &str) -> String {
        let vault = self.world.path("vault");
        let key = self.world.json(&["vault", "key", "create", &vault, "--name", name, "--kty", kty]);
        key["key"]["kid"].as_str().unwrap().rsplit('/').next().unwrap().to_owned()
    }

    pub(crate) fn kek(&self, name: &str) -> String {
        format!("{}/keys/{name}", self.served.text("url"))
    }

    pub(crate) fn run_with(&self, arguments: &[&str], change: &[(&str, Option<&str>)]) -> Ran {
        let mut command = self.world.command(arguments);
        for name in
            ["AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE", "BULLA_AZURE_CREDENTIAL"]
        {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().map(|(name, value)| (*name, value)));
        for (name, value) in change {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        ran(command.output().unwrap())
    }

    pub(crate) fn ok(&self, arguments: &[&str]) -> Ran {
        let ran = self.run_with(arguments, &[]);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "bulla {}", arguments.join(" "));
        ran
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_slice(&self.ok(&[arguments, &["--json"]].concat()).stdout).unwrap()
    }

    pub(crate) fn fails(&self, code: i32, arguments: &[&str], change: &[(&str, Option<&str>)]) -> String {
        let ran = self.run_with(arguments, change);
        assert_eq!(ran.code, code, "bulla {}: {ran:?}", arguments.join(" "));
        assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
        ran.stderr
    }

    pub(crate) fn init(&self) -> Value {
        let kek = self.kek("k");
        self.json(&["init", &self.world.store(), "--kek", &kek, "--identity", IDENTITY])
    }

    pub(crate) fn put(&self, bytes: &[u8]) -> String {
        let file = self.world.write("to-put", bytes);
        self.ok(&["put", &self.world.store(), &file]).text().trim().to_owned()
    }

    /// Calls on keys that the vault was asked for since the last time, refusals of a missing token apart.
    fn calls(&self, since: &mut usize) -> Vec<String> {
        let log = fs::read_to_string(self.served.text("auditLog")).unwrap();
        let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let new = lines[*since..].iter().filter(|line| line["status"] != 401);
        let calls = new.map(|line| line["operation"].as_str().unwrap().to_owned());
        let calls = calls.filter(|operation| operation != "token").collect();
        *since = lines.len();
        calls
    }
}

#[test]
fn a_store_under_a_key_vaults_key_from_init_to_rotate() {
    let vault = KeyVault::new();
    let (store, mut seen) = (vault.world.store(), 0);
    let made = vault.init();
    assert_eq!(made["key"], vault.kek("k"));
    let calls = vault.calls(&mut seen);
    assert!(calls.len() <= 7, "at most three calls beside four of preflight: {calls:?}");

    let digest = vault.put(b"hi\n");
    assert_eq!(vault.ok(&["get", &store, &digest]).stdout, b"hi\n");
    let calls = vault.calls(&mut seen);
    assert_eq!(
        calls.len(),
        4,
        "opening twice is an unwrap and a describe each; put and get are none: {calls:?}"
    );

    let version = vault.new_version("k", "RSA");
    let rotated = vault.json(&["rotate", &store]);
    assert_eq!(rotated["to"], format!("{}/{version}", vault.kek("k")));
    let calls = vault.calls(&mut seen);
    assert!(calls.len() <= 2 + 7, "beside the two of opening: {calls:?}");

    vault.new_version("aes", "AES");
    let printed = vault.ok(&["rotate", &store, "--kek", &format!("{}/", vault.kek("aes"))]);
    assert!(printed.text().contains(" → ") && printed.text().contains("/keys/aes/"), "{printed:?}");

    let status = vault.json(&["status", &store]);
    assert_eq!(status["keyVaultProperties"]["keyIdentifier"], vault.kek("aes"));
    assert_eq!(status["keyVaultProperties"]["identity"], IDENTITY);
    assert_eq!(vault.ok(&["get", &store, &digest]).stdout, b"hi\n");
}

#[test]
fn a_service_managed_store_moves_to_a_key_vault_and_to_the_machines_own_identity() {
    let vault = KeyVault::new();
    let store = vault.world.store();
    vault.ok(&["init", &store]);
    let digest = vault.put(b"hi\n");
    let kek = vault.kek("k");
    let rotated = vault.json(&["rotate", &store, "--kek", &kek, "--identity", IDENTITY]);
    assert_eq!(rotated["serviceKeyDestroyed"], true);
    let refused = vault.fails(4, &["rotate", &store, "--identity", "system"], &[]);
    assert!(refused.contains("bulla vault set-policy DIR --identity system"), "{refused}");
    let folder = vault.world.path("vault");
    let permissions = ["--key-permissions", "get", "wrapKey", "unwrapKey"];
    vault.world.ok(&[&["vault", "set-policy", &folder, "--identity", "system"], &permissions[..]].concat());
    vault.ok(&["rotate", &store, "--identity", "system"]);
    vault.world.deny();
    assert_eq!(vault.ok(&["get", &store, &digest]).stdout, b"hi\n");
}

#[test]
fn another_machine_attaches_by_key_and_anchor() {
    let mut vault = KeyVault::new();
    let anchor = vault.init()["anchor"].as_str().unwrap().to_owned();
    let digest = vault.put(b"hi\n");
    let store = vault.world.store();
    vault.world.config = vault.world.dir.path().join("another-machine");
    let unknown = vault.fails(2, &["get", &store, &digest], &[]);
    assert!(unknown.contains("bulla attach"), "{unknown}");
    let unnamed = vault.fails(2, &["attach", &store, "--anchor", &anchor], &[]);
    assert!(unnamed.contains("--kek KEY_ID"), "{unnamed}");
    vault.ok(&["attach", &store, "--kek", &vault.kek("k"), "--anchor", &anchor]);
    assert_eq!(vault.ok(&["get", &store, &digest]).stdout, b"hi\n");
}

#[test]
fn taken_away_in_every_way_and_given_back() {
    let vault = KeyVault::new();
    vault.init();
    let digest = vault.put(b"hi\n");
    let (store, folder) = (vault.world.store(), vault.world.path("vault"));
    let back = || assert_eq!(vault.ok(&["get", &store, &digest]).stdout, b"hi\n");
    let refused = |fix: &str| {
        let line = vault.fails(4, &["get", &store, &digest], &[]);
        assert!(line.contains("Revoked") && line.contains(fix), "{line}");
    };
    let admin = |arguments: &[&str]| vault.world.ok(arguments);

    vault.world.deny();
    refused(&format!("bulla vault set-policy DIR --identity {IDENTITY}"));
    vault.world.allow();
    back();
    admin(&["vault", "key", "disable", &folder, "--name", "k"]);
    refused("bulla vault key enable DIR --name k");
    admin(&["vault", "key", "enable", &folder, "--name", "k"]);
    back();
    admin(&["vault", "key", "delete", &folder, "--name", "k"]);
    refused("bulla vault key recover DIR --name k");
    admin(&["vault", "key", "recover", &folder, "--name", "k"]);
    back();
    admin(&["vault", "network-rule", &folder, "--default-action", "deny"]);
    refused("bulla vault network-rule DIR --add CIDR");
    admin(&["vault", "network-rule", &folder, "--add", "127.0.0.0/8"]);
    back();
    // An expired key still opens, and takes nothing new.
    admin(&["vault", "key", "set-attributes", &folder, "--name", "k", "--expires", "2001-01-01"]);
    back();
    assert_ne!(vault.run_with(&["put", &store, "to-put"], &[]).code, 0);
}

#[test]
fn what_is_wrong_with_the_surroundings_is_named_with_its_fix() {
    let vault = KeyVault::new();
    vault.init();
    let digest = vault.put(b"hi\n");
    let store = vault.world.store();
    let get = ["get", &store, &digest];
    let other = vault.world.path("other");
    let elsewhere = ["init", &other, "--kek", &vault.kek("k"), "--identity", IDENTITY].map(str::to_owned);
    let init: Vec<&str> = elsewhere.iter().map(String::as_str).collect();
    for (code, arguments, name, value, fix) in [
        (2, &init[..], "BULLA_KEYVAULT_HOSTS", None, "set BULLA_KEYVAULT_HOSTS=127.0.0.1:"),
        (2, &get[..], "BULLA_KEYVAULT_HOSTS", None, "BULLA_KEYVAULT_HOSTS"),
        (2, &get[..], "BULLA_KEYVAULT_HOSTS", Some("https://x/"), "HOST:PORT"),
        (5, &get[..], "BULLA_KEYVAULT_CA_FILE", None, "BULLA_KEYVAULT_CA_FILE"),
        (5, &init[..], "BULLA_KEYVAULT_CA_FILE", None, "BULLA_KEYVAULT_CA_FILE"),
        (2, &get[..], "BULLA_KEYVAULT_CA_FILE", Some("/does/not/exist"), "BULLA_KEYVAULT_CA_FILE"),
        (2, &get[..], "BULLA_AZURE_CREDENTIAL", Some("password"), "managed, workload or developer"),
        (5, &get[..], "IDENTITY_ENDPOINT", Some("http://127.0.0.1:1/"), "BULLA_AZURE_CREDENTIAL"),
        (4, &get[..], "IDENTITY_HEADER", Some("wrong"), "run where the identity is assigned"),
    ] {
        let line = vault.fails(code, arguments, &[(name, value)]);
        assert!(line.contains(fix), "{name}={value:?}: {line}");
    }
    assert!(!vault.world.dir.path().join("other").exists(), "nothing is left of a refused init");
    let no_version = vault.kek("k/0123");
    for (code, arguments, fix) in [
        (
            3,
            ["init", &other, "--kek", &vault.kek("absent"), "--identity", IDENTITY],
            "bulla vault key create DIR --name absent",
        ),
        (3, ["init", &other, "--kek", &no_version, "--identity", IDENTITY], "leave the version out"),
        (3, ["rotate", &store, "--kek", &no_version, "--identity", IDENTITY], "leave the version out"),
        (
            4,
            ["init", &other, "--kek", &vault.kek("k"), "--identity", "web-2"],
            "--identity web-2 --key-permissions",
        ),
        (4, ["init", &other, "--kek", &vault.kek("k"), "--identity", "stranger"], "stranger"),
    ] {
        let line = vault.fails(code, &arguments, &[]);
        assert!(line.contains(fix), "{line}");
    }
    assert!(!vault.world.dir.path().join("other").exists());
    assert_eq!(vault.ok(&get).stdout, b"hi\n");
}
