//! Blobs that no repository has: they go, unless somebody is about to use them.

use std::collections::{HashMap, HashSet};

use bulla::{Digest, ErrorKind, MetaEntry, MetaWrite, Tally};
use futures::{StreamExt, TryStreamExt, stream};

use super::{CollectProgress, Listing, REQUESTS, Run};
use crate::error::{RegistryError, Result};
use crate::facts::{PIN, PinFact, decode, encode};
use crate::name::parse_digest;

/// What became of a blob that no repository has.
enum Fate {
    Removed(Tally),
    TooYoung,
    /// It went by itself.
    Gone,
    Damaged(Digest),
}

impl Run<'_> {
    pub(super) async fn pins(&mut self) -> Result<HashMap<Digest, MetaEntry>> {
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

    /// Removes the blobs of `unneeded`, and pins that nobody counts on any more.
    pub(super) async fn blobs(
        &mut self,
        unneeded: HashSet<Digest>,
        mut pins: HashMap<Digest, MetaEntry>,
    ) -> Result<()> {
        let with_pins: Vec<_> = unneeded.into_iter().map(|digest| (pins.remove(&digest), digest)).collect();
        let mut report = self.report.clone();
        let mut damaged = Vec::new();
        {
            let this = &*self;
            let fates = stream::iter(with_pins).map(|(pin, digest)| this.blob(digest, pin));
            let mut fates = std::pin::pin!(fates.buffer_unordered(REQUESTS));
            let mut seen = 0;
            while let Some(fate) = fates.try_next().await? {
                match fate {
                    Fate::Removed(tally) => report.removed_blobs += tally,
                    Fate::TooYoung => report.too_young += 1,
                    Fate::Gone => {}
                    Fate::Damaged(digest) => damaged.push(digest),
                }
                seen += 1;
                (this.progress)(CollectProgress::Blobs(seen));
            }
        }
        self.report = report;
        for digest in damaged {
            self.damaged(format!("the blob {digest}"));
        }
        if self.dry_run {
            return Ok(());
        }
        for (digest, pin) in pins {
            match decode::<PinFact>(&pin)? {
                // Its gc has died.
                PinFact::Deleting { put } if self.is_old(pin.modified) => {
                    self.registry.take_over(&digest, &pin, put).await?;
                }
                PinFact::Kept if self.is_old(pin.modified) => {
                    self.remove(PIN, &[digest.to_string().as_str()], &pin.version).await?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn blob(&self, digest: Digest, pin: Option<MetaEntry>) -> Result<Fate> {
        let fact = pin.as_ref().map(decode::<PinFact>).transpose()?;
        if matches!((&fact, &pin), (Some(PinFact::Kept), Some(pin)) if !self.is_old(pin.modified)) {
            return Ok(Fate::TooYoung);
        }
        let info = match self.registry.store().stat(&digest).await {
            Ok(info) => info,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Fate::Gone),
            Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(Fate::Damaged(digest)),
            Err(error) => return Err(error.into()),
        };
        // Deleted and put again since it was listed.
        if !self.is_old(info.modified) {
            return Ok(Fate::TooYoung);
        }
        let mut tally = Tally::default();
        (tally.objects, tally.bytes) = (1, info.size);
        if self.dry_run {
            return Ok(Fate::Removed(tally));
        }
        let name = digest.to_string();
        let path = [name.as_str()];
        let meta = self.registry.store().meta();
        let removed = match (&pin, fact) {
            (Some(pin), Some(PinFact::Deleting { put })) => {
                self.registry.take_over(&digest, pin, put).await?
            }
            (pin, _) => {
                let payload = encode(&PinFact::Deleting { put: info.put });
                let condemned = match pin {
                    Some(pin) => meta.update(PIN, &path, payload, &pin.version).await?,
                    None => meta.create(PIN, &path, payload).await?,
                };
                match condemned {
                    MetaWrite::Done(version) => {
                        self.registry.remove_pinned(&digest, info.put, &version).await?
                    }
                    MetaWrite::Changed(_) => return Ok(Fate::TooYoung),
                }
            }
        };
        Ok::<_, RegistryError>(if removed { Fate::Removed(tally) } else { Fate::Gone })
    }
}
