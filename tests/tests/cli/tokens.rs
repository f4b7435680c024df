//! The command, with keys on tokens.

use crate::serve::Served;
use crate::token::{Kind, PIN, Token};
use crate::world::World;

pub(crate) const KEK: &str = "pkcs11:token=Bulla%20Test;object=registry";

/// A machine with a token in it, and the token's PIN in a file.
pub(crate) struct Machine {
    pub(crate) world: World,
    pub(crate) token: Token,
}

impl Machine {
    pub(crate) fn new(kind: Kind) -> Option<Self> {
        let mut world = World::with_vault();
        std::fs::create_dir(world.dir.path().join("token")).unwrap();
        let token = Token::fresh(kind, &world.dir.path().join("token"))?;
        let pin = token.file("pin");
        std::fs::write(&pin, PIN).unwrap();
        let (name, configuration) = token.environment();
        world.environment = vec![
            (name, configuration.into()),
            ("BULLA_PKCS11_MODULE", token.module.clone().into()),
            ("BULLA_PKCS11_PIN_FILE", pin.into()),
        ];
        Some(Self { world, token })
    }

    fn versioned(&self) -> String {
        let status = self.world.json(&["status", &self.world.store()]);
        status["keyVaultProperties"]["versionedKeyIdentifier"].as_str().unwrap().to_owned()
    }

    fn reads(&self, digest: &str) {
        assert_eq!(self.world.ok(&["get", &self.world.store(), digest]).stdout, b"hi\n");
    }
}

fn a_stores_life_under_a_token(kind: Kind) {
    let Some(machine) = Machine::new(kind) else { return };
    let Machine { world, token } = &machine;
    let store = world.store();

    // Before there is a key, and with one that can be destroyed: refused, with what to do, and nothing is left behind.
    let line = world.fails(3, &["init", &store, "--kek", KEK]);
    assert!(line.contains("pkcs11-tool") && line.contains("--token-label 'Bulla Test'"), "{line}");
    token.manage("aes registry 01");
    let line = world.fails(2, &["init", &store, "--kek", KEK]);
    assert!(line.contains("CKA_DESTROYABLE") && line.contains("--allow-unprotected-key"), "{line}");
    token.manage("destroy registry 01");
    token.manage("aes registry 01 keep");

    world.ok(&["init", &store, "--kek", KEK]);
    let digest = world.put(b"hi\n");
    machine.reads(&digest);
    assert_eq!(machine.versioned(), format!("{KEK};id=%01"));

    // A new version, then away to the local vault and back: reads go on, and only the token in use is asked.
    token.manage("aes registry 02 keep");
    world.ok(&["rotate", &store]);
    assert_eq!(machine.versioned(), format!("{KEK};id=%02"));
    machine.reads(&digest);
    world.ok(&["rotate", &store, "--kek", &world.kek(), "--identity", crate::world::IDENTITY]);
    token.remove();
    machine.reads(&digest);
    token.insert();
    world.ok(&["rotate", &store, "--kek", KEK, "--identity", "system"]);
    machine.reads(&digest);

    // Pulled out: retry later. Put back: as before.
    token.remove();
    let line = world.fails(5, &["get", &store, &digest]);
    assert!(line.contains("try again later"), "{line}");
    token.insert();
    machine.reads(&digest);

    // Another machine attaches it by the anchor.
    let known = std::fs::read_to_string(world.config.join("known_stores.json")).unwrap();
    let known: serde_json::Value = serde_json::from_str(&known).unwrap();
    let anchor = known["stores"].as_object().unwrap().values().next().unwrap()["anchor"].clone();
    std::fs::remove_dir_all(&world.config).unwrap();
    world.ok(&["attach", &store, "--kek", KEK, "--anchor", anchor.as_str().unwrap()]);
    machine.reads(&digest);
}

#[test]
fn softhsm_a_stores_life_under_a_token() {
    a_stores_life_under_a_token(Kind::SoftHsm);
}

#[test]
fn kryoptic_a_stores_life_under_a_token() {
    a_stores_life_under_a_token(Kind::Kryoptic);
}

