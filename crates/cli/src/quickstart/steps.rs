//! The story, step by step. Every claim is checked; one that does not hold ends it with an error.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use bulla::{Digest, ErrorKind, PutOptions, Store};

use super::layer::{self, Chosen};
use super::scene::Scene;
use super::search::{self, Needles};
use super::speed;
use crate::exit::{Failure, Kind, Result};
use crate::{open, output};

const IDENTITY: &str = "registry";
/// R, as the store is made with.
const BOUND: Duration = Duration::from_secs(1);
/// How often the open store is asked while it is revoked and restored.
const POLL: Duration = Duration::from_millis(5);

/// What was put.
struct Image {
    layer: Digest,
    len: u64,
    config: Digest,
    manifest: Digest,
}

pub(super) async fn tell(scene: &mut Scene<'_>, files: &Chosen) -> Result<()> {
    scene.say("Bulla: container-registry blobs, encrypted under a key that you control.")?;
    scene.say(
        "Every line with a $ is a command that you can type; all of it happens in a folder of its own.\n",
    )?;
    scene.say(&format!("  $ cd {}", here()?.display()))?;
    scene.say("  $ export BULLA_STORE=$PWD/store BULLA_CONFIG_DIR=$PWD/config BULLA_VAULT_PASSPHRASE_FILE=$PWD/passphrase")?;
    vault(scene).await?;
    store(scene).await?;
    let image = push(scene, files).await?;
    traces(scene, files, &image)?;
    status(scene).await?;
    read(scene, &image).await?;
    rotate(scene, &image).await?;
    revoke(scene, &image).await
}

async fn vault(scene: &mut Scene<'_>) -> Result<()> {
    scene.step("A vault with soft delete and purge protection, an RSA-3072 key in it, and who may use it")?;
    let started = Instant::now();
    scene.run_showing(&["vault", "create", "vault"], &["enable"]).await?;
    let key = ["vault", "key", "create", "vault", "--name", "registry", "--kty", "RSA", "--size", "3072"];
    scene.run_showing(&key, &["\"kid\""]).await?;
    let permissions = ["get", "wrapKey", "unwrapKey"];
    let policy = ["vault", "set-policy", "vault", "--identity", IDENTITY, "--key-permissions"];
    scene.quietly(&[&policy[..], &permissions].concat()).await?;
    scene.note_time("vault, RSA-3072 key, access policy", started.elapsed());
    Ok(())
}

async fn store(scene: &mut Scene<'_>) -> Result<()> {
    scene.step("A store under that key; revocation is to take effect within 1 s")?;
    let kek = format!("vault+file://{}/vault/keys/registry", here()?.display());
    let ran = scene.run(&["init", "--kek", &kek, "--identity", IDENTITY, "--revocation-bound", "1s"]).await?;
    scene.note_time("store", ran.time);
    Ok(())
}

async fn push(scene: &mut Scene<'_>, files: &Chosen) -> Result<Image> {
    scene.step("Real files, packed into the layer of an OCI image, and put into the store")?;
    let started = Instant::now();
    let (layer, len) = layer::pack(&files.entries, Path::new("layer.tar"))?;
    let (config, manifest) = layer::image(&layer, len);
    for (name, bytes) in [("config.json", &config), ("manifest.json", &manifest)] {
        fs::write(name, bytes).map_err(|error| Failure::file("write", Path::new(name), error))?;
    }
    scene.note_time("packing the layer", started.elapsed());
    scene.fact(&format!(
        "layer.tar: {} files, {} ({})",
        files.entries.len(),
        output::size(len),
        files.what
    ))?;
    let mut digests = Vec::new();
    for name in ["layer.tar", "config.json", "manifest.json"] {
        let ran = scene.run(&["put", name]).await?;
        let digest: Digest = ran
            .text()
            .trim()
            .parse()
            .map_err(|error| Failure::new(Kind::Internal, "put printed no digest").with_source(error))?;
        if name == "layer.tar" {
            scene.note_time("put of the layer", ran.time);
            scene.fact(&format!(
                "hashed, sealed, on disk and synced in {:.2} s: {}",
                ran.time.as_secs_f64(),
                speed(len, ran.time)
            ))?;
        }
        digests.push(digest);
    }
    let [put_layer, config, manifest] =
        <[Digest; 3]>::try_from(digests).map_err(|_| Failure::new(Kind::Internal, "three blobs were put"))?;
    check(put_layer == layer, "the digest is the one of the plaintext, computed while packing")?;
    Ok(Image { layer, len, config, manifest })
}

