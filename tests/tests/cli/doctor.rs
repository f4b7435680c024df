//! `bulla doctor`: every mistake made for real, what it says of it, and that doing so helps.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use bulla_tests::part;
use bulla_tests::servers::Server;
use serde_json::Value;

use crate::key_vault::KeyVault;
use crate::token::{Kind, PIN};
use crate::tokens::{KEK, Machine};
use crate::world::{IDENTITY, Ran, World, copy, files};

/// What it found.
#[derive(Debug)]
struct Found {
    code: i32,
    checks: Vec<Value>,
}

impl Found {
    fn of(ran: &Ran) -> Self {
        for secret in ["open sesame", PIN] {
            assert!(!ran.text().contains(secret) && !ran.stderr.contains(secret), "{ran:?}");
        }
        let found: Value = serde_json::from_slice(&ran.stdout).unwrap_or_else(|_| panic!("{ran:?}"));
        let checks = found["checks"].as_array().unwrap().clone();
        let problems = checks.iter().filter(|check| check["verdict"] == "problem").count();
        assert_eq!(found["problems"], problems);
        assert_eq!(ran.code != 0, problems > 0, "{ran:?}");
        Self { code: ran.code, checks }
    }

    /// Text and fix of what is told of a check with this verdict.
    fn told(&self, check: &str, verdict: &str) -> Vec<String> {
        let those = self.checks.iter().filter(|one| one["check"] == check && one["verdict"] == verdict);
        those
            .map(|one| {
                format!("{} → {}", one["text"].as_str().unwrap(), one["fix"].as_str().unwrap_or_default())
            })
            .collect()
    }

    fn one(&self, check: &str, verdict: &str) -> String {
        let told = self.told(check, verdict);
        assert_eq!(told.len(), 1, "{check}, {verdict}: {self:#?}");
        told[0].clone()
    }

    fn problem(&self, check: &str) -> String {
        self.one(check, "problem")
    }

    fn warning(&self, check: &str) -> String {
        self.one(check, "warning")
    }

    /// The checks that found something, in order.
    fn wrong(&self) -> Vec<String> {
        let wrong = self
            .checks
            .iter()
            .filter(|check| matches!(check["verdict"].as_str(), Some("problem" | "warning")));
        wrong.map(|check| check["check"].as_str().unwrap().to_owned()).collect()
    }

    /// The first command that is named in a text.
    fn command(told: &str) -> String {
        told.split('`').nth(1).unwrap_or_else(|| panic!("no command in {told}")).to_owned()
    }
}

fn doctor(world: &World) -> Found {
    Found::of(&world.run(&["doctor", &world.store(), "--json"]))
}

fn doctor_with(world: &World, more: &[&str]) -> Found {
    Found::of(&world.run(&[&["doctor", &world.store(), "--json"], more].concat()))
}

/// Does what a fix says, as a user would: in a shell, with the command on the path.
fn follow(world: &World, line: &str) {
    let binary = PathBuf::from(world.command(&[]).get_program());
    let mut shell = Command::new("sh");
    for (name, value) in world.command(&[]).get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", binary.parent().unwrap().display());
    let output = shell.args(["-c", line]).env("PATH", path).current_dir(world.dir.path()).output().unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
}

