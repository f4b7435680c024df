//! Appending: a writer that goes on after what is saved, and the session written as it gets on.

use std::sync::Arc;

use bulla_envelope::session::{MAX_EXTENTS, MAX_TAIL_LEN, SessionRecord};
use bytes::Bytes;

use super::Session;
use crate::error::Result;
use crate::extents::ExtentWriter;
use crate::horizon::Horizon;
use crate::sealing::{Begun, Sealing};

/// A long append writes its session whenever so much came since the last time. With what is in flight and what fills an
/// extent, no more than 64 MiB are lost with the node.
const SAVE_EVERY: u64 = 32 << 20;

/// How much of one append is taken before it is asked whether to write the session.
const SLICE: usize = 4 << 20;

impl Session {
    /// A writer that goes on after what is saved.
    pub(super) async fn writer(&self) -> Result<ExtentWriter> {
        let inner = self.store.inner();
        let record = &self.saved.record;
        let dek = inner.session_dek(&record.wraps).await?;
        inner.refuse_expired_kek()?;
        let begun = Begun { blob: record.blob, dek, hasher: self.hasher()?, extents: record.extents.len() };
        let parts = &inner.parts;
        let sealing = Sealing::go_on(
            parts.crypto,
            inner.store_id,
            begun,
            parts.memory_per_stream,
            parts.buffers.clone(),
        );
        let extents = record.extents.iter().map(|stored| inner.placed(stored)).collect();
        let stored = (extents, Horizon(record.horizon));
        let tail = Bytes::from(record.tail.clone());
        Ok(ExtentWriter::go_on(Arc::clone(inner), sealing, stored, tail, MAX_EXTENTS))
    }

    pub(super) async fn write(&mut self, writer: &mut ExtentWriter, mut bytes: Bytes) -> Result<()> {
        while !bytes.is_empty() {
            writer.write(bytes.split_to(bytes.len().min(SLICE))).await?;
            let saved = self.offset();
            if let Some((count, hash)) = writer.stored_prefix(saved, SAVE_EVERY).await? {
                let next = SessionRecord { tail: Vec::new(), hash, ..self.saved.record.clone() };
                self.save_stored(writer, count, next).await?;
                writer.drop_replaced().await;
            }
        }
        Ok(())
    }

    /// Stores what is not stored, or keeps it in the session if it is little, and writes the session.
    pub(super) async fn save_rest(&mut self, writer: &mut ExtentWriter) -> Result<()> {
        let tail = match writer.hash_short_rest(MAX_TAIL_LEN)? {
            Some(tail) => {
                writer.land_all().await?;
                tail
            }
            None => {
                writer.write_rest().await?;
                Vec::new()
            }
        };
        let (count, hash) = (writer.extents().len(), writer.hash()?);
        self.save_stored(writer, count, SessionRecord { tail, hash, ..self.saved.record.clone() }).await
    }

    /// Tidies up behind a write of the session that may have failed.
    pub(super) async fn settle(&self, mut writer: ExtentWriter, outcome: Result<()>) -> Result<()> {
        match &outcome {
            Ok(()) => {
                // A marked session's extents may be named by an envelope, also under their old names.
                if self.committing().is_none() {
                    writer.drop_replaced().await;
                }
            }
            // A write that names them was sent: whoever read it may have gone on from there.
            Err(error) if self.saved.in_doubt => {
                tracing::debug!(%error, "data of a session whose state is in doubt stays until gc");
            }
            Err(_) => writer.abandon().await,
        }
        outcome
    }
}
