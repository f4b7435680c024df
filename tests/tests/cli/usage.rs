//! The usage block of the command, from end to end.

use std::io::Write;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::world::{IDENTITY, World, files, ran};

const HI: &str = "sha256:98ea6e4f216f2fb4b69fff9b3a44842c38686ca685f3f55dc48c5d3fb1107be4";

#[test]
fn put_get_stat_ls_rm() {
    let world = World::with_store();
    let store = world.store();
    let file = world.write("hi", b"hi\n");
    assert_eq!(world.ok(&["put", &store, &file]).text(), format!("{HI}\n"));
    assert_eq!(world.json(&["put", &store, &file]), json!({ "digest": HI, "size": 3, "created": false }));
    assert_eq!(world.ok(&["get", &store, HI]).stdout, b"hi\n");
    assert_eq!(world.ok(&["get", &store, HI, "--verify"]).stdout, b"hi\n");
    assert_eq!(world.ok(&["get", &store, HI, "-o", "out"]).stdout, b"");
    assert_eq!(world.read("out"), b"hi\n");
    assert_eq!(world.ok(&["ls", &store]).text(), format!("{HI}\n"));
    let listed = world.json(&["ls", &store]);
    assert_eq!((&listed[0]["digest"], &listed[0]["size"]), (&json!(HI), &json!(3)));
    let stat = world.json(&["stat", &store, HI]);
    assert_eq!((&stat["size"], &stat["extents"], &stat["expires"]), (&json!(3), &json!(0), &Value::Null));
    assert!(world.ok(&["stat", &store, HI]).text().contains("3 (3 B)"));
    assert_eq!(world.ok(&["rm", &store, HI]).stdout, b"");
    world.fails(3, &["get", &store, HI]);
    world.fails(3, &["stat", &store, HI]);
    world.fails(3, &["rm", &store, HI]);
    assert_eq!(world.json(&["ls", &store]), json!([]));
}