fn mode(path: impl AsRef<Path>, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn contents(folder: impl AsRef<Path>) -> Vec<(PathBuf, Vec<u8>)> {
    files(folder).into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[test]
fn of_a_sound_store_it_finds_nothing_and_changes_nothing() {
    let world = World::with_store();
    world.put(b"hi\n");
    world.ok(&["audit", "start", &world.store()]);
    let before = [contents(world.path("store")), contents(&world.config), contents(world.path("vault"))];
    let found = doctor(&world);
    assert_eq!((found.code, found.wrong()), (0, Vec::<String>::new()), "{found:#?}");
    for check in ["configuration", "permissions", "bucket", "conditions", "clock", "log", "provider"] {
        found.one(check, "ok");
    }
    for check in
        ["key", "protection", "access", "latency", "open", "memory", "audit", "core-dumps", "lease-clocks"]
    {
        found.one(check, "ok");
    }
    let text = world.ok(&["doctor", &world.store()]);
    assert!(text.text().ends_with("no problems, no warnings\n"), "{text:?}");
    assert_eq!(
        before,
        [contents(world.path("store")), contents(&world.config), contents(world.path("vault"))]
    );
}

#[test]
fn before_a_store_is_made_its_key_is_looked_at() {
    let world = World::with_vault();
    let kek = world.kek();
    let with = |identity: &str, kek: &str| doctor_with(&world, &["--kek", kek, "--identity", identity]);
    let found = with(IDENTITY, &kek);
    assert_eq!(found.code, 0, "{found:#?}");
    assert!(found.one("bucket", "skipped").contains("`bulla init`"));

    let told = with(IDENTITY, &format!("{kek}2")).problem("key");
    assert!(told.contains("bulla vault key create"), "{told}");
    let found = with("stranger", &kek);
    assert_eq!(found.code, 4);
    follow(&world, &Found::command(&found.problem("key")));
    assert_eq!(with("stranger", &kek).code, 0);
    assert!(!Path::new(&world.store()).exists(), "nothing was made");

    // What `init` would refuse.
    world.ok(&["vault", "create", &world.path("loose"), "--no-purge-protection"]);
    world.ok(&["vault", "key", "create", &world.path("loose"), "--name", "k"]);
    let policy = ["--key-permissions", "get", "wrapKey", "unwrapKey"];
    world.ok(&[&["vault", "set-policy", &world.path("loose"), "--identity", IDENTITY], &policy[..]].concat());
    let loose = format!("vault+file://{}/keys/k", world.path("loose"));
    let found = with(IDENTITY, &loose);
    assert!(found.problem("protection").contains("purge protection"), "{found:#?}");
    assert_eq!(
        found.code,
        world.run(&["init", &world.store(), "--kek", &loose, "--identity", IDENTITY]).code
    );

    // Without a key there is nothing to be before.
    let told = doctor(&world).problem("configuration");
    assert!(told.contains("bulla init") && told.contains("bulla attach"), "{told}");
}

#[test]
fn a_store_that_is_not_known_here_is_not_opened() {
    let mut world = World::with_store();
    world.config = world.dir.path().join("another-machine");
    let found = doctor(&world);
    assert_eq!(found.code, 2);
    assert!(found.problem("configuration").contains("bulla attach"));
    found.one("log", "ok");
    found.one("open", "skipped");
}

#[test]
fn files_that_others_may_read_or_change() {
    let mut world = World::with_store();
    let config = world.config.join("known_stores.json");
    let (passphrase, ca) = (world.write("passphrase", b"open sesame"), world.write("ca.pem", b""));
    world.environment = vec![
        ("BULLA_VAULT_PASSPHRASE_FILE", passphrase.clone().into()),
        ("BULLA_KEYVAULT_CA_FILE", ca.clone().into()),
    ];
    mode(&passphrase, 0o600);
    assert_eq!(doctor(&world).wrong(), Vec::<String>::new());
    for (path, bits, verdict, word) in [
        (config.clone(), 0o644, "warning", "everybody can read"),
        (config, 0o622, "problem", "everybody can write"),
        (world.config.clone(), 0o770, "problem", "its group can write"),
        (world.path("vault").into(), 0o755, "warning", "guess at its passphrase"),
        (world.path("store").into(), 0o777, "problem", "destroy blobs"),
        (passphrase.clone().into(), 0o644, "problem", "everybody can read"),
        (passphrase.into(), 0o640, "warning", "its group can read"),
        (ca.into(), 0o666, "problem", "which key vaults"),
    ] {
        mode(&path, bits);
        let told = doctor(&world).one("permissions", verdict);
        assert!(told.contains(word) && told.contains(path.to_str().unwrap()), "{told}");
        follow(&world, told.split_once(" → ").unwrap().1);
        assert_eq!(doctor(&world).wrong(), Vec::<String>::new(), "after {told}");
    }
}

#[test]
fn keys_that_were_taken_away_and_identities_that_may_too_little_or_too_much() {
    let world = World::with_store();
    let vault = world.path("vault");
    let admin = |arguments: &[&str]| world.ok(&[&["vault"], arguments].concat());
    let policy = |permissions: &[&str]| {
        admin(&[&["set-policy", &vault, "--identity", IDENTITY, "--key-permissions"], permissions].concat())
    };
    let heals = |told: &str| {
        follow(&world, &Found::command(told));
        assert_eq!(doctor(&world).wrong(), Vec::<String>::new(), "after {told}");
    };

    admin(&["key", "disable", &vault, "--name", "k"]);
    let found = doctor(&world);
    assert_eq!((found.code, found.wrong()), (4, vec!["key".to_owned(), "open".to_owned()]), "{found:#?}");
    heals(&found.problem("key"));

    admin(&["key", "delete", &vault, "--name", "k"]);
    let told = doctor(&world).problem("key");
    assert!(told.contains("deleted"), "{told}");
    heals(&told);

    for (left, missing) in [
        (&["wrapKey", "unwrapKey"][..], "get"),
        (&["get", "unwrapKey"], "wrapKey"),
        (&["get", "wrapKey"], "unwrapKey"),
    ] {
        policy(left);
        let found = doctor(&world);
        let told = if missing == "get" { found.problem("key") } else { found.problem("access") };
        assert!(told.contains(&format!("permission to {missing} ")), "{told}");
        heals(&told);
    }

    admin(&["key", "set-attributes", &vault, "--name", "k", "--ops", "wrapKey"]);
    let found = doctor(&world);
    assert!(found.problem("key").contains("does not permit unwrapKey"), "{found:#?}");
    heals(&found.problem("key"));

    policy(&["get", "wrapKey", "unwrapKey", "purge", "delete"]);
    let found = doctor(&world);
    assert_eq!(found.code, 0, "too much is a warning: {found:#?}");
    let told = found.warning("surplus");
    assert!(told.contains("delete, purge"), "{told}");
    heals(&told);
}

#[test]
fn keys_that_end_and_versions_that_stay() {
    let world = World::with_store();
    let vault = world.path("vault");
    let expires = |date: &str| {
        world.ok(&["vault", "key", "set-attributes", &vault, "--name", "k", "--expires", date]);
        doctor(&world)
    };
    let found = expires("2001-01-01");
    assert_eq!(found.wrong(), ["key"], "it can be opened: {found:#?}");
    let told = found.problem("key");
    assert!(told.contains("expired at 2001-01-01") && told.contains("--expires DATE"), "{told}");
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * 10);
    let found = expires(&soon.to_string());
    assert_eq!(found.code, 0);
    assert!(found.warning("key").contains("bulla rotate"), "{found:#?}");
    let later = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * 31);
    assert_eq!(expires(&later.to_string()).wrong(), Vec::<String>::new());

    world.new_version("k");
    let told = doctor(&world).warning("versions");
    assert!(told.contains("newer version"), "{told}");
    follow(&world, &Found::command(&told));
    let told = doctor(&world).warning("versions");
    assert!(told.contains("1 earlier version"), "{told}");
    follow(&world, &Found::command(&told));
    assert_eq!(doctor(&world).wrong(), Vec::<String>::new());
}

