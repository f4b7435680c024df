//! `bulla import` and `bulla export`, with layouts and archives that umoci and skopeo make and read.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::images::{OCI_MANIFEST, Tools, sha256};
use crate::node::Node;
use crate::world::World;

#[test]
fn layouts_go_in_and_come_out() {
    let Some(tools) = Tools::find() else { return };
    let world = World::with_store();
    let store = world.store();
    tools.make_both();
    let layout = tools.path("images");

    let report = world.json(&["import", &layout, &store, "--repository", "library/app"]);
    assert_eq!(report["tags"]["one"], tools.digest("images", "one"), "{report:#}");
    assert_eq!(report["tags"].as_object().unwrap().len(), 3, "{report:#}");
    let again = world.json(&["import", &layout, &store, "--repository", "library/app"]);
    assert_eq!(again["sealed"]["objects"], 0, "{again:#}");
    let renamed = ["import", &layout, &store, "--repository", "other", "--only", "one", "--tag", "v1"];
    assert_eq!(world.json(&renamed)["manifests"], 1);
    let line = world.fails(2, &["import", &layout, &store, "--repository", "other", "--only", "three"]);
    assert!(line.contains("one, two, both"), "{line}");

    // With a signature of a kind, pushed by a client.
    let node = Node::start(&world);
    tools.copy(&["--all"], &node.image("library/app:both"), "oci:pulled:both");
    assert_eq!(tools.digest("pulled", "both"), tools.digest("images", "both"));
    drop(node);

    let out = tools.path("exported");
    for tag in ["one", "both"] {
        let report = world.json(&["export", &store, &format!("library/app:{tag}"), &out]);
        assert_eq!(report["digest"], tools.digest("images", tag), "{report:#}");
    }
    assert_eq!(tools.unpack("exported", "one"), tools.unpack("images", "one"));
    tools.copy(&["--all"], "oci:exported:both", "oci:copied:both");
    assert_eq!(tools.digest("copied", "both"), tools.digest("images", "both"));
    tools.blobs("exported");
    // What was damaged there since is written again.
    let folder = fs::read_dir(tools.path("exported/blobs/sha256")).unwrap();
    let largest =
        folder.map(|file| file.unwrap().path()).max_by_key(|file| fs::metadata(file).unwrap().len()).unwrap();
    let mut bytes = fs::read(&largest).unwrap();
    bytes[1000] ^= 1;
    fs::write(&largest, &bytes).unwrap();
    let report = world.json(&["export", &store, "library/app:both", &out]);
    assert_eq!(report["written"]["objects"], 1, "{report:#}");
    tools.blobs("exported");
    let by_digest = format!("other@{}", tools.digest("images", "one"));
    world.ok(&["export", &store, &by_digest, &tools.path("single")]);

    // A manifest is no blob, and who takes it for one is told what to run.
    for command in ["stat", "get", "rm"] {
        let line = world.fails(3, &[command, &store, &tools.digest("images", "two")]);
        let export = line.split('`').find(|part| part.starts_with("bulla export ")).unwrap();
        let [_, _, from, image, _] = export.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        world.ok(&["export", from, image, &tools.path(command)]);
    }

    // Nothing is written over what is no layout.
    fs::create_dir(tools.path("mine")).unwrap();
    fs::write(tools.path("mine/notes"), "mine").unwrap();
    let line = world.fails(2, &["export", &store, "library/app:one", &tools.path("mine")]);
    assert!(line.contains("neither an OCI layout nor empty"), "{line}");
    world.fails(3, &["export", &store, "library/app:none", &out]);
    let line = world.fails(2, &["export", "library/app:one", &out, &store]);
    assert!(line.contains("the store comes first"), "{line}");
    world.fails(2, &["import", &tools.path("mine"), &store, "--repository", "other"]);
}

