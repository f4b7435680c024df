//! The `oci-client` crate: open, with a password, and with tokens of a token server.

use futures::stream;
use oci_client::client::{ClientConfig, ClientProtocol, Config, ImageLayer};
use oci_client::manifest::{IMAGE_CONFIG_MEDIA_TYPE, IMAGE_LAYER_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};

use crate::images::{noise, sha256};
use crate::node::Node;
use crate::tokens::TokenServer;
use crate::world::World;

/// reqwest asks for one, even where nothing is encrypted.
pub(crate) fn tls() {
    // Another test of this process may have been first.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

fn client() -> Client {
    tls();
    Client::new(ClientConfig { protocol: ClientProtocol::Http, ..ClientConfig::default() })
}

fn reference(node: &Node, name: &str) -> Reference {
    format!("{}/{name}", node.address()).parse().unwrap()
}

fn layers(seed: u64) -> Vec<ImageLayer> {
    [10, 70_000, 9_000_000]
        .iter()
        .zip(seed..)
        .map(|(len, seed)| ImageLayer::new(noise(*len, seed), IMAGE_LAYER_MEDIA_TYPE.to_owned(), None))
        .collect()
}

fn config() -> Config {
    Config::new(
        &b"{\"architecture\":\"amd64\",\"os\":\"linux\"}"[..],
        IMAGE_CONFIG_MEDIA_TYPE.to_owned(),
        None,
    )
}

async fn push(
    client: &Client,
    image: &Reference,
    auth: &RegistryAuth,
    layers: &[ImageLayer],
) -> oci_client::errors::Result<()> {
    client.push(image, layers, config(), auth, None).await.map(drop)
}

async fn pull(
    client: &Client,
    image: &Reference,
    auth: &RegistryAuth,
) -> oci_client::errors::Result<Vec<Vec<u8>>> {
    let image = client.pull(image, auth, vec![IMAGE_LAYER_MEDIA_TYPE]).await?;
    let mut layers: Vec<Vec<u8>> = image.layers.into_iter().map(|layer| layer.data.to_vec()).collect();
    layers.sort_by_key(Vec::len);
    Ok(layers)
}

fn bytes(layers: &[ImageLayer]) -> Vec<Vec<u8>> {
    layers.iter().map(|layer| layer.data.to_vec()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushes_pulls_mounts_and_lists() {
    let world = World::with_store();
    let node = Node::start(&world);
    let (client, auth) = (client(), RegistryAuth::Anonymous);
    let (image, layers) = (reference(&node, "app:v1"), layers(50));
    push(&client, &image, &auth, &layers).await.unwrap();
    assert!(pull(&client, &image, &auth).await.unwrap() == bytes(&layers));
    let listed = client.list_tags(&image, &auth, None, None).await.unwrap();
    assert_eq!(listed.tags, ["v1"]);

    // As a stream, whose length is only known in the end.
    let streamed = noise(5_000_000, 60);
    let digest = sha256(&streamed);
    let pieces: Vec<_> =
        streamed.chunks(300_000).map(|piece| Ok(bytes::Bytes::copy_from_slice(piece))).collect();
    client.push_blob_stream(&image, stream::iter(pieces), &digest, None).await.unwrap();
    assert!(client.blob_exists(&image, &digest).await.unwrap());
    let elsewhere = reference(&node, "elsewhere:v1");
    assert!(!client.blob_exists(&elsewhere, &digest).await.unwrap());
    client.mount_blob(&elsewhere, &image, &digest).await.unwrap();
    let mut got = Vec::new();
    client.pull_blob(&elsewhere, digest.as_str(), &mut got).await.unwrap();
    assert!(got == streamed);

    // By digest, and what refers to it.
    let (_, manifest) = client.pull_image_manifest(&image, &auth).await.unwrap();
    let by_digest = image.clone_with_digest(manifest);
    client.pull_manifest_raw(&by_digest, &auth, &[OCI_IMAGE_MEDIA_TYPE]).await.unwrap();
    assert!(client.pull_referrers(&by_digest, None).await.unwrap().manifests.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn comes_with_a_password() {
    let world = World::with_store();
    let lines = [("alice", "wonderland"), ("node", "reader")]
        .map(|(name, password)| format!("{name}:{}\n", bcrypt::hash(password, 4).unwrap()));
    let users = world.write("users", lines.concat().as_bytes());
    let node = Node::of(&world, &world.store(), &["--htpasswd", &users, "--read-only", "node"]);
    let (image, layers) = (reference(&node, "app:v1"), layers(70));
    let with = |name: &str, password: &str| RegistryAuth::Basic(name.to_owned(), password.to_owned());
    for auth in [RegistryAuth::Anonymous, with("alice", "guess"), with("node", "reader")] {
        assert!(push(&client(), &image, &auth, &layers).await.is_err());
    }
    push(&client(), &image, &with("alice", "wonderland"), &layers).await.unwrap();
    assert!(pull(&client(), &image, &with("node", "reader")).await.unwrap() == bytes(&layers));
    assert!(pull(&client(), &image, &RegistryAuth::Anonymous).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn comes_with_a_token() {
    let world = World::with_store();
    let tokens = TokenServer::start();
    let node = tokens.registry(&world, &[]);
    let (image, layers) = (reference(&node, "team/app:v1"), layers(80));
    let alice = RegistryAuth::Basic("alice".to_owned(), "wonderland".to_owned());
    assert!(push(&client(), &image, &RegistryAuth::Anonymous, &layers).await.is_err());
    push(&client(), &image, &alice, &layers).await.unwrap();
    assert!(pull(&client(), &image, &RegistryAuth::Anonymous).await.unwrap() == bytes(&layers));
    // No token, no image.
    assert!(pull(&client(), &image, &RegistryAuth::Bearer("guess".to_owned())).await.is_err());
    let asked = tokens.asked();
    assert!(asked.contains(&"repository:team/app:pull,push".to_owned()), "{asked:?}");
    assert!(asked.contains(&"repository:team/app:pull".to_owned()), "{asked:?}");
}