/// Keys are made, and a store moves, between a local vault, a key vault and a token, from each to each.
fn rotates_from_every_holder_to_every_other(kind: Kind) {
    let Some(mut machine) = Machine::new(kind) else { return };
    let allow = |world: &World, vault: &str| {
        let permissions = ["--key-permissions", "get", "wrapKey", "unwrapKey"];
        world.ok(&[&["vault", "set-policy", vault, "--identity", "system"][..], &permissions].concat());
    };
    machine.token.manage("aes registry 01 keep");
    // `vault` is behind Key Vault's REST API, the other one is a folder.
    let world = &mut machine.world;
    let folder = world.path("folder");
    world.ok(&["vault", "create", &folder]);
    world.ok(&["vault", "key", "create", &folder, "--name", "k"]);
    allow(world, &folder);
    allow(world, &world.path("vault"));
    let served = Served::start(world, "vault", &["--identity", "system"]);
    let url = served.text("url").to_owned();
    let identity = |name: &str| served.info["identity"][name].as_str().unwrap().into();
    world.environment.extend([
        ("BULLA_KEYVAULT_HOSTS", url.strip_prefix("https://").unwrap().into()),
        ("BULLA_KEYVAULT_CA_FILE", served.text("certificate").into()),
        ("IDENTITY_ENDPOINT", identity("endpoint")),
        ("IDENTITY_HEADER", identity("header")),
    ]);
    let local = format!("vault+file://{folder}/keys/k");
    let key_vault = format!("{url}/keys/k");

    let store = machine.world.store();
    machine.world.ok(&["init", &store, "--kek", &local]);
    let digest = machine.world.put(b"hi\n");
    // Every arrow between the three, once.
    for to in [key_vault.as_str(), KEK, &local, KEK, &key_vault, &local] {
        machine.world.ok(&["rotate", &store, "--kek", to]);
        assert!(machine.versioned().starts_with(to), "{} after a rotation to {to}", machine.versioned());
        machine.reads(&digest);
    }
}

#[test]
fn softhsm_rotates_from_every_holder_to_every_other() {
    rotates_from_every_holder_to_every_other(Kind::SoftHsm);
}

#[test]
fn kryoptic_rotates_from_every_holder_to_every_other() {
    rotates_from_every_holder_to_every_other(Kind::Kryoptic);
}

#[test]
fn what_is_not_configured_or_wrong_is_named() {
    let Some(mut machine) = Machine::new(Kind::SoftHsm) else { return };
    machine.token.manage("aes registry 01 keep");
    machine.token.manage("rsa old 01 keep");
    let store = machine.world.store();
    let init = ["init", &store, "--kek", KEK];

    // SoftHSM2 has OAEP with SHA-1 alone.
    let old = "pkcs11:token=Bulla%20Test;object=old";
    let line = machine.world.fails(2, &["init", &store, "--kek", old]);
    assert!(line.contains("SHA-256") && line.contains("BULLA_PKCS11_ALLOW_OAEP_SHA1=1"), "{line}");
    machine.world.environment.push(("BULLA_PKCS11_ALLOW_OAEP_SHA1", "1".into()));
    let other = machine.world.path("other");
    machine.world.ok(&["init", &other, "--kek", old]);

    std::fs::write(machine.token.file("pin"), "000000").unwrap();
    let line = machine.world.fails(4, &init);
    assert!(line.contains("PIN") && line.contains("BULLA_PKCS11_PIN_FILE"), "{line}");
    assert!(!line.contains("000000"), "{line}");

    machine.world.environment.retain(|(name, _)| *name != "BULLA_PKCS11_PIN_FILE");
    let line = machine.world.fails(2, &init);
    assert!(line.contains("BULLA_PKCS11_PIN_FILE"), "{line}");

    // A key id from anywhere can't name a module or a PIN.
    for (attribute, word) in [("?module-path=/tmp/evil.so", "module"), ("?pin-value=1234", "PIN")] {
        let line = machine.world.fails(2, &["init", &store, "--kek", &format!("{KEK}{attribute}")]);
        assert!(line.contains(word) && !line.contains("1234") && !line.contains("evil"), "{line}");
    }

    machine.world.environment.retain(|(name, _)| *name != "BULLA_PKCS11_MODULE");
    let line = machine.world.fails(2, &init);
    assert!(line.contains("BULLA_PKCS11_MODULE"), "{line}");
    assert!(!std::path::Path::new(&store).exists(), "nothing is left behind");
}