/// What is not what its name says goes nowhere, and is named; so is what is missing, and who needs it.
#[test]
fn a_damaged_layout_is_refused() {
    let Some(tools) = Tools::find() else { return };
    let world = World::with_store();
    tools.make("images", "one", 1, 300_000, 1);
    let folder = tools.path("images/blobs/sha256");
    let layer = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let layer = layer.max_by_key(|file| fs::metadata(file).unwrap().len()).unwrap();
    let mut bytes = fs::read(&layer).unwrap();
    bytes[1000] ^= 1;
    fs::write(&layer, bytes).unwrap();
    let arguments = ["import", &tools.path("images"), &world.store(), "--repository", "app"];
    let damaged = || {
        let line = world.fails(8, &arguments);
        assert!(line.contains(layer.to_str().unwrap()), "{line}");
        line
    };
    assert!(damaged().contains("have digest"));
    world.fails(3, &["export", &world.store(), "app:one", &tools.path("out")]);
    fs::remove_file(&layer).unwrap();
    let line = world.fails(8, &arguments);
    let (name, manifest) = (layer.strip_prefix(tools.path("images")).unwrap(), tools.digest("images", "one"));
    assert!(line.contains(&format!("has no `{}`", name.display())), "{line}");
    assert!(line.contains(&manifest.replace(':', "/")), "who needs it: {line}");
    // The manifest itself.
    fs::write(tools.dir.path().join("images/blobs").join(manifest.replace(':', "/")), "{}").unwrap();
    let line = world.fails(8, &arguments);
    assert!(line.contains(&manifest.replace(':', "/")) && line.contains("have digest"), "{line}");
}

/// Names that other programs give, and indexes within indexes that none makes.
#[test]
fn names_and_depths_of_others() {
    let Some(tools) = Tools::find() else { return };
    let world = World::with_store();
    tools.make("images", "one", 1, 10_000, 1);
    let layout = tools.dir.path().join("images");
    let index = layout.join("index.json");
    let named = |name: &str, media_type: &str, digest: &str| {
        let entry = json!({"mediaType": media_type, "digest": digest, "size": 1,
            "annotations": {"org.opencontainers.image.ref.name": name}});
        fs::write(&index, json!({"schemaVersion": 2, "manifests": [entry]}).to_string()).unwrap();
    };
    let (store, folder, digest) = (world.store(), tools.path("images"), tools.digest("images", "one"));
    let import = ["import", &folder, &store, "--repository", "app"];
    named("localhost:5000/some/app:v3", OCI_MANIFEST, &digest);
    assert_eq!(world.json(&import)["tags"]["v3"], digest);
    named("localhost:5000/some/app", OCI_MANIFEST, &digest);
    let line = world.fails(2, &import);
    assert!(line.contains("--tag"), "{line}");

    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    let mut child = json!({"mediaType": OCI_MANIFEST, "digest": digest, "size": 1});
    for _ in 0..1000 {
        let bytes = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [child]}).to_string();
        let digest = sha256(bytes.as_bytes());
        fs::write(layout.join("blobs").join(digest.replace(':', "/")), &bytes).unwrap();
        child = json!({"mediaType": INDEX, "digest": digest, "size": bytes.len()});
    }
    named("deep", INDEX, child["digest"].as_str().unwrap());
    let line = world.fails(2, &import);
    assert!(line.contains("indexes"), "{line}");
}

/// What refers to an image comes along if it is asked for.
#[test]
fn referrers_are_exported_with_their_subject() {
    let Some(tools) = Tools::find() else { return };
    let world = World::with_store();
    tools.make("images", "one", 1, 10_000, 1);
    let layout = tools.dir.path().join("images");
    let subject = tools.digest("images", "one");
    let put = |bytes: &[u8]| {
        let digest = sha256(bytes);
        fs::write(layout.join("blobs").join(digest.replace(':', "/")), bytes).unwrap();
        json!({"mediaType": "application/x", "digest": digest, "size": bytes.len()})
    };
    let empty = put(b"{}");
    let about = json!({"mediaType": OCI_MANIFEST, "digest": subject, "size": 1});
    let signature = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": "application/x.signature",
        "config": empty, "layers": [put(b"signed")], "subject": about});
    let mut entry = put(signature.to_string().as_bytes());
    entry["mediaType"] = OCI_MANIFEST.into();
    let index = layout.join("index.json");
    let mut value: serde_json::Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    value["manifests"].as_array_mut().unwrap().push(entry.clone());
    fs::write(&index, value.to_string()).unwrap();

    let (store, layout) = (world.store(), tools.path("images"));
    assert_eq!(world.json(&["import", &layout, &store, "--repository", "app"])["manifests"], 2);
    // It has no name of its own, and comes with what has: under that, or under another.
    for (repository, more) in [("only", &["--only", "one"][..]), ("tagged", &["--tag", "v1"])] {
        let import = ["import", &layout, &store, "--repository", repository];
        let report = world.json(&[&import[..], more].concat());
        assert_eq!(
            (&report["manifests"], report["tags"].as_object().unwrap().len()),
            (&2.into(), 1),
            "{report:#}"
        );
    }
    let tagged = ["export", &store, "tagged:v1", &tools.path("tagged"), "--referrers"];
    assert_eq!(world.json(&tagged)["manifests"], 2);
    let out = tools.path("out");
    assert_eq!(world.json(&["export", &store, "app:one", &out])["manifests"], 1);
    assert_eq!(world.json(&["export", &store, "app:one", &out, "--referrers"])["manifests"], 2);
    assert!(tools.blobs("out").contains(&entry["digest"].as_str().unwrap().to_owned()));
    let index = fs::read_to_string(tools.path("out/index.json")).unwrap();
    assert!(index.contains(entry["digest"].as_str().unwrap()), "{index}");
}

