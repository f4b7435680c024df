//! `bulla doctor`: every mistake made for real, what it says of it, and that doing so helps.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::token::PIN;
use crate::world::{IDENTITY, Ran, World, copy, files};

#[path = "doctor/buckets.rs"]
mod buckets;
#[path = "doctor/keys.rs"]
mod keys;

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
    assert!(doctor(&world).problem("open").contains("does not authenticate"));
    fs::write(record(3), &new[2]).unwrap();
    assert_eq!(doctor(&world).code, 0);

    // Somebody put another store in its place, under the same key.
    let mut other = World { config: world.dir.path().join("forger"), environment: Vec::new(), ..world };
    fs::rename(&store, other.dir.path().join("moved")).unwrap();
    other.ok(&["init", &other.store(), "--kek", &other.kek(), "--identity", IDENTITY]);
    other.config = other.dir.path().join("config");
    let found = doctor(&other);
    assert_eq!(found.code, 8);
    assert!(found.problem("log").contains("rolled back or forked"), "{found:#?}");
    assert!(found.problem("open").contains("not the same store"), "{found:#?}");
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
