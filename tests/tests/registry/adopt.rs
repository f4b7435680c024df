//! `bulla adopt`: the storage of a real CNCF Distribution registry, filled by real clients, becomes ours.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Stdio;

use crate::distribution::Distribution;
use crate::images::Tools;
use crate::node::Node;
use crate::nodes::fetch;
use crate::world::{IDENTITY, World, files};

/// A folder that the other registry has filled.
fn filled(tools: &Tools, world: &World) -> Option<()> {
    Distribution::of_folder(world)?.fill(tools);
    Some(())
}

fn source(world: &World) -> PathBuf {
    world.dir.path().join("source")
}

#[test]
fn another_registrys_storage_is_taken_over_in_place() {
    let Some(tools) = Tools::find() else { return };
    let world = World::with_store();
    if filled(&tools, &world).is_none() {
        return;
    }
    let (from, store) = (world.path("source"), world.store());
    let before: Vec<_> =
        files(source(&world)).into_iter().map(|file| (fs::read(&file).unwrap(), file)).collect();
    let in_store = files(&store).len();

    let within = world.path("source/docker/registry/v2/store");
    let line = world.fails(2, &["adopt", &from, &within]);
    assert!(line.contains("put it beside"), "{line}");
    let dry = world.json(&["adopt", &from, &store, "--dry-run"]);
    assert_eq!(dry["unsealed"], before.len(), "{dry:#}");
    assert_eq!(dry["tags"], 4, "{dry:#}");
    assert_eq!(files(&store).len(), in_store, "a dry run writes nothing");

    let ran = world.run(&["adopt", &from, &store, "--json"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.contains("--delete-source"), "{ran:?}");
    let report: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(
        (&report["sealed"], &report["tags"], &report["repositories"]),
        (&dry["sealed"], &4.into(), &2.into())
    );
    let after: Vec<_> =
        files(source(&world)).into_iter().map(|file| (fs::read(&file).unwrap(), file)).collect();
    assert_eq!(before, after, "the source is as it was");
    let again = world.run(&["adopt", &from, &store, "--json"]);
    let again: serde_json::Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!((&again["sealed"]["objects"], &again["tags"]), (&0.into(), &0.into()), "{again:#}");

    let text = world.ok(&["adopt", &from, &store, "--delete-source", "--drop-unlinked"]);
    let last = text.text().lines().last().unwrap().to_owned();
    assert_eq!(last, format!("0 of {} objects unsealed", before.len()), "{}", text.text());
    assert!(files(source(&world)).is_empty(), "{:?}", files(source(&world)));

    assert_served(&tools, &Node::start(&world));
}

/// Clients find what [`Distribution::fill`] pushed to the other registry.
pub(crate) fn assert_served(tools: &Tools, node: &Node) {
    for (name, tag) in [("library/app:one", "one"), ("library/app:two", "two"), ("copy:one", "again")] {
        tools.copy(&[], &node.image(name), &format!("oci:back:{tag}"));
    }
    tools.copy(&["--all"], &node.image("library/app:both"), "oci:back:both");
    for tag in ["one", "two"] {
        assert_eq!(tools.unpack("back", tag), tools.unpack("images", tag));
    }
    assert_eq!(tools.digest("back", "both"), tools.digest("images", "both"));
    let gone = tools.try_skopeo(&["inspect", "--tls-verify=false", &node.image("copy:gone")]);
    assert!(gone.code != 0, "what was deleted there is not here either");
}

/// A store may be where the other registry's folder is, beside its `docker`; neither may be within the other.
#[test]
fn a_store_in_the_same_folder_is_filled_and_the_source_goes() {
    let Some(tools) = Tools::find() else { return };
    let world = World::with_vault();
    if filled(&tools, &world).is_none() {
        return;
    }
    let here = world.path("source");
    let all = files(&here).len();
    let line = world.fails(2, &["adopt", &here, &world.path("source/docker/registry/v2/store")]);
    assert!(line.contains("put it beside that"), "{line}");
    world.ok(&["init", &here, "--kek", &world.kek(), "--identity", IDENTITY]);
    let ran = world.ok(&["adopt", &here, &here, "--delete-source", "--drop-unlinked"]);
    assert_eq!(ran.text().lines().last().unwrap(), format!("0 of {all} objects unsealed"));
    assert!(files(source(&world).join("docker")).is_empty());
    assert_served(&tools, &Node::of(&world, &here, &[]));
    let verified = world.ok(&["verify", &here, "--deep"]);
    assert!(verified.text().contains("damaged  0"), "{verified:?}");

    // Another registry's folder among what gc looks through would be in danger.
    let within = source(&world).join("data/docker/registry/v2");
    fs::create_dir_all(&within).unwrap();
    fs::write(within.join("x"), "").unwrap();
    let line = world.fails(2, &["adopt", &world.path("source/data"), &here]);
    assert!(line.contains("where its gc removes") && line.contains("move the source"), "{line}");
}

/// Killed at chosen points of its work and run again, it ends as if it had not been.
#[test]
fn killed_and_run_again_it_finishes() {
    let Some(tools) = Tools::find() else { return };
    let world = World::with_store();
    let Some(other) = Distribution::of_folder(&world) else { return };
    other.fill(&tools);
    for seed in 10..18 {
        let tag = format!("more{seed}");
        tools.make("images", &tag, 2, 400_000, seed);
        tools.copy(&[], &format!("oci:images:{tag}"), &other.image(&format!("library/app:{tag}")));
    }
    drop(other);
    let (from, store) = (world.path("source"), world.store());
    let arguments = ["adopt", &from, &store, "--delete-source", "--drop-unlinked"];
    let all = files(source(&world)).len();
    let to_do = || {
        let dry = world.json(&["adopt", &from, &store, "--dry-run"]);
        let count = |what: &str| dry[what]["objects"].as_u64().unwrap();
        count("sealed") + count("manifests") + dry["tags"].as_u64().unwrap()
    };
    let (empty, mut before) = (files(&store).len(), to_do());
    for more in [3, 25, 60] {
        let mut adopting =
            world.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while files(&store).len() < empty + more {
            assert_eq!(adopting.try_wait().unwrap(), None, "it ended before {more} files were there");
        }
        adopting.kill().unwrap();
        let ended = adopting.wait().unwrap();
        assert_eq!(ended.signal(), Some(9), "it was in its middle");
        let left = to_do();
        assert!((1..=before).contains(&left), "{left} of {before} left after {more} files");
        assert_eq!(files(source(&world)).len(), all, "no original goes before all is there");
        before = left;
    }
    let last = world.ok(&arguments);
    assert_eq!(last.text().lines().last().unwrap(), format!("0 of {all} objects unsealed"));
    assert!(files(source(&world)).is_empty());
    let node = Node::start(&world);
    assert_served(&tools, &node);
    for seed in 10..18 {
        let tag = format!("more{seed}");
        tools.copy(&[], &node.image(&format!("library/app:{tag}")), &format!("oci:back:{tag}"));
        assert_eq!(tools.digest("back", &tag), tools.digest("images", &tag));
    }
    drop(node);
    assert!(world.ok(&["verify", &store, "--deep"]).text().contains("damaged  0"));
}

/// The other registry has no referrers API: clients keep an index under a tag made of the digest. Here they are in the API, and
/// the tag is still there for these clients.
#[test]
fn signatures_of_the_other_registrys_images_are_in_the_referrers_api() {
    let Some(tools) = Tools::find() else { return };
    let world = World::with_store();
    let Some(other) = Distribution::of_folder(&world) else { return };
    tools.make("images", "one", 1, 10_000, 1);
    tools.make("images", "signature", 1, 10, 2);
    tools.make_about("images", "signature", "one");
    tools.index("images", "referrers", &["signature"]);
    let (image, signature) = (tools.digest("images", "one"), tools.digest("images", "signature"));
    let tag = format!("app:{}", image.replace(':', "-"));
    tools.copy(&[], "oci:images:one", &other.image("app:one"));
    tools.copy(&["--all"], "oci:images:referrers", &other.image(&tag));
    drop(other);
    world.ok(&["adopt", &world.path("source"), &world.store(), "--delete-source", "--drop-unlinked"]);
    let node = Node::start(&world);
    let listed = fetch(&format!("http://{}/v2/app/referrers/{image}", node.address()));
    let listed: serde_json::Value = serde_json::from_slice(&listed).unwrap();
    assert_eq!(listed["manifests"].as_array().unwrap().len(), 1, "{listed:#}");
    assert_eq!(listed["manifests"][0]["digest"], signature);
    assert_eq!(listed["manifests"][0]["annotations"]["about"], "another");
    tools.copy(&["--all"], &node.image(&tag), "oci:back:referrers");
    assert_eq!(tools.digest("back", "referrers"), tools.digest("images", "referrers"));
}

/// What is linked under a name that we don't understand is not unlinked: nothing is removed then.
#[test]
fn what_may_be_linked_is_not_dropped() {
    let Some(tools) = Tools::find() else { return };
    let world = World::with_store();
    if filled(&tools, &world).is_none() {
        return;
    }
    let repositories = source(&world).join("docker/registry/v2/repositories");
    fs::rename(repositories.join("library"), repositories.join("Library")).unwrap();
    let count = files(source(&world)).len();
    let arguments = ["adopt", &world.path("source"), &world.store(), "--delete-source", "--drop-unlinked"];
    let ran = world.run(&arguments);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.stderr.contains("Library/app") && ran.stderr.contains("may be a link"), "{ran:?}");
    assert_eq!(files(source(&world)).len(), count, "all originals are there");
}