#[test]
fn large_blobs_and_ranges_as_http_counts_them() {
    let world = World::with_store();
    let store = world.store();
    let bytes: Vec<u8> = (0..5_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let digest = world.put(&bytes);
    let get = |range: &str| world.ok(&["get", &store, &digest, "--range", range]).stdout;
    assert_eq!(get("0-0"), bytes[..1]);
    assert_eq!(get("16383-16384"), bytes[16_383..=16_384]);
    assert_eq!(get("1000000-3999999"), bytes[1_000_000..4_000_000]);
    assert_eq!(get("4999990-9999999"), bytes[4_999_990..]);
    assert_eq!(get("4999990-"), bytes[4_999_990..]);
    assert_eq!(get("-10"), bytes[4_999_990..]);
    assert!(world.fails(2, &["get", &store, &digest, "--range", "5000000-"]).contains("5000000"));
    assert!(world.fails(2, &["get", &store, &digest, "--range", "4-3"]).contains("FIRST-LAST"));
    assert_eq!(world.ok(&["get", &store, &digest]).stdout, bytes);
    // A file is replaced as a whole, and nothing is left beside it.
    world.write("out", b"old");
    let printed = world.json(&["get", &store, &digest, "-o", "out", "--verify"]);
    assert_eq!(printed["size"], 5_000_000);
    assert_eq!(world.read("out"), bytes);
    assert!(!files(world.dir.path()).iter().any(|file| file.to_string_lossy().ends_with(".part")));
    // A device is written to, not replaced.
    world.ok(&["get", &store, &digest, "-o", "/dev/null"]);
    assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
}

#[test]
fn standard_input_digests_and_time_to_live() {
    let world = World::with_store();
    let store = world.store();
    let put = |arguments: &[&str], bytes: &[u8]| {
        let mut child = world
            .command(&[&["put", &store, "-"], arguments].concat())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(bytes).unwrap();
        ran(child.wait_with_output().unwrap())
    };
    assert_eq!(put(&[], b"hi\n").text().trim(), HI);
    let other = HI.replace('9', "8");
    let refused = put(&["--digest", &other], b"hi\n");
    assert_eq!((refused.code, refused.stdout.as_slice()), (2, &b""[..]));
    assert!(refused.stderr.contains(HI), "{}", refused.stderr);
    let sha512 = concat!(
        "sha512:d78abb0542736865f94704521609c230dac03a2f369d043ac212d6933b91410e",
        "06399e37f9c5cc88436a31737330c1c8eccb2c2f9f374d62f716432a32d50fac"
    );
    assert_eq!(put(&["--digest", sha512], b"hi\n").text().trim(), sha512);
    assert_eq!(world.ok(&["get", &store, sha512]).stdout, b"hi\n");
    let short = put(&["--ttl", "1s"], b"soon gone");
    let digest = short.text().trim();
    assert!(world.json(&["stat", &store, digest])["expires"].is_string());
    std::thread::sleep(std::time::Duration::from_millis(1200));
    world.fails(3, &["get", &store, digest]);
}

#[test]
fn bulla_store_stands_in_for_store() {
    let world = World::with_store();
    let digest = world.put(b"hi\n");
    let with_env = |arguments: &[&str]| {
        ran(world.command(arguments).env("BULLA_STORE", world.store()).output().unwrap())
    };
    assert_eq!(with_env(&["put", "to-put"]).text().trim(), digest);
    assert_eq!(with_env(&["get", &digest]).stdout, b"hi\n");
    assert_eq!(with_env(&["ls"]).text().trim(), digest);
    assert_eq!(with_env(&["stat", &digest]).code, 0);
    assert_eq!(with_env(&["status"]).code, 0);
    // A store that is named counts, whatever the variable says.
    assert_eq!(with_env(&["get", &world.path("elsewhere"), &digest]).code, 3);
    assert_eq!(with_env(&["rm", &digest]).code, 0);
    assert!(world.fails(2, &["get", &digest]).contains("BULLA_STORE"));
    assert!(world.fails(2, &["ls"]).contains("BULLA_STORE"));
    assert!(world.fails(2, &["get", &digest, &world.store()]).contains("comes first"));
}

#[test]
fn rotation_to_a_version_a_key_and_an_identity() {
    let world = World::with_store();
    let store = world.store();
    let digest = world.put(&vec![7; 300_000]);
    let data = files(world.path("store/data"));
    let unchanged = world.json(&["rotate", &store]);
    assert_eq!(unchanged["changed"], false);

    let kid = world.new_version("k");
    let rotated = world.json(&["rotate", &store]);
    assert_eq!((&rotated["changed"], &rotated["to"]), (&json!(true), &json!(kid)));
    assert_ne!(rotated["from"], json!([kid]));

    world.new_version("other");
    let other = format!("vault+file://{}/keys/other", world.path("vault"));
    let printed = world.ok(&["rotate", &store, "--kek", &other]);
    assert!(printed.text().contains(" → ") && printed.text().contains("/keys/other/"), "{printed:?}");

    // An identity without a policy is refused, and the store stays as it was.
    assert!(world.fails(4, &["rotate", &store, "--identity", "nobody"]).contains("set-policy"));
    let vault = world.path("vault");
    let permissions = ["get", "wrapKey", "unwrapKey"];
    let policy = ["vault", "set-policy", &vault, "--identity", "web-2", "--key-permissions"];
    world.ok(&[&policy[..], &permissions].concat());
    assert_eq!(world.json(&["rotate", &store, "--identity", "web-2"])["identity"], "web-2");
    world.deny();

    let status = world.json(&["status", &store]);
    assert_eq!(status["keyVaultProperties"]["keyIdentifier"], json!(other));
    assert_eq!(status["keyVaultProperties"]["identity"], "web-2");
    assert!(status["keyVaultProperties"]["lastKeyRotationTimestamp"].as_str().unwrap().ends_with('Z'));
    assert_eq!(files(world.path("store/data")), data, "no data was touched");
    assert_eq!(world.ok(&["get", &store, &digest]).stdout, vec![7; 300_000]);
}

#[test]
fn status_has_exactly_the_shape_of_az() {
    let world = World::with_store();
    let status = world.json(&["status", &world.store()]);
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&status), ["keyVaultProperties", "status"]);
    assert_eq!(
        keys(&status["keyVaultProperties"]),
        [
            "identity",
            "keyIdentifier",
            "keyRotationEnabled",
            "lastKeyRotationTimestamp",
            "versionedKeyIdentifier"
        ]
    );
    assert_eq!(status["status"], "enabled");
    let properties = &status["keyVaultProperties"];
    assert_eq!(
        (&properties["identity"], &properties["keyIdentifier"]),
        (&json!(IDENTITY), &json!(world.kek()))
    );
    assert_eq!(properties["keyRotationEnabled"], true);
    let versioned = properties["versionedKeyIdentifier"].as_str().unwrap();
    assert!(versioned.starts_with(&format!("{}/", world.kek())), "{versioned}");
    // Pretty for people, the same for programs.
    let plain: Value = serde_json::from_slice(&world.ok(&["status", &world.store()]).stdout).unwrap();
    assert_eq!(plain, status);
    let more = world.json(&["status", &world.store(), "--verbose"]);
    for part in ["store", "log", "mode", "revocationBound", "key", "storeKeys", "secrets", "warnings"] {
        assert!(more.get(part).is_some(), "{part}: {more:#}");
    }
    assert_eq!((&more["key"]["state"], &more["status"]), (&json!("live"), &json!("enabled")));
}

