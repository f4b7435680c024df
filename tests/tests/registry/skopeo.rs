//! skopeo and umoci: what goes in comes out, in every form that they know.

use std::fs;

use serde_json::Value;

use crate::certificates::Authority;
use crate::images::{OCI_MANIFEST, Tools};
use crate::node::Node;
use crate::world::World;

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// A registry and what to use it with.
fn alone() -> Option<(World, Node, Tools)> {
    let tools = Tools::find()?;
    let world = World::with_store();
    let node = Node::start(&world);
    Some((world, node, tools))
}

#[test]
fn an_image_comes_out_as_it_went_in() {
    let Some((_world, node, tools)) = alone() else { return };
    tools.make("made", "v1", 3, 700_000, 1);
    let name = node.image("library/app:v1");
    tools.copy(&[], "oci:made:v1", &name);
    let seen: Value = serde_json::from_str(&tools.skopeo(&["inspect", "--tls-verify=false", &name])).unwrap();
    assert_eq!(
        (&seen["Digest"], seen["Layers"].as_array().unwrap().len()),
        (&tools.digest("made", "v1").into(), 3)
    );
    tools.copy(&[], &name, "oci:got:v1");
    assert_eq!(tools.digest("got", "v1"), tools.digest("made", "v1"));
    let unpacked = tools.unpack("got", "v1");
    assert_eq!((unpacked.len(), unpacked == tools.unpack("made", "v1")), (3, true));
    // By its digest, too.
    let by_digest = node.image(&format!("library/app@{}", tools.digest("made", "v1")));
    tools.copy(&[], &by_digest, "oci:by-digest:v1");
    assert!(tools.unpack("by-digest", "v1") == unpacked);
}

#[test]
fn formats_are_kept() {
    let Some((_world, node, tools)) = alone() else { return };
    tools.make("made", "v1", 1, 50_000, 2);
    let content = tools.unpack("made", "v1");
    for (format, media_type) in [("v2s2", DOCKER_MANIFEST), ("oci", OCI_MANIFEST)] {
        let name = node.image(&format!("app:{format}"));
        tools.copy(&["--format", format], "oci:made:v1", &name);
        let raw: Value =
            serde_json::from_str(&tools.skopeo(&["inspect", "--raw", "--tls-verify=false", &name])).unwrap();
        // An OCI manifest need not name its type.
        assert_eq!(raw["mediaType"].as_str().unwrap_or(OCI_MANIFEST), media_type);
        tools.copy(&["--format", "oci"], &name, &format!("oci:got:{format}"));
        assert!(tools.unpack("got", format) == content);
    }
}

#[test]
fn an_index_comes_with_all_its_images() {
    let Some((_world, node, tools)) = alone() else { return };
    for (seed, tag) in [(3, "one"), (4, "two"), (5, "three")] {
        tools.make("made", tag, 2, 100_000, seed);
    }
    tools.index("made", "all", &["one", "two", "three"]);
    let name = node.image("multi/app:latest");
    tools.copy(&["--all"], "oci:made:all", &name);
    let raw = tools.skopeo(&["inspect", "--raw", "--tls-verify=false", &name]);
    assert_eq!(crate::images::sha256(raw.as_bytes()), tools.digest("made", "all"));
    tools.copy(&["--all"], &name, "oci:got:all");
    assert_eq!(tools.digest("got", "all"), tools.digest("made", "all"));
    let (got, made) = (tools.blobs("got"), tools.blobs("made"));
    assert!(got.len() >= 13 && got.iter().all(|blob| made.contains(blob)), "{got:?}");
    // One platform of it.
    let one = ["--override-arch", "arm64", "--override-os", "linux"];
    tools.skopeo(&[&one[..], &["copy", "--src-tls-verify=false", &name, "oci:one:it"]].concat());
    assert_eq!(tools.digest("one", "it"), tools.digest("made", "two"));
}

#[test]
fn an_index_becomes_a_docker_list_and_an_index_again() {
    let Some((_world, node, tools)) = alone() else { return };
    for (seed, tag) in [(10, "one"), (11, "two")] {
        tools.make("made", tag, 2, 100_000, seed);
    }
    tools.index("made", "all", &["one", "two"]);
    let content = tools.unpack("made", "two");
    tools.copy(&["--all", "--format", "v2s2"], "oci:made:all", &node.image("multi:v2s2"));
    let list = node.manifest("multi:v2s2");
    assert_eq!(list["mediaType"], DOCKER_LIST);
    assert!(list["manifests"].as_array().unwrap().iter().all(|entry| entry["mediaType"] == DOCKER_MANIFEST));
    tools.copy(&["--all", "--format", "oci"], &node.image("multi:v2s2"), &node.image("multi:oci"));
    let one = ["--override-arch", "arm64", "--override-os", "linux"];
    tools.skopeo(
        &[&one[..], &["copy", "--src-tls-verify=false", &node.image("multi:oci"), "oci:got:two"]].concat(),
    );
    assert!(tools.unpack("got", "two") == content);
}

