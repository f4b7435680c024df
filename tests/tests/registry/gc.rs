//! `bulla gc --registry`: what was pushed and is of no use any more goes, and nothing else.

use std::fs;
use std::time::{Duration, SystemTime};

use crate::images::Tools;
use crate::node::Node;
use crate::world::{World, files};

#[test]
fn what_no_tag_needs_goes() {
    let Some(tools) = Tools::find() else { return };
    let world = World::with_store();
    let node = Node::of(&world, &world.store(), &["--gc-every", "1h"]);
    for (tag, seed) in [("old", 1), ("new", 2)] {
        tools.make("images", tag, 2, 50_000, seed);
        tools.copy(&[], &format!("oci:images:{tag}"), &node.image("app:latest"));
    }
    let store = world.store();
    let gc = ["gc", &store, "--registry", "--untagged-after", "24h"];
    let report = world.json(&gc);
    assert_eq!(report["registry"]["removedManifests"], 0, "too young: {report:#}");
    // A file's time is the bucket's clock: three days pass.
    let past = SystemTime::now() - Duration::from_secs(3 * 24 * 3600);
    for file in files(&store) {
        fs::File::options().write(true).open(file).unwrap().set_modified(past).unwrap();
    }
    let dry = world.json(&[&gc[..], &["--dry-run"]].concat());
    assert_eq!(dry["registry"]["removedManifests"], 1, "{dry:#}");
    let report = world.json(&gc);
    assert_eq!(report["registry"]["removedManifests"], 1, "{report:#}");
    assert_eq!(
        report["registry"]["removedBlobs"]["objects"], 3,
        "two layers and a configuration: {report:#}"
    );
    assert_eq!(report["registry"]["links"], 3, "{report:#}");
    tools.copy(&[], &node.image("app:latest"), "oci:back:new");
    assert_eq!(tools.unpack("back", "new"), tools.unpack("images", "new"));
}