#[test]
fn a_pinned_version_stays_pinned() {
    let world = World::with_vault();
    let first = world.new_version("k");
    world.ok(&["init", &world.store(), "--kek", &first, "--identity", IDENTITY]);
    world.new_version("k");
    let status = world.json(&["status", &world.store()]);
    assert_eq!(status["keyVaultProperties"]["keyRotationEnabled"], false);
    assert_eq!(status["keyVaultProperties"]["keyIdentifier"], json!(first));
}

#[test]
fn the_vault_prints_what_az_prints() {
    let world = World::with_vault();
    let vault = world.path("vault");
    let key = world.json(&[
        "vault",
        "key",
        "create",
        &vault,
        "--name",
        "rsa",
        "--size",
        "2048",
        "--expires",
        "2099-01-01",
    ]);
    let kid = key["key"]["kid"].as_str().unwrap();
    assert!(kid.starts_with(&format!("vault+file://{vault}/keys/rsa/")), "{kid}");
    assert_eq!((&key["key"]["kty"], &key["attributes"]["enabled"]), (&json!("RSA"), &json!(true)));
    assert_eq!(key["attributes"]["exp"], 4_070_908_800_u64);
    assert_eq!(key["key"]["e"], "AQAB");
    let version = kid.rsplit('/').next().unwrap();
    assert_eq!(
        world.json(&["vault", "key", "show", &vault, "--name", "rsa", "--version", version])["key"]["kid"],
        kid
    );
    let changed = world.json(&[
        "vault",
        "key",
        "set-attributes",
        &vault,
        "--name",
        "rsa",
        "--expires",
        "none",
        "--enabled",
        "false",
    ]);
    assert_eq!(
        (&changed["attributes"]["exp"], &changed["attributes"]["enabled"]),
        (&Value::Null, &json!(false))
    );
    let names = |list: Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|key| key["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(world.json(&["vault", "key", "list", &vault])), ["k", "rsa"]);
    assert_eq!(world.json(&["vault", "key", "list", &vault, "--name", "k"]).as_array().unwrap().len(), 1);
    world.ok(&["vault", "key", "delete", &vault, "--name", "rsa"]);
    assert_eq!(names(world.json(&["vault", "key", "list", &vault])), ["k"]);
    assert_eq!(names(world.json(&["vault", "key", "list", &vault, "--deleted"])), ["rsa"]);
    assert!(world.fails(7, &["vault", "key", "purge", &vault, "--name", "rsa"]).contains("purge protection"));
    world.ok(&["vault", "key", "recover", &vault, "--name", "rsa"]);
    // Without purge protection.
    let loose = world.path("loose");
    world.ok(&["vault", "create", &loose, "--no-purge-protection"]);
    world.ok(&["vault", "key", "create", &loose, "--name", "k", "--kty", "AES"]);
    world.ok(&["vault", "key", "delete", &loose, "--name", "k"]);
    world.ok(&["vault", "key", "purge", &loose, "--name", "k"]);
    world.fails(3, &["vault", "key", "show", &loose, "--name", "k"]);
    world.fails(7, &["vault", "create", &vault]);
}

#[test]
fn completions_for_every_shell() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(world.ok(&["completions", shell]).text().contains("set-policy"), "{shell}");
    }
}
