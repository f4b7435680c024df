//! Extents that nobody names yet stay ahead of gc: those that grow old, or that a gc which has begun may look at, are copied to
//! new names.

use std::sync::Arc;
use std::time::Duration;

use bulla_envelope::ids::ExtentName;
use futures::{StreamExt, TryStreamExt, stream};

use super::{CONCURRENCY, ExtentWriter, PlacedExtent};
use crate::commit::collected;
use crate::error::{Error, ErrorKind, Result};
use crate::horizon::{Horizon, Outrun};
use crate::store::StoreInner;

impl ExtentWriter {
    /// Who takes long copies his extents to new names before they are old enough for gc to look at them, and when a gc has
    /// begun that looks at younger ones. An extent's context does not name its object, so a copy opens.
    pub(crate) async fn renew_old_extents(&mut self) -> Result<()> {
        if self.extents.is_empty() {
            return Ok(());
        }
        let inner = Arc::clone(&self.inner);
        let horizon = inner.horizon(inner.gate.revocation_bound() / 2).await?;
        if horizon > self.horizon {
            self.outrun(horizon).await?;
        }
        if !self.extents.iter().any(|placed| inner.is_old(placed)) {
            return Ok(());
        }
        self.land_all().await?;
        let old = self.extents.iter().enumerate().filter(|(_, placed)| inner.is_old(placed));
        let old: Vec<(usize, PlacedExtent)> = old.map(|(at, placed)| (at, placed.clone())).collect();
        let mut copies = stream::iter(old)
            .map(|(at, mut placed)| {
                let inner = Arc::clone(&inner);
                async move {
                    inner.copy_extent(&mut placed).await.map_err(gone)?;
                    Ok::<_, Error>((at, placed))
                }
            })
            .buffer_unordered(CONCURRENCY);
        while let Some((at, placed)) = copies.try_next().await? {
            self.fresh.push(placed.extent.name);
            let old = std::mem::replace(&mut self.extents[at], placed);
            self.replaced.push(old.extent.name);
        }
        Ok(())
    }

    /// Makes sure of all extents against a gc that has begun. What is copied stays as well: whoever named it may still be on
    /// his way.
    async fn outrun(&mut self, horizon: Horizon) -> Result<()> {
        self.land_all().await?;
        let before: Vec<ExtentName> = self.extents.iter().map(|placed| placed.extent.name).collect();
        let outcome = self.inner.outrun(&mut self.extents, horizon).await?;
        let moved = self.extents.iter().zip(before).filter(|(placed, before)| placed.extent.name != *before);
        self.fresh.extend(moved.map(|(placed, _)| placed.extent.name));
        if outcome == Outrun::Gone {
            return Err(collected());
        }
        self.horizon = self.horizon.max(horizon);
        Ok(())
    }

    /// After an object that names the extents was written, and before that is acknowledged: no gc removes them behind its
    /// back. `true`: some were copied for that, so it is to be written again.
    pub(crate) async fn outrun_gc(&mut self) -> Result<bool> {
        if self.extents.is_empty() {
            return Ok(false);
        }
        let too_old = self.inner.are_too_old(&self.extents);
        let max_age = if too_old { Duration::ZERO } else { self.inner.gate.revocation_bound() };
        let horizon = self.inner.horizon(max_age).await?;
        if horizon <= self.horizon && !too_old {
            return Ok(false);
        }
        let before: Vec<ExtentName> = self.extents.iter().map(|placed| placed.extent.name).collect();
        self.outrun(horizon).await?;
        self.renew_old_extents().await?;
        Ok(self.extents.iter().map(|placed| placed.extent.name).ne(before))
    }
}

impl StoreInner {
    /// Whether gc could look at it before long, if nobody named it.
    pub(crate) fn is_old(&self, placed: &PlacedExtent) -> bool {
        self.parts.runtime.now().since(&placed.started) > self.parts.gc_grace / 4
    }

    /// Whether gc could look at one of them at any time, if nobody named it.
    pub(crate) fn are_too_old(&self, extents: &[PlacedExtent]) -> bool {
        let now = self.parts.runtime.now();
        let oldest = extents.iter().map(|placed| &placed.started).min_by_key(|started| started.boot);
        oldest.is_some_and(|oldest| now.since(oldest) > self.parts.gc_grace / 2)
    }
}

/// A copy whose source is gone was too late.
fn gone(error: Error) -> Error {
    if error.kind() == ErrorKind::NotFound { collected().with_source(error) } else { error }
}
