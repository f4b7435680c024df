//! `bulla adopt`: the storage of a real CNCF Distribution registry, filled by real clients, becomes ours.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bulla_tests::part;

use crate::images::Tools;
use crate::node::Node;
use crate::world::{World, files};

/// Distribution's server over a folder, killed on drop.
struct Distribution {
    process: Child,
    address: String,
}

impl Distribution {
    fn start(world: &World) -> Option<Self> {
        let program = part("BULLA_DOCKER_REGISTRY", "docker-registry")?;
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let folder = world.path("source");
        let config = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {folder}\n  delete:\n    enabled: true\n\
             http:\n  addr: {free}\n"
        );
        let config = world.write("registry.yml", config.as_bytes());
        let process = Command::new(program)
            .args(["serve", &config])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while std::net::TcpStream::connect(free).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(30), "the other registry does not start");
            std::thread::yield_now();
        }
        Some(Self { process, address: free.to_string() })
    }

    fn image(&self, name: &str) -> String {
        format!("docker://{}/{name}", self.address)
    }
}

impl Drop for Distribution {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A source with two repositories, which share an image; an index; and the layers of an image that was deleted.
fn filled(tools: &Tools, world: &World) -> Option<()> {
    let other = Distribution::start(world)?;
    for (tag, seed) in [("one", 1), ("two", 2), ("gone", 3)] {
        tools.make("images", tag, 2, 400_000, seed);
    }
    tools.index("images", "both", &["one", "two"]);
    for (tag, to) in
        [("one", "library/app:one"), ("two", "library/app:two"), ("one", "copy:one"), ("gone", "copy:gone")]
    {
        tools.copy(&[], &format!("oci:images:{tag}"), &other.image(to));
    }
    tools.copy(&["--all"], "oci:images:both", &other.image("library/app:both"));
    tools.skopeo(&["delete", "--tls-verify=false", &other.image("copy:gone")]);
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

    // Clients find what was there before.
    let node = Node::start(&world);
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

/// Killed at any moment and run again, it ends as if it had not been.
#[test]
fn killed_and_run_again_it_finishes() {
    let Some(tools) = Tools::find() else { return };
    let world = World::with_store();
    if filled(&tools, &world).is_none() {
        return;
    }
    let (from, store) = (world.path("source"), world.store());
    for delay in [10, 40, 70, 110, 160] {
        let arguments = ["adopt", &from, &store, "--delete-source", "--drop-unlinked"];
        let mut adopting =
            world.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Nothing waits for this: whenever it comes is a moment worth dying at.
        std::thread::sleep(Duration::from_millis(delay));
        adopting.kill().unwrap();
        adopting.wait().unwrap();
    }
    // The last of them may have been done, and left nothing to do.
    let last = world.run(&["adopt", &from, &store, "--delete-source", "--drop-unlinked"]);
    assert!(last.code == 0 || last.stderr.contains("there is nothing below"), "{last:?}");
    assert!(files(source(&world)).is_empty());
    let node = Node::start(&world);
    for (name, tag) in [("library/app:one", "one"), ("library/app:two", "two")] {
        tools.copy(&[], &node.image(name), &format!("oci:back:{tag}"));
        assert_eq!(tools.unpack("back", tag), tools.unpack("images", tag));
    }
    drop(node);
    assert!(world.ok(&["verify", &store, "--deep"]).text().contains("damaged  0"));
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
    assert_eq!(ran.code, 8, "{ran:?}");
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
