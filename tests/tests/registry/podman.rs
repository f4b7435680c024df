//! podman: what users do with it, from login to a layer of which only the new files are sent.

use serde_json::{Value, json};

use crate::certificates::Authority;
use crate::containers::{Containers, file};
use crate::images::noise;
use crate::node::Node;
use crate::tokens::TokenServer;
use crate::world::World;

/// A registry and what to use it with.
fn alone() -> Option<(World, Node, Containers)> {
    let podman = Containers::podman()?;
    let world = World::with_store();
    let node = Node::start(&world);
    podman.plain(&[node.address()], &[node.address()]);
    Some((world, node, podman))
}

/// Pulls an image anew; where its files are.
fn unpacked(podman: &Containers, name: &str) -> String {
    podman.run(&["rmi", "--all", "--force"]);
    podman.run(&["pull", "-q", name]);
    podman.run(&["image", "mount", name])
}

#[test]
fn images_are_pushed_tagged_listed_and_pulled() {
    let Some((_world, node, podman)) = alone() else { return };
    let name = |name: &str| format!("{}/{name}", node.address());
    let content = noise(700_000, 1);
    podman.build("scratch", &[("content", &content)], &name("team/app:v1"), &[]);
    podman.run(&["push", "-q", "--digestfile", "digest", &name("team/app:v1")]);
    let digest = podman.written("digest");
    podman.run(&["tag", &name("team/app:v1"), &name("team/app:v2"), &name("other:v1")]);
    for tagged in ["team/app:v2", "other:v1"] {
        podman.run(&["push", "-q", &name(tagged)]);
    }
    let listed = podman.run(&["search", "--list-tags", "--format", "json", &name("team/app")]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed[0]["Tags"], json!(["v1", "v2"]));
    // It asks what there is.
    let found = podman.run(&["search", "--format", "{{.Name}}", &name("app")]);
    assert_eq!(found, name("team/app"));
    for by in [name("team/app:v2"), name("other:v1"), format!("{}@{digest}", name("team/app"))] {
        assert!(file(&unpacked(&podman, &by), "content") == content, "{by}");
    }
    podman.run(&["rmi", "--all", "--force"]);
    podman.run(&["pull", "-q", "--all-tags", &name("team/app")]);
    let got = podman.run(&["images", "--format", "{{.Tag}}"]);
    assert_eq!(got.split_whitespace().count(), 2, "{got}");
}

#[test]
fn a_mirror_has_what_is_named_after_another_registry() {
    let Some((_world, node, podman)) = alone() else { return };
    let content = noise(60_000, 2);
    let name = format!("{}/library/app:v1", node.address());
    podman.build("scratch", &[("content", &content)], &name, &[]);
    podman.run(&["push", "-q", &name]);
    assert!(file(&unpacked(&podman, "docker.io/library/app:v1"), "content") == content);
}

#[test]
fn an_index_comes_with_all_its_images() {
    let Some((_world, node, podman)) = alone() else { return };
    let name = |name: &str| format!("{}/{name}", node.address());
    podman.run(&["manifest", "create", "list"]);
    for (seed, machine) in [(3, "amd64"), (4, "arm64")] {
        let one = name(&format!("of:{machine}"));
        let more = ["--platform", &format!("linux/{machine}")];
        podman.build("scratch", &[("content", &noise(60_000, seed))], &one, &more);
        podman.run(&["push", "-q", &one]);
        podman.run(&["manifest", "add", "list", &format!("docker://{one}")]);
    }
    podman.run(&["manifest", "push", "--all", "list", &format!("docker://{}", name("multi:latest"))]);
    assert_eq!(node.manifest("multi:latest")["manifests"].as_array().unwrap().len(), 2);
    podman.run(&["rmi", "--all", "--force"]);
    podman.run(&["pull", "-q", "--arch", "arm64", &name("multi:latest")]);
    let mounted = podman.run(&["image", "mount", &name("multi:latest")]);
    assert!(file(&mounted, "content") == noise(60_000, 4));
}