/// A layer that is not what its name says is named, the rest is adopted, and nothing is removed.
#[test]
fn what_is_damaged_in_the_source_is_named_and_keeps_all_originals() {
    let Some(tools) = Tools::find() else { return };
    let world = World::with_store();
    if filled(&tools, &world).is_none() {
        return;
    }
    let blobs = source(&world).join("docker/registry/v2/blobs");
    let largest = files(blobs).into_iter().max_by_key(|file| fs::metadata(file).unwrap().len()).unwrap();
    let mut bytes = fs::read(&largest).unwrap();
    bytes[1000] ^= 1;
    fs::write(&largest, &bytes).unwrap();
    let digest = largest.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
    let count = files(source(&world)).len();
    let ran = world.run(&["adopt", &world.path("source"), &world.store(), "--delete-source"]);
    assert_eq!(ran.code, 8, "{ran:?}");
    assert!(ran.stderr.contains(&digest), "{ran:?}");
    assert_eq!(files(source(&world)).len(), count);
}

/// Removing a link leaves what it points to, so links keep everything; what they point to is adopted.
#[test]
fn a_symbolic_link_is_named_and_keeps_all_originals() {
    let Some(tools) = Tools::find() else { return };
    let world = World::with_store();
    if filled(&tools, &world).is_none() {
        return;
    }
    let blobs = source(&world).join("docker/registry/v2/blobs");
    let largest = files(&blobs).into_iter().max_by_key(|file| fs::metadata(file).unwrap().len()).unwrap();
    let elsewhere = world.dir.path().join("elsewhere");
    fs::rename(&largest, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &largest).unwrap();
    std::os::unix::fs::symlink("nowhere", blobs.join("broken")).unwrap();
    let count = files(source(&world)).len();

    let (from, store) = (world.path("source"), world.store());
    let report = world.run(&["adopt", &from, &store, "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
    assert_eq!(report["irregular"].as_array().unwrap().len(), 2, "{report:#}");
    assert_eq!((&report["failures"], &report["tags"]), (&serde_json::json!([]), &4.into()), "{report:#}");
    let ran = world.run(&["adopt", &from, &store, "--delete-source", "--drop-unlinked"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.stderr.contains("broken: it is no file"), "{ran:?}");
    assert_eq!(files(source(&world)).len(), count);
    assert_served(&tools, &Node::start(&world));

    // What the message says helps.
    fs::remove_file(blobs.join("broken")).unwrap();
    fs::rename(&elsewhere, &largest).unwrap();
    world.ok(&["adopt", &from, &store, "--delete-source", "--drop-unlinked"]);
    assert!(files(source(&world)).is_empty());
}

/// A script can tell a tag that is another image here from a damaged source.
#[test]
fn a_tag_that_was_pushed_here_meanwhile_is_a_conflict() {
    let Some(tools) = Tools::find() else { return };
    let world = World::with_store();
    if filled(&tools, &world).is_none() {
        return;
    }
    let node = Node::start(&world);
    tools.copy(&[], "oci:images:two", &node.image("library/app:one"));
    let (from, store) = (world.path("source"), world.store());
    let ran = world.run(&["adopt", &from, &store, "--delete-source"]);
    assert_eq!(ran.code, 7, "{ran:?}");
    assert!(
        ran.stderr.contains("library/app: tag one: it names") && ran.stderr.contains("delete one"),
        "{ran:?}"
    );
    tools.skopeo(&["delete", "--tls-verify=false", &node.image("library/app:one")]);
    drop(node);
    let after = world.ok(&["adopt", &from, &store, "--delete-source", "--drop-unlinked"]);
    assert!(after.text().lines().last().unwrap().starts_with("0 of "));
    assert_served(&tools, &Node::start(&world));
}