/// Layers that are elsewhere, as Windows' are: neither pushed nor pulled, and not asked for.
#[test]
fn a_layer_that_is_elsewhere_is_named_only() {
    let Some((_world, node, tools)) = alone() else { return };
    tools.make("made", "v1", 1, 60_000, 12);
    let before = tools.digest("made", "v1");
    tools.make_partly_elsewhere("made", "v1");
    let digest = tools.digest("made", "v1");
    assert_ne!(digest, before);
    tools.copy(&[], "oci:made:v1", &node.image("app:v1"));
    tools.copy(&[], &node.image("app:v1"), "oci:got:v1");
    assert_eq!(tools.digest("got", "v1"), digest);
    assert_eq!(node.manifest("app:v1")["layers"][1]["urls"][0], "https://elsewhere.example/layer");
}

#[test]
fn tags_are_listed_copied_within_the_registry_and_deleted() {
    let Some((_world, node, tools)) = alone() else { return };
    tools.make("made", "v1", 2, 100_000, 6);
    tools.copy(&[], "oci:made:v1", &node.image("from/app:v1"));
    // From repository to repository: layers are mounted.
    for tag in ["v1", "v2"] {
        tools.copy(&[], &node.image("from/app:v1"), &node.image(&format!("to/app:{tag}")));
    }
    let list = || {
        let listed = tools.skopeo(&["list-tags", "--tls-verify=false", &node.image("to/app")]);
        serde_json::from_str::<Value>(&listed).unwrap()["Tags"].clone()
    };
    assert_eq!(list(), serde_json::json!(["v1", "v2"]));
    // skopeo deletes what a tag names: the manifest, with all its tags.
    tools.skopeo(&["delete", "--tls-verify=false", &node.image("to/app:v1")]);
    assert_eq!(list(), serde_json::json!([]));
    let gone = tools.try_skopeo(&["inspect", "--tls-verify=false", &node.image("to/app:v2")]);
    assert!(gone.code != 0 && gone.stderr.contains("manifest unknown"), "{}", gone.stderr);
    // The other repository has its own.
    tools.copy(&[], &node.image("from/app:v1"), "oci:got:v1");
    assert_eq!(tools.digest("got", "v1"), tools.digest("made", "v1"));
}

#[test]
fn repositories_are_synced_out_and_in() {
    let Some((_world, node, tools)) = alone() else { return };
    for (seed, tag) in [(7, "v1"), (8, "v2")] {
        tools.make("made", tag, 1, 60_000, seed);
        tools.copy(&[], &format!("oci:made:{tag}"), &node.image(&format!("from/app:{tag}")));
    }
    let from = format!("{}/from/app", node.address());
    let plain = ["--src-tls-verify=false", "--dest-tls-verify=false"];
    fs::create_dir(tools.path("out")).unwrap();
    tools.skopeo(&[&["sync"], &plain[..], &["--src", "docker", "--dest", "dir", &from, "out"]].concat());
    let to = format!("{}/mirror", node.address());
    tools.skopeo(&[&["sync"], &plain[..], &["--src", "dir", "--dest", "docker", "out", &to]].concat());
    for tag in ["v1", "v2"] {
        tools.copy(&[], &node.image(&format!("mirror/app:{tag}")), &format!("oci:got:{tag}"));
        assert_eq!(tools.digest("got", tag), tools.digest("made", tag));
    }
}

#[test]
fn a_user_logs_in_over_tls() {
    let Some(tools) = Tools::find() else { return };
    let world = World::with_store();
    let authority = Authority::new();
    let trusted = tools.path("trusted");
    fs::create_dir(&trusted).unwrap();
    fs::write(format!("{trusted}/ca.crt"), authority.pem()).unwrap();
    let node = authority.node_with_users(&world);
    tools.make("made", "v1", 1, 60_000, 9);
    let name = node.image("app:v1");
    let push = ["copy", "--dest-cert-dir", &trusted, "oci:made:v1", &name];
    let refused = tools.try_skopeo(&push);
    assert!(refused.code != 0 && refused.stderr.contains("authentication required"), "{}", refused.stderr);
    let login = |password: &str| {
        tools.try_skopeo(&["login", "--cert-dir", &trusted, "-u", "alice", "-p", password, node.address()])
    };
    assert_ne!(login("guess").code, 0);
    assert_eq!(login("wonderland").code, 0);
    tools.skopeo(&push);
    tools.skopeo(&["copy", "--src-cert-dir", &trusted, &name, "oci:got:v1"]);
    assert_eq!(tools.digest("got", "v1"), tools.digest("made", "v1"));
    // Who does not know the certificate does not send a password.
    assert!(tools.try_skopeo(&["copy", &name, "oci:got:v2"]).stderr.contains("certificate"));
    tools.skopeo(&["logout", node.address()]);
    assert_ne!(tools.try_skopeo(&["inspect", "--cert-dir", &trusted, &name]).code, 0);
}