fn traces(scene: &mut Scene<'_>, files: &Chosen, image: &Image) -> Result<()> {
    scene.step("Neither content nor names are anywhere on disk")?;
    let started = Instant::now();
    let digests = [&image.layer, &image.config, &image.manifest];
    let needles = Needles::of(Path::new("layer.tar"), &files.entries, &digests)?;
    let all = needles.all();
    let hex = String::from_utf8_lossy(&needles.digests[0]).into_owned();
    scene.show(&format!("grep -rlaF {}… store || echo not there", &hex[..16]))?;
    // First that the search finds what is there.
    let control = search::search(Path::new("layer.tar"), &all)?;
    let samples: Vec<usize> = (0..needles.samples.len()).collect();
    let seen = |index: &usize| control.hits.iter().any(|(hit, _)| hit == index);
    check(!samples.is_empty() && samples.iter().all(seen), "the search finds every sample in layer.tar")?;
    let found = search::search(Path::new("store"), &all)?;
    if let Some((index, path)) = found.hits.first() {
        return Err(Failure::new(
            Kind::Internal,
            format!("a trace ({:02x?}) is in {}", all[*index], path.display()),
        ));
    }
    scene.say("    not there")?;
    scene.fact(&format!(
        "{} files, {} and all object names searched: none of {} samples of 32 bytes, {} digests (hex and raw), {} file names",
        found.files,
        output::size(found.bytes),
        needles.samples.len(),
        needles.digests.len() / 2,
        needles.names.len(),
    ))?;
    scene.fact(&format!("the same search in layer.tar finds {}", control.hits.len()))?;
    scene.note_time("search for traces", started.elapsed());
    Ok(())
}

async fn status(scene: &mut Scene<'_>) -> Result<()> {
    scene.step("The encryption status, in the shape of `az acr encryption show`")?;
    scene.run(&["status"]).await?;
    Ok(())
}

async fn read(scene: &mut Scene<'_>, image: &Image) -> Result<()> {
    scene.step("Reading: a range from the middle, and the whole")?;
    let digest = image.layer.to_string();
    let first = image.len / 2;
    let last = (first + 65_535).min(image.len - 1);
    let range = format!("{first}-{last}");
    let ran = scene.quietly(&["get", &digest, "--range", &range]).await?;
    check(ran.output.len() as u64 == last - first + 1, "the range has its length")?;
    check(search::equals_at(Path::new("layer.tar"), first, &ran.output)?, "the range is the original's")?;
    scene.fact(&format!(
        "{} bytes from the middle, equal to the original's, in {:.3} s",
        ran.output.len(),
        ran.time.as_secs_f64()
    ))?;
    scene.note_time("range of 64 KiB from the middle", ran.time);
    let ran = scene.quietly(&["get", &digest, "--verify", "-o", "copy.tar"]).await?;
    check(search::same_files(Path::new("layer.tar"), Path::new("copy.tar"))?, "the copy is the original")?;
    scene.fact(&format!(
        "the whole, authenticated and hashed again, equal to the original: {}",
        speed(image.len, ran.time)
    ))?;
    scene.note_time("get of the layer, digest verified", ran.time);
    Ok(())
}

async fn rotate(scene: &mut Scene<'_>, image: &Image) -> Result<()> {
    scene.step(
        "A new version of the key, and the store under it: one secret is wrapped anew, no data is touched",
    )?;
    let before = (search::snapshot(Path::new("store/data"))?, search::snapshot(Path::new("store/blobs"))?);
    scene.run_showing(&["vault", "key", "create", "vault", "--name", "registry"], &["\"kid\""]).await?;
    let ran = scene.run(&["rotate"]).await?;
    let after = (search::snapshot(Path::new("store/data"))?, search::snapshot(Path::new("store/blobs"))?);
    check(before == after, "data and envelopes are the same after the rotation")?;
    scene.fact(&format!(
        "{} data objects and {} envelopes: same names, sizes and times",
        after.0.len(),
        after.1.len()
    ))?;
    scene.note_time("rotation of the key", ran.time);
    let manifest = scene.quietly(&["get", &image.manifest.to_string()]).await?;
    check(manifest.output == fs::read("manifest.json").unwrap_or_default(), "the manifest is the original")?;
    scene.fact("reads go on under the new version")
}

