//! Docker's engine and command, and containerd: open, with passwords and with tokens.

use std::fs;

use serde_json::Value;

use crate::certificates::Authority;
use crate::engine::Engine;
use crate::images::{OCI_MANIFEST, Tools, noise};
use crate::node::Node;
use crate::tokens::TokenServer;
use crate::world::World;

#[test]
fn the_engine_builds_pushes_mounts_and_pulls() {
    let Some(engine) = Engine::start() else { return };
    let world = World::with_store();
    let node = Node::start(&world);
    let name = |name: &str| format!("{}/{name}", node.address());
    let (one, two) = (noise(700_000, 1), noise(100_000, 2));
    engine.build("scratch", "one", &one, &name("base:v1"));
    engine.docker(&["push", "-q", &name("base:v1")]);
    engine.build(&name("base:v1"), "two", &two, &name("team/app:v1"));
    let pushed = engine.docker(&["push", &name("team/app:v1")]);
    assert!(pushed.contains("Mounted from base"), "{pushed}");
    assert_eq!(node.manifest("team/app:v1")["layers"].as_array().unwrap().len(), 2);
    assert!(engine.pulled(&name("team/app:v1"), "one") == one);
    assert!(engine.pulled(&name("team/app:v1"), "two") == two);
    let digests =
        engine.docker(&["image", "inspect", "--format", "{{json .RepoDigests}}", &name("team/app:v1")]);
    let digests: Value = serde_json::from_str(&digests).unwrap();
    assert!(pushed.contains(digests[0].as_str().unwrap().rsplit_once('@').unwrap().1), "{pushed} {digests}");
    assert!(engine.pulled(digests[0].as_str().unwrap(), "two") == two);

    // The command itself makes and pushes lists.
    let list = name("multi:v1");
    engine.docker(&["manifest", "create", "--insecure", &list, &name("base:v1"), &name("team/app:v1")]);
    engine.docker(&["manifest", "annotate", "--arch", "s390x", &list, &name("base:v1")]);
    engine.docker(&["manifest", "push", "--insecure", &list]);
    let manifests = node.manifest("multi:v1")["manifests"].clone();
    assert_eq!(manifests.as_array().unwrap().len(), 2);
    engine.docker(&["manifest", "inspect", "--insecure", &list]);
    let absent = engine.try_docker(&["pull", &name("team/app:v2")]);
    assert!(absent.code != 0 && absent.stderr.contains("manifest unknown"), "{}", absent.stderr);
}

#[test]
fn the_engine_pulls_what_others_pushed() {
    let (Some(engine), Some(tools)) = (Engine::start(), Tools::find()) else { return };
    let world = World::with_store();
    let node = Node::start(&world);
    for (seed, tag) in [(3, "one"), (4, "two")] {
        tools.make("made", tag, 2, 100_000, seed);
    }
    tools.index("made", "all", &["one", "two"]);
    tools.copy(&["--all"], "oci:made:all", &node.image("multi:oci"));
    let image = format!("{}/multi:oci", node.address());
    for (platform, seed) in [("linux/amd64", 3), ("linux/arm64", 4)] {
        engine.docker(&["pull", "-q", "--platform", platform, &image]);
        let container = engine.docker(&["create", "--platform", platform, &image, "none"]);
        engine.docker(&["cp", &format!("{container}:/data/{seed}-1"), "got"]);
        assert!(fs::read(engine.path("got")).unwrap() == noise(100_000, seed * 1000 + 1), "{platform}");
    }
}

#[test]
fn the_engine_logs_in() {
    let Some(engine) = Engine::start() else { return };
    let world = World::with_store();
    let node = Authority::new().node_with_users(&world);
    let name = format!("{}/app:v1", node.address());
    let content = noise(60_000, 5);
    engine.build("scratch", "content", &content, &name);
    assert_ne!(engine.try_docker(&["push", "-q", &name]).code, 0);
    let login = |password: &str| engine.try_docker(&["login", "-u", "alice", "-p", password, node.address()]);
    assert_ne!(login("guess").code, 0);
    assert_eq!(login("wonderland").code, 0);
    engine.docker(&["push", "-q", &name]);
    assert!(engine.pulled(&name, "content") == content);
    engine.docker(&["logout", node.address()]);
    assert_ne!(engine.try_docker(&["pull", &name]).code, 0);
}