#[test]
fn where_the_vault_is_missing_or_its_passphrase_wrong_the_rest_is_looked_at() {
    let world = World::with_store();
    fs::rename(world.path("vault"), world.path("moved")).unwrap();
    let found = doctor(&world);
    assert_eq!(found.code, 5);
    assert!(found.problem("provider").contains("mount or restore its folder"), "{found:#?}");
    for check in ["bucket", "conditions", "log"] {
        found.one(check, "ok");
    }
    found.one("key", "skipped");
    fs::rename(world.path("moved"), world.path("vault")).unwrap();

    let mut world = world;
    world.environment = vec![("BULLA_VAULT_PASSPHRASE", "guessed".into())];
    let told = doctor(&world).problem("provider");
    assert!(told.contains("BULLA_VAULT_PASSPHRASE"), "{told}");
}

#[test]
fn a_log_that_went_back_has_a_gap_or_is_another_stores() {
    let world = World::with_store();
    let (store, old) = (world.dir.path().join("store"), world.dir.path().join("old"));
    copy(&store, &old);
    world.new_version("k");
    world.ok(&["rotate", &world.store()]);
    let record = |number: u32| store.join(format!("store/{number:08}.cbor"));
    let new: Vec<_> = (1..=3).map(|number| fs::read(record(number)).unwrap()).collect();

    fs::remove_file(record(3)).unwrap();
    fs::remove_file(record(2)).unwrap();
    let found = doctor(&world);
    assert_eq!(found.code, 8);
    assert!(found.problem("log").contains("rolled back"), "{found:#?}");
    // Its key is looked at all the same.
    found.one("access", "ok");

    fs::write(record(3), &new[2]).unwrap();
    let told = doctor(&world).problem("log");
    assert!(told.contains("gap") && told.contains("restore the store from a copy"), "{told}");

    fs::write(record(2), &new[1]).unwrap();
    let mut altered = new[2].clone();
    *altered.last_mut().unwrap() ^= 1;
    fs::write(record(3), altered).unwrap();
    let found = doctor(&world);
    assert!(found.problem("open").contains("does not authenticate") || found.code == 8, "{found:#?}");
    fs::write(record(3), &new[2]).unwrap();
    assert_eq!(doctor(&world).code, 0);
}

