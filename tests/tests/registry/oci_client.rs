//! The `oci-client` crate: open, with a password, and with tokens of a token server.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use futures::stream;
use jsonwebtoken::{EncodingKey, Header, encode};
use oci_client::client::{ClientConfig, ClientProtocol, Config, ImageLayer};
use oci_client::manifest::{IMAGE_CONFIG_MEDIA_TYPE, IMAGE_LAYER_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use rcgen::KeyPair;
use serde_json::json;

use crate::images::{noise, sha256};
use crate::node::Node;
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

/// A token server: whoever is `alice` gets what she asks for, anyone else may pull.
struct TokenServer {
    realm: String,
    public_key: String,
    /// The scopes that were asked for.
    asked: Arc<Mutex<Vec<String>>>,
}

impl TokenServer {
    fn start() -> Self {
        let key = KeyPair::generate().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let realm = format!("http://{}/token", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let server = Self { realm, public_key: key.public_key_pem(), asked: Arc::clone(&asked) };
        // It ends with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let lines: Vec<String> = BufReader::new(&stream)
                    .lines()
                    .map_while(Result::ok)
                    .take_while(|line| !line.is_empty())
                    .collect();
                // A connection that a client opened and did not need.
                let Some(request) = lines.first() else { continue };
                let alice =
                    format!("basic {}", data_encoding::BASE64.encode(b"alice:wonderland")).to_lowercase();
                let is_alice = lines.iter().any(|line| line.to_lowercase().ends_with(&alice));
                let url =
                    reqwest::Url::parse(&format!("http://x{}", request.split(' ').nth(1).unwrap())).unwrap();
                let query =
                    |name: &str| url.query_pairs().find(|(key, _)| key == name).unwrap().1.into_owned();
                let scope = query("scope");
                let [_, name, actions] = scope.splitn(3, ':').collect::<Vec<_>>().try_into().unwrap();
                let actions: Vec<&str> =
                    actions.split(',').filter(|action| is_alice || *action == "pull").collect();
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
                let claims = json!({
                    "iss": "auth.example", "aud": query("service"), "sub": "alice", "iat": now, "nbf": now,
                    "exp": now + 300,
                    "access": [{ "type": "repository", "name": name, "actions": actions }],
                });
                let header = Header::new(jsonwebtoken::Algorithm::ES256);
                let token =
                    encode(&header, &claims, &EncodingKey::from_ec_der(&key.serialize_der())).unwrap();
                asked.lock().unwrap().push(scope);
                let body = json!({ "token": token, "expires_in": 300 }).to_string();
                let len = body.len();
                write!(stream, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len}\r\nconnection: close\r\n\r\n{body}").unwrap();
            }
        });
        server
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn comes_with_a_token() {
    let world = World::with_store();
    let tokens = TokenServer::start();
    let key = world.write("auth.pub", tokens.public_key.as_bytes());
    let (issuer, service) = ("auth.example", "registry.example");
    let more = [
        "--token-key",
        &key,
        "--token-issuer",
        issuer,
        "--token-service",
        service,
        "--token-realm",
        &tokens.realm,
    ];
    let node = Node::of(&world, &world.store(), &more);
    let (image, layers) = (reference(&node, "team/app:v1"), layers(80));
    let alice = RegistryAuth::Basic("alice".to_owned(), "wonderland".to_owned());
    assert!(push(&client(), &image, &RegistryAuth::Anonymous, &layers).await.is_err());
    push(&client(), &image, &alice, &layers).await.unwrap();
    assert!(pull(&client(), &image, &RegistryAuth::Anonymous).await.unwrap() == bytes(&layers));
    // No token, no image.
    assert!(pull(&client(), &image, &RegistryAuth::Bearer("guess".to_owned())).await.is_err());
    let asked = tokens.asked.lock().unwrap();
    assert!(asked.contains(&"repository:team/app:pull,push".to_owned()), "{asked:?}");
    assert!(asked.contains(&"repository:team/app:pull".to_owned()), "{asked:?}");
}
