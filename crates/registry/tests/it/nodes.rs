//! Several nodes over one folder: no node has a state that matters.

use crate::client::{OCI_MANIFEST, data, ending, sha256};
use crate::support::{Node, World};

const MIB: usize = 1 << 20;

#[tokio::test]
async fn an_upload_goes_on_at_another_node() {
    let world = World::new().await;
    let (a, b) = (Node::start(&world).await, Node::start(&world).await);
    let bytes = data(9 * MIB);
    let location = a.client.begin("app").await;
    let patch = async |node: &Node, at: usize, piece: &[u8]| {
        let range = format!("{at}-{}", at + piece.len() - 1);
        node.client.send("PATCH", &location, &[("Content-Range", &range)], piece).await.assert_status(202)
    };
    patch(&a, 0, &bytes[..5 * MIB]).await;
    // And is gone, in the middle of the next.
    a.client.break_off("PATCH", &location, 3 * MIB, &bytes[5 * MIB..6 * MIB]).await;
    drop(a);
    let range = b.client.get(&location).await.assert_status(204).header("range").unwrap().to_owned();
    let at: usize = range.strip_prefix("0-").unwrap().parse::<usize>().unwrap() + 1;
    assert!(at >= 5 * MIB, "what was acknowledged is there");
    patch(&b, at, &bytes[at..]).await;
    let c = Node::start(&world).await;
    let put = c.client.send("PUT", &ending(&location, sha256(&bytes)), &[], b"").await;
    assert_eq!(b.client.get(put.assert_status(201).location()).await.body, bytes);
}

/// A client that does not wait for an answer and asks another node: one of the two is heard.
#[tokio::test]
async fn the_same_chunk_at_two_nodes_is_appended_once() {
    let world = World::new().await;
    let (a, b) = (Node::start(&world).await, Node::start(&world).await);
    for announced in [true, false] {
        let bytes = data(3 * MIB + usize::from(announced));
        let mut location = a.client.begin("app").await;
        if !announced {
            let patch = a.client.send("PATCH", &location, &[("Content-Range", "0-9")], &bytes[..10]).await;
            location = patch.assert_status(202).location().to_owned();
        }
        let at = if announced { 0 } else { 10 };
        let range = format!("{at}-{}", bytes.len() - 1);
        let headers = [("Content-Range", range.as_str())];
        let (x, y) = tokio::join!(
            a.client.send("PATCH", &location, &headers, &bytes[at..]),
            b.client.send("PATCH", &location, &headers, &bytes[at..]),
        );
        let mut statuses = [x.status, y.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [202, 416]);
        for answer in [x, y] {
            assert_eq!(answer.header("range"), Some(format!("0-{}", bytes.len() - 1).as_str()));
        }
        let put = b.client.send("PUT", &ending(&location, sha256(&bytes)), &[], b"").await;
        assert_eq!(a.client.get(put.assert_status(201).location()).await.body, bytes);
    }
}

#[tokio::test]
async fn what_one_pushed_the_others_serve() {
    let world = World::new().await;
    let (a, b) = (Node::start(&world).await, Node::start(&world).await);
    let first = a.client.push_image("app", "latest", b"one").await;
    let read = async |node: &Node| {
        node.client.head("/v2/app/manifests/latest").await.header("docker-content-digest").map(str::to_owned)
    };
    assert_eq!(read(&b).await, Some(first.to_string()));
    let second = b.client.push_image("app", "latest", b"two").await;
    assert_eq!(read(&a).await, Some(second.to_string()));
    a.client.delete(&format!("/v2/app/manifests/{second}")).await.assert_status(202);
    assert_eq!(read(&b).await, None);
}

#[tokio::test]
async fn a_tag_that_all_move_at_once_is_one_of_theirs() {
    let world = World::new().await;
    let nodes = [Node::start(&world).await, Node::start(&world).await, Node::start(&world).await];
    let mut manifests = Vec::new();
    for (node, layer) in nodes.iter().zip([b"one" as &[u8], b"two", b"three"]) {
        manifests.push(node.client.image("app", layer).await);
    }
    for _ in 0..5 {
        let pushes = nodes.iter().zip(&manifests).map(|(node, manifest)| {
            let (client, manifest) = (node.client, manifest.clone());
            async move { client.push_manifest("app", "latest", OCI_MANIFEST, &manifest).await }
        });
        futures::future::join_all(pushes).await;
        let seen =
            futures::future::join_all(nodes.iter().map(|node| node.client.get("/v2/app/manifests/latest")));
        let seen: Vec<Vec<u8>> = seen.await.into_iter().map(|answer| answer.body).collect();
        assert!(seen.iter().all(|body| *body == seen[0]) && manifests.contains(&seen[0]));
    }
}