#[test]
fn a_rewrap_that_was_interrupted_is_told() {
    let world = World::with_store();
    world.put(b"hi\n");
    // It waits for the revocation bound before it sweeps.
    let mut rewrap = world.command(&["rewrap", &world.store()]).spawn().unwrap();
    let record = world.dir.path().join("store/store/00000002.cbor");
    while !record.exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    rewrap.kill().unwrap();
    rewrap.wait().unwrap();
    let told = doctor(&world).warning("store");
    assert!(told.contains("a rewrap is not finished") && told.contains("bulla rewrap"), "{told}");
}

#[test]
fn a_service_managed_key_is_a_warning() {
    let world = World::new();
    world.ok(&["init", &world.store()]);
    let found = doctor(&world);
    assert_eq!(found.wrong(), ["store"], "{found:#?}");
    assert!(found.warning("store").contains("bulla rotate"));
}

#[test]
fn a_key_vaults_refusals_are_told_apart() {
    let vault = KeyVault::new();
    vault.init();
    let (store, folder) = (vault.world.store(), vault.world.path("vault"));
    let doctor =
        |change: &[(&str, Option<&str>)]| Found::of(&vault.run_with(&["doctor", &store, "--json"], change));
    let found = doctor(&[]);
    assert_eq!((found.code, found.wrong()), (0, Vec::<String>::new()), "{found:#?}");
    found.one("surplus", "skipped");

    vault.world.ok(&["vault", "network-rule", &folder, "--default-action", "deny"]);
    let found = doctor(&[]);
    assert_eq!(found.code, 4);
    assert!(found.problem("key").contains("bulla vault network-rule DIR --add CIDR"), "{found:#?}");
    vault.world.ok(&["vault", "network-rule", &folder, "--add", "127.0.0.0/8"]);
    vault.world.deny();
    let told = doctor(&[]).problem("key");
    assert!(told.contains(&format!("bulla vault set-policy DIR --identity {IDENTITY}")), "{told}");
    let few = ["--key-permissions", "get", "wrapKey"];
    vault.world.ok(&[&["vault", "set-policy", &folder, "--identity", IDENTITY], &few[..]].concat());
    let told = doctor(&[]).problem("access");
    assert!(told.contains("unwrapKey") && told.contains("bulla vault set-policy"), "{told}");
    vault.world.allow();

    for (name, value, check, fix) in [
        ("BULLA_KEYVAULT_HOSTS", None, "provider", "set BULLA_KEYVAULT_HOSTS=127.0.0.1:"),
        ("BULLA_KEYVAULT_CA_FILE", None, "key", "set BULLA_KEYVAULT_CA_FILE"),
        ("IDENTITY_ENDPOINT", Some("http://127.0.0.1:1/"), "key", "BULLA_AZURE_CREDENTIAL"),
    ] {
        let told = doctor(&[(name, value)]).problem(check);
        assert!(told.contains(fix), "{name}: {told}");
    }
    assert_eq!(doctor(&[]).code, 0);
}