#[test]
fn the_engine_gets_tokens() {
    let Some(engine) = Engine::start() else { return };
    let world = World::with_store();
    let tokens = TokenServer::start();
    let node = tokens.registry(&world, &[]);
    let name = |name: &str| format!("{}/{name}", node.address());
    let content = noise(60_000, 6);
    engine.build("scratch", "content", &content, &name("team/app:v1"));
    let refused = engine.try_docker(&["push", &name("team/app:v1")]);
    assert!(refused.code != 0 && refused.stderr.contains("denied"), "{}", refused.stderr);
    let login = |password: &str| engine.try_docker(&["login", "-u", "alice", "-p", password, node.address()]);
    assert_ne!(login("guess").code, 0);
    assert_eq!(login("wonderland").code, 0);
    engine.docker(&["push", "-q", &name("team/app:v1")]);
    // With one token for two repositories.
    engine.docker(&["tag", &name("team/app:v1"), &name("other:v1")]);
    let pushed = engine.docker(&["push", &name("other:v1")]);
    assert!(pushed.contains("Mounted from team/app"), "{pushed}");
    engine.docker(&["logout", node.address()]);
    // Anybody may pull.
    assert!(engine.pulled(&name("other:v1"), "content") == content);
    assert!(engine.try_docker(&["push", &name("other:v1")]).stderr.contains("denied"));
}

#[test]
fn containerd_fetches_and_pushes_as_kubernetes_nodes_do() {
    let (Some(engine), Some(tools)) = (Engine::containerd(), Tools::find()) else { return };
    let world = World::with_store();
    let authority = Authority::new();
    let node = authority.node_with_users(&world);
    let open = Node::start(&world);
    for (seed, tag) in [(7, "one"), (8, "two")] {
        tools.make("made", tag, 2, 100_000, seed);
    }
    tools.index("made", "all", &["one", "two"]);
    tools.copy(&["--all"], "oci:made:all", &open.image("library/app:v1"));
    // What a node's `/etc/containerd/certs.d` has.
    let address = node.address();
    engine.write("ca.crt", &authority.pem());
    let ca = engine.path("ca.crt");
    for folder in [address.to_owned(), format!("{}_", address.replace(':', "_"))] {
        let hosts = format!("server = \"https://{address}\"\n[host.\"https://{address}\"]\nca = \"{ca}\"\n");
        engine.write(&format!("hosts/{folder}/hosts.toml"), &hosts);
    }
    let mirror = format!("[host.\"http://{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n", open.address());
    engine.write("hosts/docker.io/hosts.toml", &mirror);
    let hosts = engine.path("hosts");
    let image = format!("{address}/library/app:v1");
    let fetch = |more: &[&str], image: &str| {
        engine.try_ctr(
            &[&["content", "fetch", "--all-platforms", "--hosts-dir", &hosts], more, &[image]].concat(),
        )
    };
    for more in [&[][..], &["--user", "alice:guess"]] {
        let refused = fetch(more, &image);
        assert!(refused.code != 0 && refused.stderr.contains("401 Unauthorized"), "{}", refused.stderr);
    }
    let fetched = fetch(&["--user", "alice:wonderland"], &image);
    assert_eq!(fetched.code, 0, "{}", fetched.stderr);
    // By the name that it has elsewhere: the mirror is asked with `?ns=docker.io`.
    let fetched = fetch(&[], "docker.io/library/app:v1");
    assert_eq!(fetched.code, 0, "{}", fetched.stderr);
    let to = format!("{address}/other:v1");
    engine.ctr(&["images", "tag", "docker.io/library/app:v1", &to]);
    engine.ctr(&["images", "push", "--hosts-dir", &hosts, "--user", "alice:wonderland", &to]);
    tools.copy(&["--all"], &open.image("other:v1"), "oci:got:all");
    assert_eq!(tools.digest("got", "all"), tools.digest("made", "all"));
    let (got, made) = (tools.blobs("got"), tools.blobs("made"));
    assert!(got.len() >= 9 && got.iter().all(|blob| made.contains(blob)), "{got:?}");
    assert_eq!(open.manifest("other:v1")["manifests"][0]["mediaType"], OCI_MANIFEST);
}
