//! What a registry needs of Bulla: an engine with a key provider, a store opened under its anchor, a push from a stream,
//! a ranged pull, and an answer for every kind of error. `push`, `pull` and `http_status` are the whole of it; `main`
//! plays the registry, its client and the key's owner.
//!
//! ```console
//! $ cargo run -p bulla --example embed
//! ```
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bulla::kek::{Identity, KeyKind, Providers};
use bulla::{
    Algorithm, CreateOptions, Digest, Engine, ErrorKind, Managed, Mode, OpenOptions, PutOptions, PutResult,
    Store, StoreUrl, Trust,
};
use bulla_vault::{CreateKey, CreateVault, Passphrase, Permission, Vault, VaultProvider};
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{Stream, TryStreamExt};

/// `PUT …/blobs/uploads/ID?digest=DIGEST`: bytes that have another digest are refused, and nothing of them is kept.
async fn push(
    store: &Store,
    digest: Digest,
    body: impl Stream<Item = io::Result<Bytes>> + Unpin,
) -> bulla::Result<PutResult> {
    store.put(body, PutOptions { digest: Some(digest), ..PutOptions::default() }).await
}

/// `GET …/blobs/DIGEST`, with or without a `Range` header. The stream is sealed data opened piece by piece; it ends with
/// an error where the key is taken away on the way.
async fn pull(
    store: &Store,
    digest: &Digest,
    range: Option<Range<u64>>,
) -> bulla::Result<BoxStream<'static, bulla::Result<Bytes>>> {
    let blob = store.get(digest).await?;
    let whole = 0..blob.size();
    blob.range(range.unwrap_or(whole))
}

/// What to answer. With 429 and 503 goes a `Retry-After` header, from `error.retry_after()` where it is set.
fn http_status(error: &bulla::Error) -> u16 {
    match error.kind() {
        ErrorKind::NotFound => 404,
        // The key's owner said no: trying again does not help, restoring the key does.
        ErrorKind::Revoked => 403,
        ErrorKind::Unavailable => 503,
        ErrorKind::Throttled => 429,
        ErrorKind::Conflict => 409,
        ErrorKind::Invalid => 400,
        // `Corrupt`: an alert for the operator; putting the blob again repairs it. `Internal`: a bug.
        _ => 500,
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;

    // The key's owner: a vault, a key in it, and who may use it.
    let vault = Vault::create(folder.path().join("vault"), CreateVault::new(Passphrase::new("open sesame")))?;
    vault.create_key(&CreateKey::new("registry", KeyKind::Rsa { bits: 3072 }))?;
    let identity = Identity::User("registry".to_owned());
    vault.set_policy(&identity, &Permission::FOR_STORES)?;

    // Once: make the store, and write down its anchor.
    let providers = Providers::new().with(Arc::new(VaultProvider::new(vault.clone())));
    let engine = Engine::builder().providers(providers).build();
    let place = StoreUrl::parse(&folder.path().join("store").display().to_string())?;
    let options = CreateOptions {
        mode: Mode::Hierarchical,
        key: vault.key_id("registry", None)?,
        identity: identity.clone(),
        managed: Managed::Customer,
        revocation_bound: Duration::from_secs(1),
        allow_unprotected_key: false,
        second: None,
    };
    let store = engine.create(place.connect(true)?, options).await?;
    let (anchor, mark) = (store.anchor(), store.mark());
    store.close().await;

    // At every start of the registry: open it as the store with this anchor, and no older than it was last seen.
    let options = OpenOptions { trust: Trust::Anchor(anchor), floor: Some(mark) };
    let store = engine.open(place.connect(false)?, options).await?;

    let layer = Bytes::from(b"not really a layer ".repeat(500_000));
    let digest = Digest::of(Algorithm::Sha256, &layer);
    let body = stream::iter(layer.chunks(64 << 10).map(|chunk| Ok(Bytes::copy_from_slice(chunk))));
    let put = push(&store, digest.clone(), body).await?;
    println!("pushed {} bytes as {}", put.size, put.digest);
    let part: Vec<Bytes> = pull(&store, &digest, Some(1_000_000..1_000_019)).await?.try_collect().await?;
    println!("pulled {:?} from the middle", String::from_utf8_lossy(&part.concat()));

    vault.delete_policy(&identity)?;
    println!("the key's owner takes the key away");
    tokio::time::sleep(Duration::from_secs(1)).await;
    match pull(&store, &digest, None).await {
        Ok(_) => return Err("a blob was served without its key".into()),
        Err(error) => println!("answer {}: {error}", http_status(&error)),
    }
    vault.set_policy(&identity, &Permission::FOR_STORES)?;
    println!("and gives it back");
    while let Err(error) = pull(&store, &digest, None).await {
        // The key is asked for again in the background; nothing needs a restart.
        println!("answer {}", http_status(&error));
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    println!("answer 200");
    store.close().await;
    Ok(())
}