/// A log that somebody wrote with the public key, or another machine after a rotation: who can tell?
#[test]
fn a_host_that_only_the_bucket_names_is_not_recommended() {
    let mut vault = KeyVault::new();
    vault.init();
    let (store, theirs) = (vault.world.store(), vault.world.config.clone());
    // This machine knows the store under another key than the log names now.
    vault.world.config = vault.world.dir.path().join("here");
    copy(&theirs, &vault.world.config);
    let known = vault.world.config.join("known_stores.json");
    let text = fs::read_to_string(&known).unwrap();
    fs::write(&known, text.replace("https://127.0.0.1", "https://contoso.vault.azure.net")).unwrap();
    mode(&known, 0o600);
    let found = Found::of(&vault.run_with(&["doctor", &store, "--json"], &[("BULLA_KEYVAULT_HOSTS", None)]));
    let told = found.problem("provider");
    assert!(told.contains("which the store's log names") && !told.contains("HOSTS=127"), "{told}");
}

fn tokens(kind: Kind) {
    let Some(mut machine) = Machine::new(kind) else { return };
    mode(machine.token.file("pin"), 0o600);
    let with = |world: &World, kek: &str| doctor_with(world, &["--kek", kek]);
    let Machine { world, token } = &machine;
    let told = with(world, KEK).problem("key");
    assert!(told.contains("pkcs11-tool") && told.contains("--sensitive"), "{told}");

    // `init` and `rotate` refuse what is a problem here.
    for (label, words, attribute) in [
        ("loose", "", "CKA_DESTROYABLE"),
        ("open", " keep extractable", "CKA_EXTRACTABLE"),
        ("plain", " keep plain", "CKA_SENSITIVE"),
    ] {
        token.manage(&format!("aes {label} 01{words}"));
        let kek = format!("pkcs11:token=Bulla%20Test;object={label}");
        let told = with(world, &kek).problem("protection");
        assert!(told.contains(attribute) && told.contains("--allow-unprotected-key"), "{told}");
        let line = world.fails(2, &["init", &world.store(), "--kek", &kek]);
        assert!(line.contains(attribute) && line.contains("--allow-unprotected-key"), "{line}");
    }
    token.manage("aes late 01 extractable");
    token.manage("set late 01 confine");
    token.manage("aes registry 01 keep");
    let late = "pkcs11:token=Bulla%20Test;object=late";
    assert!(with(world, late).warning("protection").contains("CKA_NEVER_EXTRACTABLE"));
    let found = with(world, KEK);
    assert_eq!((found.code, found.wrong()), (0, Vec::<String>::new()), "{found:#?}");
    world.ok(&["init", &world.store(), "--kek", KEK]);
    assert_eq!(doctor(world).wrong(), Vec::<String>::new());
    let open = "pkcs11:token=Bulla%20Test;object=open";
    assert!(world.fails(2, &["rotate", &world.store(), "--kek", open]).contains("CKA_EXTRACTABLE"));

    // In use with the risk accepted, it is a warning.
    let other = world.path("other");
    world.ok(&["init", &other, "--kek", open, "--allow-unprotected-key"]);
    let found = Found::of(&world.run(&["doctor", &other, "--json"]));
    assert_eq!(found.wrong(), ["protection"], "{found:#?}");

    token.remove();
    let found = doctor(world);
    assert_eq!(found.code, 5);
    found.problem("key");
    token.insert();

    mode(machine.token.file("pin"), 0o644);
    let told = doctor(&machine.world).problem("permissions");
    assert!(told.contains("opens the token"), "{told}");
    mode(machine.token.file("pin"), 0o600);
    fs::write(machine.token.file("pin"), "000000").unwrap();
    let found = doctor(&machine.world);
    assert!(found.problem("key").contains("BULLA_PKCS11_PIN_FILE") && found.code == 4, "{found:#?}");
    machine.world.environment.retain(|(name, _)| *name != "BULLA_PKCS11_MODULE");
    let told = doctor(&machine.world).problem("provider");
    assert!(told.contains("BULLA_PKCS11_MODULE"), "{told}");
}

