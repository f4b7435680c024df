//! Secrets out of swap and core dumps: pages that hold them are kept, as far as the system allows.

use bulla_envelope::secret::page::{PAGE_LEN, PageLock, PageLocker, lock_with};

/// How many secrets that open more than one blob this process holds, and how many of them the system keeps out of swap.
pub use bulla_envelope::secret::page::{Held as HeldSecrets, held as held_secrets};

struct SystemPages;

impl PageLocker for SystemPages {
    fn lock(&self, page: &[u8]) -> Option<PageLock> {
        if bulla_pages::page_size() != PAGE_LEN {
            return None;
        }
        // `held_secrets` says what came of it.
        Some(Box::new(bulla_pages::keep(page)?))
    }
}

/// Has secrets that open more than one blob kept out of swap from now on, where the system allows. An engine does so when it
/// is built; who opens a local vault before that calls this first, for the vault's keys are such secrets as well.
pub fn lock_secrets() {
    lock_with(&SystemPages);
}
