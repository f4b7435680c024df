//! Several processes, and processes that are killed.

use std::env;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use bulla_kek::Identity;
use bulla_vault::{CreateKey, Passphrase, Permission, Vault};

use crate::support::{AES, PASSPHRASE, Scratch, user};

const FOLDER: &str = "BULLA_TEST_VAULT_FOLDER";
const NAME: &str = "BULLA_TEST_VAULT_NAME";
const ROUNDS: u32 = 20;

/// Not a test of its own: what [`writer`] starts. It changes the vault until it is done or killed.
#[test]
fn child() {
    let (Ok(folder), Ok(name)) = (env::var(FOLDER), env::var(NAME)) else { return };
    let vault = Vault::open(folder, Some(Passphrase::new(PASSPHRASE))).unwrap();
    for round in 0..ROUNDS {
        vault.create_key(&CreateKey::new(name.as_str(), AES)).unwrap();
        let identity = Identity::User(format!("{name}-{round}"));
        vault.set_policy(&identity, &[Permission::GET]).unwrap();
    }
}

fn writer(folder: &Path, name: &str) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "processes::child", "--quiet"])
        .env(FOLDER, folder)
        .env(NAME, name)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn no_change_of_two_processes_is_lost() {
    let scratch = Scratch::new();
    let mut children = ["a", "b"].map(|name| writer(scratch.vault.dir(), name));
    // The third is this one, through a handle that was open before.
    for _ in 0..ROUNDS {
        scratch.vault.create_key(&CreateKey::new("a", AES)).unwrap();
    }
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    let versions = |name| u32::try_from(scratch.vault.list_versions(name).unwrap().len()).unwrap();
    assert_eq!((versions("a"), versions("b")), (2 * ROUNDS, ROUNDS));
    assert_eq!(u32::try_from(scratch.vault.policies().unwrap().len()).unwrap(), 2 * ROUNDS);
}

#[test]
fn a_killed_process_leaves_a_whole_vault() {
    let scratch = Scratch::new().with_key("k").with_policy();
    for round in 0..12 {
        let mut child = writer(scratch.vault.dir(), "k");
        thread::sleep(Duration::from_millis(15 + 7 * round));
        drop(child.kill());
        child.wait().unwrap();
        // Every listed version is one that wraps: a private half is written before its entry.
        let vault = scratch.reopened();
        for version in vault.list_versions("k").unwrap() {
            let name = version.kid.rsplit('/').next().unwrap().to_owned();
            assert!(vault.dir().join("keys/k").join(format!("{name}.sealed")).exists());
        }
        assert!(vault.policies().unwrap().contains_key(user().as_str()));
        vault.set_enabled("k", None, true).unwrap();
    }
    for entry in std::fs::read_dir(scratch.vault.dir()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(!name.starts_with(".tmp-"), "{name}");
    }
}

#[test]
fn threads_wait_for_each_other() {
    let scratch = Scratch::new();
    thread::scope(|scope| {
        for _ in 0..4 {
            let vault = scratch.vault.clone();
            scope.spawn(move || {
                for _ in 0..10 {
                    vault.create_key(&CreateKey::new("k", AES)).unwrap();
                }
            });
        }
    });
    assert_eq!(scratch.vault.list_versions("k").unwrap().len(), 40);
}