#[test]
fn softhsm_keys_that_can_leave_their_token_wrong_pins_and_missing_tokens() {
    tokens(Kind::SoftHsm);
}

#[test]
fn kryoptic_keys_that_can_leave_their_token_wrong_pins_and_missing_tokens() {
    tokens(Kind::Kryoptic);
}

#[test]
fn a_mechanism_that_a_token_lacks_is_named() {
    let Some(machine) = Machine::new(Kind::SoftHsm) else { return };
    mode(machine.token.file("pin"), 0o600);
    machine.token.manage("rsa old 01 keep");
    let told = doctor_with(&machine.world, &["--kek", "pkcs11:token=Bulla%20Test;object=old"]).problem("key");
    assert!(
        told.contains("CKM_RSA_PKCS_OAEP with SHA-256") && told.contains("BULLA_PKCS11_ALLOW_OAEP_SHA1=1"),
        "{told}"
    );
}

/// A bucket that misbehaves: moto, started by a script that changes it.
struct Bucket {
    server: Server,
    world: World,
    _script: tempfile::TempDir,
}

impl Bucket {
    fn new(change: &str) -> Option<Self> {
        let moto = part("BULLA_MOTO_SERVER", "moto_server")?;
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("moto");
        write_script(&moto, change, &script);
        let server = Server::moto(&script).unwrap();
        server.make_bucket("registry").unwrap();
        let mut world = World::with_vault();
        world.environment = vec![
            ("AWS_ENDPOINT", server.url().into()),
            ("AWS_ALLOW_HTTP", "true".into()),
            ("AWS_ACCESS_KEY_ID", "key".into()),
            ("AWS_SECRET_ACCESS_KEY", "secret".into()),
            ("AWS_REGION", "us-east-1".into()),
        ];
        Some(Self { server, world, _script: folder })
    }

    fn doctor(&self, store: &str) -> Found {
        let kek = self.world.kek();
        let arguments = ["doctor", store, "--kek", &kek, "--identity", IDENTITY, "--json"];
        Found::of(&self.world.run(&arguments))
    }
}

/// Starts moto as its own script does, after `change`.
fn write_script(moto: &Path, change: &str, script: &Path) {
    let original = fs::read_to_string(moto).unwrap();
    let interpreter = original.lines().next().unwrap();
    let start = "import sys\nfrom moto.server import main\nsys.exit(main())\n";
    fs::write(script, format!("{interpreter}\n{change}\n{start}")).unwrap();
    mode(script, 0o700);
}

/// What each request goes through, in Python.
const MIDDLEWARE: &str = "
import moto.server
made = moto.server.create_backend_app
def wrapped(service):
    app = made(service)
    inner = app.wsgi_app
    def outer(environ, start):
        CHANGE
        return inner(environ, start)
    app.wsgi_app = outer
    return app
moto.server.create_backend_app = wrapped
";

#[test]
fn a_bucket_in_order_and_one_that_is_not_there() {
    let Some(bucket) = Bucket::new("") else { return };
    let found = bucket.doctor("s3://registry/prefix");
    assert_eq!((found.code, found.wrong()), (0, Vec::<String>::new()), "{found:#?}");
    for check in ["bucket", "conditions", "clock"] {
        found.one(check, "ok");
    }
    let told = bucket.doctor("s3://absent/prefix").problem("bucket");
    assert!(told.contains("aws s3 mb"), "{told}");
    drop(bucket.server);
}

