//! Blobs that no repository has: they go, unless somebody is about to use them.

use std::collections::{HashMap, HashSet};

use bulla::{BlobInfo, Digest, ErrorKind, MetaEntry, MetaVersion, MetaWrite, Tally};
use futures::{StreamExt, TryStreamExt, stream};

use super::{CollectProgress, Listing, REQUESTS, Run};
use crate::error::{RegistryError, Result};
use crate::facts::{LINK, MANIFEST, PIN, PinFact, REPOSITORY, decode, encode};
use crate::name::parse_digest;
use crate::pins;

/// What becomes of a blob that no repository has.
enum Fate {
    Removed(Tally),
    TooYoung,
    /// It went by itself.
    Gone,
    Damaged,
}

/// What condemning a blob came to.
enum Condemned {
    /// By this pin.
    Yes(MetaVersion),
    No(Fate),
}

impl Run<'_> {
    /// Removes the blobs of `unneeded`, and pins that nobody counts on any more.
    pub(super) async fn blobs(&mut self, unneeded: HashSet<Digest>) -> Result<()> {
        let mut pins = self.pins().await?;
        if self.report.damaged > 0 {
            return Ok(());
        }
        let mut condemned = HashMap::new();
        let with_pins: Vec<_> = unneeded.into_iter().map(|digest| (pins.remove(&digest), digest)).collect();
        let this = &*self;
        let steps = stream::iter(with_pins).map(|(pin, digest)| async move {
            let step = this.condemn(&digest, pin).await?;
            Ok::<_, RegistryError>((digest, step))
        });
        let steps: Vec<_> = steps.buffer_unordered(REQUESTS).try_collect().await?;
        for (digest, step) in steps {
            match step {
                Condemned::Yes(pin) => {
                    condemned.insert(digest, pin);
                }
                Condemned::No(fate) => self.came_to(&digest, fate),
            }
        }
        if !condemned.is_empty() {
            self.look_again(&mut condemned).await?;
        }
        let this = &*self;
        let fates = stream::iter(condemned).map(|(digest, pin)| async move {
            let fate = this.remove_blob(&digest, &pin).await?;
            Ok::<_, RegistryError>((digest, fate))
        });
        let fates: Vec<_> = fates.buffer_unordered(REQUESTS).try_collect().await?;
        for (digest, fate) in fates {
            self.came_to(&digest, fate);
        }
        self.old_pins(pins).await
    }

    fn came_to(&mut self, digest: &Digest, fate: Fate) {
        match fate {
            Fate::Removed(tally) => self.report.removed_blobs += tally,
            Fate::TooYoung => self.report.too_young += 1,
            Fate::Gone => {}
            Fate::Damaged => self.damaged(format!("the blob {digest}")),
        }
        self.blobs_done += 1;
        (self.progress)(CollectProgress::Blobs(self.blobs_done));
    }

    async fn pins(&mut self) -> Result<HashMap<Digest, MetaEntry>> {
        let registry = self.registry.clone();
        let mut pins = HashMap::new();
        let mut listing = Listing::new(&registry, PIN, &[]);
        while let Some(page) = listing.entries().await? {
            for (name, entry) in page {
                match (parse_digest(&name), entry) {
                    (Ok(digest), Ok(entry)) => {
                        pins.insert(digest, entry);
                    }
                    _ => self.damaged(format!("the pin of {name}")),
                }
            }
        }
        Ok(pins)
    }

    async fn condemn(&self, digest: &Digest, pin: Option<MetaEntry>) -> Result<Condemned> {
        let name = digest.to_string();
        let path = [name.as_str()];
        let meta = self.registry.store().meta();
        let payload = encode(&PinFact::Condemned);
        let written = match pin {
            // A dry run has nothing to compare with, and nothing to lose.
            None if self.dry_run => return self.would_go(digest).await.map(Condemned::No),
            None => meta.create(PIN, &path, payload).await?,
            Some(pin) => match decode::<PinFact>(&pin)? {
                PinFact::Kept if !self.is_old(pin.modified) => return Ok(Condemned::No(Fate::TooYoung)),
                _ if self.dry_run => return self.would_go(digest).await.map(Condemned::No),
                // Another gc is at it, or died there.
                PinFact::Deleting { .. } if !self.is_old(pin.modified) => {
                    return Ok(Condemned::No(Fate::TooYoung));
                }
                PinFact::Deleting { put, written } => {
                    let fate = self.would_go(digest).await?;
                    let condemned = pins::Condemned { put, written };
                    let removed = self.registry.take_over(digest, &pin, condemned).await?;
                    return Ok(Condemned::No(if removed { fate } else { Fate::Gone }));
                }
                PinFact::Kept | PinFact::Condemned => meta.update(PIN, &path, payload, &pin.version).await?,
            },
        };
        Ok(match written {
            MetaWrite::Done(version) => Condemned::Yes(version),
            MetaWrite::Changed(_) => Condemned::No(Fate::TooYoung),
        })
    }

    /// Takes out of `condemned` what some repository has after all. Names do: what is read again is what is condemned.
    async fn look_again(&mut self, condemned: &mut HashMap<Digest, MetaVersion>) -> Result<()> {
        let registry = self.registry.clone();
        let mut repositories = Listing::new(&registry, REPOSITORY, &[]);
        while let Some(names) = repositories.names().await? {
            for repository in names {
                for kind in [LINK, MANIFEST] {
                    let parent = [repository.as_str()];
                    let mut listing = Listing::new(&registry, kind, &parent);
                    while let Some(names) = listing.names().await? {
                        for digest in names.iter().filter_map(|name| parse_digest(name).ok()) {
                            if let Some(pin) = condemned.remove(&digest) {
                                self.remove(PIN, &[digest.to_string().as_str()], &pin).await?;
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Removes a blob that is condemned by the pin of this version, if that is still there.
    async fn remove_blob(&self, digest: &Digest, pin: &MetaVersion) -> Result<Fate> {
        let name = digest.to_string();
        let path = [name.as_str()];
        let blob = match self.old_blob(digest).await? {
            Ok(blob) => blob,
            Err(fate) => {
                self.remove(PIN, &path, pin).await?;
                return Ok(fate);
            }
        };
        let condemned = pins::Condemned::of(&blob);
        let deleting = encode(&condemned.fact());
        match self.registry.store().meta().update(PIN, &path, deleting, pin).await? {
            MetaWrite::Done(pin) => {
                let removed = self.registry.remove_pinned(digest, condemned, &pin).await?;
                Ok(if removed { Fate::Removed(tally(&blob)) } else { Fate::Gone })
            }
            MetaWrite::Changed(_) => Ok(Fate::TooYoung),
        }
    }

    /// The blob, if it is there and was not put again since it was listed.
    async fn old_blob(&self, digest: &Digest) -> Result<Result<BlobInfo, Fate>> {
        Ok(match self.registry.store().stat(digest).await {
            Ok(blob) if self.is_old(blob.modified) => Ok(blob),
            Ok(_) => Err(Fate::TooYoung),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(Fate::Gone),
            Err(error) if error.kind() == ErrorKind::Corrupt => Err(Fate::Damaged),
            Err(error) => return Err(error.into()),
        })
    }

    /// What would become of a blob that nobody but other gcs is at.
    async fn would_go(&self, digest: &Digest) -> Result<Fate> {
        Ok(match self.old_blob(digest).await? {
            Ok(blob) => Fate::Removed(tally(&blob)),
            Err(fate) => fate,
        })
    }

    /// Removes pins that nobody counts on any more.
    async fn old_pins(&self, pins: HashMap<Digest, MetaEntry>) -> Result<()> {
        if self.dry_run {
            return Ok(());
        }
        for (digest, pin) in pins {
            if !self.is_old(pin.modified) {
                continue;
            }
            match decode::<PinFact>(&pin)? {
                // Its gc has died.
                PinFact::Deleting { put, written } => {
                    let condemned = pins::Condemned { put, written };
                    self.registry.take_over(&digest, &pin, condemned).await?;
                }
                PinFact::Kept | PinFact::Condemned => {
                    self.remove(PIN, &[digest.to_string().as_str()], &pin.version).await?;
                }
            }
        }
        Ok(())
    }
}

fn tally(blob: &BlobInfo) -> Tally {
    let mut tally = Tally::default();
    (tally.objects, tally.bytes) = (1, blob.size);
    tally
}