#[test]
fn of_a_layer_with_new_files_only_these_are_sent() {
    let Some((_world, node, podman)) = alone() else { return };
    podman.as_root();
    podman.store_in("overlay", "[storage.options]\npull_options = {enable_partial_images = \"true\"}\n");
    if podman.attempt(&["info"]).code != 0 {
        // A machine whose file system is an overlay itself.
        bulla_tests::forbidden("podman can't store layers as overlays here");
        return;
    }
    let name = |tag: &str| format!("{}/app:{tag}", node.address());
    let names: Vec<String> = (0..40).map(|number| number.to_string()).collect();
    let mut files: Vec<(&str, Vec<u8>)> =
        names.iter().zip(100..).map(|(name, seed)| (name.as_str(), noise(50_000, seed))).collect();
    for tag in ["v1", "v2"] {
        let content: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (*name, &bytes[..])).collect();
        podman.build("scratch", &content, &name(tag), &[]);
        podman.run(&["push", "-q", "--compression-format", "zstd:chunked", &name(tag)]);
        // Some of them are others in the next version.
        if tag == "v1" {
            for number in [3, 4, 15, 22, 39] {
                files[number].1 = noise(50_000, 1000 + number as u64);
            }
        }
    }
    podman.run(&["rmi", "--all", "--force"]);
    let pull = |tag: &str| {
        let before = node.sent();
        podman.run(&["pull", "-q", &name(tag)]);
        node.sent() - before
    };
    let (first, second) = (pull("v1"), pull("v2"));
    assert!(first > 2_000_000, "{first}");
    assert!(second > 250_000 && second < 400_000, "{second} bytes were sent for five files of 50,000");
    let mounted = podman.run(&["image", "mount", &name("v2")]);
    for (name, bytes) in &files {
        assert!(file(&mounted, name) == *bytes, "{name}");
    }
    podman.run(&["image", "umount", "--all"]);
}

#[test]
fn a_user_logs_in_over_tls() {
    let Some(podman) = Containers::podman() else { return };
    let world = World::with_store();
    let authority = Authority::new();
    let node = authority.node_with_users(&world);
    let name = format!("{}/team/app:v1", node.address());
    let content = noise(60_000, 5);
    podman.build("scratch", &[("content", &content)], &name, &[]);
    assert!(podman.attempt(&["push", &name]).stderr.contains("certificate"));
    podman.trust(node.address(), &authority.pem());
    let refused = podman.attempt(&["push", &name]);
    assert!(refused.code != 0 && refused.stderr.contains("authentication required"), "{}", refused.stderr);
    let login = |password: &str| podman.attempt(&["login", "-u", "alice", "-p", password, node.address()]);
    assert_ne!(login("guess").code, 0);
    assert_eq!(login("wonderland").code, 0);
    podman.run(&["push", "-q", &name]);
    assert!(file(&unpacked(&podman, &name), "content") == content);
    assert_eq!(
        podman.run(&["search", "--format", "{{.Name}}", &format!("{}/app", node.address())]),
        format!("{}/team/app", node.address())
    );
    podman.run(&["logout", node.address()]);
    assert_ne!(podman.attempt(&["pull", &name]).code, 0);
}

#[test]
fn a_user_gets_tokens() {
    let Some(podman) = Containers::podman() else { return };
    let world = World::with_store();
    let tokens = TokenServer::start();
    let node = tokens.registry(&world, &[]);
    podman.plain(&[node.address()], &[]);
    let (name, mounted) = (format!("{}/team/app:v1", node.address()), format!("{}/other:v1", node.address()));
    let content = noise(60_000, 6);
    podman.build("scratch", &[("content", &content)], &name, &[]);
    podman.run(&["tag", &name, &mounted]);
    let refused = podman.attempt(&["push", &name]);
    assert!(refused.code != 0 && refused.stderr.contains("denied"), "{}", refused.stderr);
    let login = |password: &str| podman.attempt(&["login", "-u", "alice", "-p", password, node.address()]);
    assert_ne!(login("guess").code, 0);
    assert_eq!(login("wonderland").code, 0);
    podman.run(&["push", "-q", &name]);
    podman.run(&["push", "-q", &mounted]);
    podman.run(&["logout", node.address()]);
    // Anybody may pull.
    assert!(file(&unpacked(&podman, &name), "content") == content);
    assert!(file(&unpacked(&podman, &mounted), "content") == content);
}