#[test]
fn a_bucket_that_ignores_conditions() {
    let change = "environ.pop('HTTP_IF_NONE_MATCH', None); environ.pop('HTTP_IF_MATCH', None)";
    let Some(bucket) = Bucket::new(&MIDDLEWARE.replace("CHANGE", change)) else { return };
    let found = bucket.doctor("s3://registry/prefix");
    assert_eq!(found.code, 2);
    let told = found.problem("conditions");
    assert!(
        told.contains("put-if-absent") && told.contains("use a store that has conditional writes"),
        "{told}"
    );
}

#[test]
fn a_bucket_whose_clock_is_wrong() {
    let clock = |hours: &str| {
        format!(
            "import datetime, moto.s3.models as m\nnow = m.utcnow\nm.utcnow = lambda: now() + datetime.timedelta({hours})"
        )
    };
    let Some(bucket) = Bucket::new(&clock("hours=1")) else { return };
    let told = bucket.doctor("s3://registry/prefix").problem("clock");
    assert!(told.contains("behind the bucket's") && told.contains("timedatectl"), "{told}");
    let Some(bucket) = Bucket::new(&clock("seconds=-90")) else { return };
    let told = bucket.doctor("s3://registry/prefix").warning("clock");
    assert!(told.contains("1m 2") && told.contains("ahead of the bucket's"), "{told}");
}

#[test]
fn rights_that_are_missing_in_a_bucket() {
    let put = "if environ['REQUEST_METHOD'] == 'PUT' and 'probe' in environ['PATH_INFO']:
            start('403 Forbidden', []); return [b'<Error><Code>AccessDenied</Code></Error>']";
    // As S3 answers it: of each object by itself, and 200 as a whole.
    let delete = "if environ['QUERY_STRING'].startswith('delete'):
            body = environ['wsgi.input'].read(int(environ['CONTENT_LENGTH']))
            key = body.split(b'<Key>')[1].split(b'</Key>')[0]
            start('200 OK', [('Content-Type', 'application/xml')])
            return [b'<DeleteResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Error><Key>' + key
                + b'</Key><Code>AccessDenied</Code><Message>Access Denied</Message></Error></DeleteResult>']";
    for (change, right, action) in [(put, "write", "s3:PutObject"), (delete, "delete", "s3:DeleteObject")] {
        let Some(bucket) = Bucket::new(&MIDDLEWARE.replace("CHANGE", change)) else { return };
        let found = bucket.doctor("s3://registry/prefix");
        let told = found.told("bucket", "problem");
        let named = |told: &String| told.contains(&format!("can't {right} objects")) && told.contains(action);
        assert!(told.iter().any(named), "{found:#?}");
        assert_eq!(found.code, 2);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn where_the_system_locks_no_memory_status_and_doctor_say_so() {
    let world = World::with_store();
    let limited = |arguments: &[&str]| {
        let bulla = world.command(arguments);
        let mut shell = Command::new("sh");
        shell.envs(bulla.get_envs().filter_map(|(name, value)| Some((name, value?))));
        // The limit does not hold for who has the capability, as root does.
        let confined = "ulimit -l 0; if [ \"$(id -u)\" = 0 ]; then exec setpriv --bounding-set=-ipc_lock \
                        --inh-caps=-ipc_lock -- \"$@\"; fi; exec \"$@\"";
        shell.args(["-c", confined, "sh"]).arg(bulla.get_program()).args(bulla.get_args());
        crate::world::ran(shell.output().unwrap())
    };
    let store = world.store();
    let status =
        |ran: Ran| serde_json::from_slice::<Value>(&ran.stdout).unwrap_or_else(|_| panic!("{ran:?}"));
    let locked = |status: &Value| status["secrets"]["lockedInMemory"].clone();
    assert_eq!(locked(&status(world.run(&["status", &store, "--verbose", "--json"]))), true);
    assert_eq!(locked(&status(limited(&["status", &store, "--verbose", "--json"]))), false);
    let found = Found::of(&limited(&["doctor", &store, "--json"]));
    assert_eq!((found.code, found.wrong()), (0, vec!["memory".to_owned()]), "{found:#?}");
    assert!(found.warning("memory").contains("LimitMEMLOCK="));
}