/// Archives of layouts, from skopeo and tar, and for skopeo.
#[test]
fn archives_go_in_and_come_out() {
    let Some(tools) = Tools::find() else { return };
    let world = World::with_store();
    let store = world.store();
    tools.make_both();
    let import = |archive: &str, repository: &str| {
        world.json(&["import", &tools.path(archive), &store, "--repository", repository])
    };
    tools.copy(&["--all"], "oci:images:both", "oci-archive:both.tar:both");
    assert_eq!(import("both.tar", "app")["tags"]["both"], tools.digest("images", "both"));
    // Every name in it begins with `./`.
    let tar = |arguments: &[&str]| {
        let tar = Command::new("tar").current_dir(tools.dir.path()).args(arguments).status().unwrap();
        assert!(tar.success());
    };
    tar(&["-C", "images", "-cf", "all.tar", "."]);
    let report = import("all.tar", "app");
    assert_eq!((report["tags"].as_object().unwrap().len(), &report["sealed"]["objects"]), (3, &0.into()));

    for tag in ["one", "both"] {
        let archive = format!("{tag}-out.tar");
        world.ok(&["export", &store, &format!("app:{tag}"), &tools.path(&archive)]);
        tools.copy(&["--all"], &format!("oci-archive:{archive}:{tag}"), &format!("oci:back:{tag}"));
        assert_eq!(tools.digest("back", tag), tools.digest("images", tag));
        assert_eq!(import(&archive, "again")["tags"][tag], tools.digest("images", tag));
    }
    assert_eq!(tools.unpack("back", "one"), tools.unpack("images", "one"));
    fs::create_dir(tools.path("unpacked")).unwrap();
    tar(&["-C", "unpacked", "-xf", "both-out.tar"]);
    assert_eq!(tools.digest("unpacked", "both"), tools.digest("images", "both"));
    assert!(tools.blobs("unpacked").len() >= 7);

    // The same image makes the same archive; what is there is not written over.
    let again = tools.path("one-again.tar");
    world.ok(&["export", &store, "app:one", &again]);
    assert!(fs::read(&again).unwrap() == fs::read(tools.path("one-out.tar")).unwrap());
    let line = world.fails(7, &["export", &store, "app:two", &again]);
    assert!(line.contains("choose another name"), "{line}");
    world.fails(3, &["export", &store, "app:none", &tools.path("none.tar")]);
    assert!(!tools.dir.path().join("none.tar").exists());
}