async fn revoke(scene: &mut Scene<'_>, image: &Image) -> Result<()> {
    scene.step("Revocation, watched through one store that stays open, as a registry holds it")?;
    let place = here()?.join("store").display().to_string();
    let opened = open::open(&scene.inner, &place).await?;
    let watch = Watch { store: &opened.store, manifest: &image.manifest };
    check(watch.reads().await? && watch.writes().await?, "before, reads and writes work")?;
    let removed = Instant::now();
    scene.quietly(&["vault", "delete-policy", "vault", "--identity", IDENTITY]).await?;
    let revoked = watch.until(false, removed).await?;
    // Looking may be slow on a busy machine; what was begun after R must not have worked.
    check(revoked.last_before <= BOUND, "nothing that began after the revocation bound still worked")?;
    scene.fact(&format!(
        "reads refuse with `Revoked` after {:.2} s, writes after {:.2} s; promised: within {} s",
        revoked.read.as_secs_f64(),
        revoked.write.as_secs_f64(),
        BOUND.as_secs()
    ))?;
    scene.note_time("policy removed → reads refused", revoked.read);
    scene.note_time("policy removed → writes refused", revoked.write);
    let digest = image.manifest.to_string();
    scene.refused(&["get", &digest], Kind::Revoked).await?;
    scene.refused(&["put", "config.json"], Kind::Revoked).await?;

    scene.step("The policy is restored: everything works again, without a restart")?;
    let permissions = ["get", "wrapKey", "unwrapKey"];
    let policy = ["vault", "set-policy", "vault", "--identity", IDENTITY, "--key-permissions"];
    let given_back = Instant::now();
    scene.quietly(&[&policy[..], &permissions].concat()).await?;
    let restored = watch.until(true, given_back).await?;
    scene.fact(&format!(
        "reads work again after {:.2} s, writes after {:.2} s",
        restored.read.as_secs_f64(),
        restored.write.as_secs_f64()
    ))?;
    scene.note_time("policy restored → reads work", restored.read);
    opened.close(&scene.inner).await;
    scene.quietly(&["get", &digest]).await?;
    Ok(())
}

/// An open store, asked over and over.
struct Watch<'a> {
    store: &'a Store,
    manifest: &'a Digest,
}

/// How long after the change the new state was first seen, and when the last request that met the old one began.
struct Seen {
    read: Duration,
    write: Duration,
    last_before: Duration,
}

impl Watch<'_> {
    /// Whether a read works; `false` if it is refused with `Revoked`.
    async fn reads(&self) -> Result<bool> {
        match self.store.get(self.manifest).await {
            Ok(blob) => works(blob.bytes().await.map(drop)),
            Err(error) => works(Err(error)),
        }
    }

    /// Whether a write works, of a blob that was not there before and is removed again.
    async fn writes(&self) -> Result<bool> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| Failure::new(Kind::Internal, error.to_string()))?;
        match self.store.put_bytes(random.to_vec(), PutOptions::default()).await {
            Ok(put) => {
                // The key may be gone by now; then it stays, 16 bytes.
                let _ = self.store.delete(&put.digest).await;
                Ok(true)
            }
            Err(error) => works(Err(error)),
        }
    }

    /// Asks until reads and writes both work, or both are refused; counted from before the command that does it.
    async fn until(&self, working: bool, started: Instant) -> Result<Seen> {
        let (mut read, mut write, mut last_before) = (None, None, Duration::ZERO);
        loop {
            let began = started.elapsed();
            match self.reads().await? == working {
                true => read = read.or_else(|| Some(started.elapsed())),
                false => last_before = began,
            }
            let began = started.elapsed();
            match self.writes().await? == working {
                true => write = write.or_else(|| Some(started.elapsed())),
                false => last_before = began,
            }
            if let (Some(read), Some(write)) = (read, write) {
                return Ok(Seen { read, write, last_before });
            }
            if started.elapsed() > BOUND * 30 {
                return Err(Failure::new(Kind::Internal, "the store did not see the change of policy"));
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

fn works(outcome: bulla::Result<()>) -> Result<bool> {
    match outcome {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::Revoked => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn check(holds: bool, claim: &str) -> Result<()> {
    if holds { Ok(()) } else { Err(Failure::new(Kind::Internal, format!("it is not true that {claim}"))) }
}

fn here() -> Result<std::path::PathBuf> {
    std::env::current_dir().map_err(|error| Failure::file("find", Path::new("."), error))
}
