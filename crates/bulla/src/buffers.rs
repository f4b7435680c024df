//! Buffers that are used again. A fresh one has to be zeroed first, by the allocator or page by page by the system, which
//! costs a third of opening and a tenth of sealing.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// How many buffers wait for their next use.
const KEPT: usize = 4;

/// A few buffers of about the same length. For plaintext there is one per stream, so that what a blob's reader saw stays
/// with this reader; ciphertext is anybody's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Buffers {
    free: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// A buffer that goes back when the last [`Bytes`] of it is dropped.
struct Lent {
    bytes: Vec<u8>,
    home: Buffers,
}

impl Buffers {
    /// A buffer of at least `len` bytes, whatever is in them: only what was overwritten may be used.
    pub(crate) fn take(&self, len: usize) -> Vec<u8> {
        match self.free.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            Some(buffer) if buffer.len() >= len => buffer,
            _ => vec![0; len],
        }
    }

    /// Shares a buffer's bytes until nobody needs them.
    pub(crate) fn lend(&self, bytes: Vec<u8>) -> Bytes {
        Bytes::from_owner(Lent { bytes, home: self.clone() })
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut free = self.home.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < KEPT {
            free.push(std::mem::take(&mut self.bytes));
        }
    }
}