#[test]
fn archives_that_can_not_be_read_say_why() {
    let Some(tools) = Tools::find() else { return };
    let world = World::with_store();
    tools.make("images", "one", 1, 300_000, 1);
    tools.copy(&[], "oci:images:one", "oci-archive:one.tar:one");
    let gzip = Command::new("gzip").args(["-k", &tools.path("one.tar")]).status().unwrap();
    assert!(gzip.success());
    let refused = |code: i32, file: &str| {
        world.fails(code, &["import", &tools.path(file), &world.store(), "--repository", "app"])
    };
    let line = refused(2, "one.tar.gz");
    assert!(line.contains("compressed") && line.contains("gunzip"), "{line}");
    let whole = fs::read(tools.path("one.tar")).unwrap();
    fs::write(tools.path("cut.tar"), &whole[..whole.len() / 2]).unwrap();
    let line = refused(8, "cut.tar");
    assert!(line.contains("cut off"), "{line}");
    // A layer of it is another.
    let mut damaged = whole;
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(tools.path("damaged.tar"), &damaged).unwrap();
    let line = refused(8, "damaged.tar");
    assert!(line.contains("digest"), "{line}");
    // A layer of it is missing.
    let gone = tools.blobs("images").into_iter().max_by_key(|blob| {
        fs::metadata(tools.dir.path().join("images/blobs").join(blob.replace(':', "/"))).unwrap().len()
    });
    let gone = format!("./blobs/{}", gone.unwrap().replace(':', "/"));
    let exclude = format!("--exclude={gone}");
    let tar = Command::new("tar")
        .current_dir(tools.dir.path())
        .args(["-C", "images", &exclude, "-cf", "partial.tar", "."])
        .status()
        .unwrap();
    assert!(tar.success());
    let line = refused(8, "partial.tar");
    assert!(line.contains("partial.tar has no `blobs/sha256/"), "{line}");
}

/// What is no layout, and what makes one of it: the command that the error names.
#[test]
fn images_that_are_no_layout_are_converted_as_told() {
    let Some(tools) = Tools::find() else { return };
    let world = World::with_store();
    tools.make("images", "one", 1, 10_000, 1);
    for (other, kind) in [("docker-archive:other.tar", "other.tar"), ("dir:other", "other")] {
        tools.copy(&[], "oci:images:one", &other.replace(".tar", ".tar:library/app:one"));
        let line = world.fails(2, &["import", &tools.path(kind), &world.store(), "--repository", "app"]);
        let command = line.split('`').find(|part| part.starts_with("skopeo copy ")).unwrap();
        let (from, to) = command.trim_start_matches("skopeo copy ").split_once(' ').unwrap();
        assert_eq!(from, other.replace(kind, &tools.path(kind)));
        let to = to.replace("NEW", "converted").replace("TAG", "one");
        tools.copy(&[], from, &to);
        let converted = tools.path(to.split(':').nth(1).unwrap());
        let report =
            world.json(&["import", &converted, &world.store(), "--repository", "app", "--tag", "new"]);
        assert_eq!(report["manifests"], 1, "{report:#}");
    }
}

/// Stopped in the middle, an export leaves no part of an archive, under no name; what one leaves that is killed goes with the next.
#[test]
fn an_interrupted_export_leaves_nothing() {
    let Some(tools) = Tools::find() else { return };
    let world = World::with_store();
    tools.make("images", "large", 1, 96 << 20, 1);
    world.ok(&["import", &tools.path("images"), &world.store(), "--repository", "app"]);
    let out = tools.dir.path().join("out");
    fs::create_dir(&out).unwrap();
    let archive = out.join("large.tar");
    let store = world.store();
    let arguments = ["export", &store, "app:large", archive.to_str().unwrap()];
    // It is told to end while it is held, so that it can't be done before it hears of that.
    let stopped_by = |last: &str| {
        let mut export = world.command(&arguments).stderr(Stdio::null()).spawn().unwrap();
        let id = export.id().to_string();
        let signal =
            |name: &str| assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
        while fs::read_dir(&out).unwrap().next().is_none() {
            assert!(export.try_wait().unwrap().is_none(), "it wrote nothing");
        }
        signal("STOP");
        assert!(!archive.exists());
        signal(last);
        signal("CONT");
        export.wait().unwrap()
    };
    assert_eq!(stopped_by("TERM").code(), Some(128 + 15));
    assert_eq!(fs::read_dir(&out).unwrap().count(), 0);
    assert_eq!(stopped_by("KILL").signal(), Some(9));
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
    world.ok(&arguments);
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1, "the archive alone");
    tools.copy(&[], &format!("oci-archive:{}:large", archive.display()), "oci:back:large");
    assert_eq!(tools.digest("back", "large"), tools.digest("images", "large"));
}
