//! buildah: what it builds upon what it pulls, in every form that it pushes.

use serde_json::Value;

use crate::certificates::Authority;
use crate::containers::{Containers, file};
use crate::images::noise;
use crate::node::Node;
use crate::world::World;

/// A registry and what to use it with.
fn alone() -> Option<(World, Node, Containers)> {
    let buildah = Containers::buildah()?;
    let world = World::with_store();
    let node = Node::start(&world);
    buildah.plain(&[node.address()], &[]);
    Some((world, node, buildah))
}

/// Pulls an image anew; where its files are.
fn unpacked(buildah: &Containers, name: &str, more: &[&str]) -> String {
    buildah.run(&["rmi", "--all", "--force"]);
    let container = buildah.run(&[&["from", "--pull-always"], more, &[name]].concat());
    buildah.run(&["mount", &container])
}

#[test]
fn an_image_is_built_upon_one_of_the_registry() {
    let Some((_world, node, buildah)) = alone() else { return };
    let (one, two) = (noise(700_000, 1), noise(100_000, 2));
    let (base, app) = (format!("{}/base:v1", node.address()), format!("{}/team/app:v1", node.address()));
    buildah.build("scratch", &[("one", &one)], &base, &[]);
    buildah.run(&["push", &base]);
    buildah.run(&["rmi", "--all", "--force"]);
    buildah.build(&base, &[("two", &two)], &app, &["--pull"]);
    buildah.run(&["push", &app]);
    let layers = node.manifest("team/app:v1")["layers"].as_array().unwrap().len();
    assert_eq!(layers, 2);
    let mounted = unpacked(&buildah, &app, &[]);
    assert!(file(&mounted, "one") == one && file(&mounted, "two") == two);
}

#[test]
fn every_form_and_compression_comes_back() {
    let Some((_world, node, buildah)) = alone() else { return };
    let oci = "application/vnd.oci.image.layer.v1.tar";
    let docker = "application/vnd.docker.image.rootfs.diff.tar";
    for (tag, more, layer) in [
        ("oci", &["--format", "oci"][..], format!("{oci}+gzip")),
        ("v2s2", &["--format", "v2s2"], format!("{docker}.gzip")),
        ("zstd", &["--format", "oci", "--compression-format", "zstd"], format!("{oci}+zstd")),
    ] {
        let content = noise(300_000, 3);
        let name = format!("{}/forms:{tag}", node.address());
        // buildah knows which layers it has pushed how: another each time.
        buildah.build("scratch", &[("content", &content), ("tag", tag.as_bytes())], &name, &[]);
        buildah.run(&[&["push"], more, &[&name]].concat());
        assert_eq!(node.manifest(&format!("forms:{tag}"))["layers"][0]["mediaType"], layer.as_str());
        let mounted = unpacked(&buildah, &name, &[]);
        assert!(file(&mounted, "content") == content && file(&mounted, "tag") == tag.as_bytes());
    }
    let name = format!("{}/forms:oci", node.address());
    let refused = buildah.attempt(&["push", "--format", "v2s1", &name]);
    assert_ne!(refused.code, 0);
}

#[test]
fn an_index_comes_with_all_its_images() {
    let Some((_world, node, buildah)) = alone() else { return };
    let name = |name: &str| format!("{}/{name}", node.address());
    buildah.run(&["manifest", "create", "list"]);
    for (seed, machine) in [(4, "amd64"), (5, "arm64"), (6, "s390x")] {
        let one = name(&format!("of:{machine}"));
        let more = ["--platform", &format!("linux/{machine}")];
        buildah.build("scratch", &[("content", &noise(60_000, seed))], &one, &more);
        buildah.run(&["push", &one]);
        buildah.run(&["manifest", "add", "list", &format!("docker://{one}")]);
    }
    let forms = [
        ("oci", "application/vnd.oci.image.index.v1+json"),
        ("v2s2", "application/vnd.docker.distribution.manifest.list.v2+json"),
    ];
    for (form, media_type) in forms {
        let to = format!("docker://{}", name(&format!("multi:{form}")));
        buildah.run(&["manifest", "push", "--all", "--format", form, "list", &to]);
        let index = node.manifest(&format!("multi:{form}"));
        assert_eq!(index["mediaType"], media_type);
        let machines: Vec<&Value> =
            index["manifests"].as_array().unwrap().iter().map(|of| &of["platform"]["architecture"]).collect();
        assert_eq!(machines, ["amd64", "arm64", "s390x"]);
    }
    for (form, _) in forms {
        let mounted = unpacked(&buildah, &name(&format!("multi:{form}")), &["--arch", "arm64"]);
        assert!(file(&mounted, "content") == noise(60_000, 5));
    }
}

#[test]
fn a_user_logs_in_over_tls() {
    let Some(buildah) = Containers::buildah() else { return };
    let world = World::with_store();
    let authority = Authority::new();
    let node = authority.node_with_users(&world);
    let name = format!("{}/app:v1", node.address());
    let content = noise(60_000, 7);
    buildah.build("scratch", &[("content", &content)], &name, &[]);
    // Who does not know the certificate does not send a password.
    assert!(buildah.attempt(&["push", &name]).stderr.contains("certificate"));
    buildah.trust(node.address(), &authority.pem());
    let refused = buildah.attempt(&["push", &name]);
    assert!(refused.code != 0 && refused.stderr.contains("authentication required"), "{}", refused.stderr);
    let login = |password: &str| buildah.attempt(&["login", "-u", "alice", "-p", password, node.address()]);
    assert_ne!(login("guess").code, 0);
    assert_eq!(login("wonderland").code, 0);
    buildah.run(&["push", &name]);
    assert!(file(&unpacked(&buildah, &name, &[]), "content") == content);
    buildah.run(&["logout", node.address()]);
    assert_ne!(buildah.attempt(&["from", "--pull-always", &name]).code, 0);
}
