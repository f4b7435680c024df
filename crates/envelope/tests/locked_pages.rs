//! Secrets that are kept have a page to themselves, wiped before it is unlocked. A process of its own, because the locker is
//! the process's.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use bulla_envelope::random::RandomSource;
use bulla_envelope::secret::page::{PAGE_LEN, PageLock, PageLocker, held, lock_with};
use bulla_envelope::secret::{Dek, Root, StoreKey};

/// Pages that are locked, by address.
static PAGES: Mutex<BTreeMap<usize, ()>> = Mutex::new(BTreeMap::new());
/// The system allows so many.
const LIMIT: usize = 6;

struct Fake;

struct Lock(usize);

impl PageLocker for Fake {
    fn lock(&self, page: &[u8]) -> Option<PageLock> {
        let mut pages = PAGES.lock().unwrap_or_else(PoisonError::into_inner);
        let address = page.as_ptr().addr();
        assert_eq!(address % PAGE_LEN, 0, "a page is aligned");
        assert!(page.iter().all(|byte| *byte == 0), "it is locked before there is a secret in it");
        if pages.len() == LIMIT {
            return None;
        }
        assert!(pages.insert(address, ()).is_none(), "two secrets in one page");
        Some(Box::new(Lock(address)))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        PAGES.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

struct Ones;

impl RandomSource for Ones {
    fn fill(&self, dest: &mut [u8]) {
        dest.fill(0x11);
    }
}

fn locked() -> usize {
    PAGES.lock().unwrap_or_else(PoisonError::into_inner).len()
}

#[test]
fn kept_secrets_have_a_page_each_until_the_limit_and_say_so() {
    let before = Root::random(&Ones);
    assert_eq!((held().locked, held().unlocked), (0, 1));
    lock_with(&Fake);
    let root = Root::random(&Ones);
    assert_eq!(root.expose(), &[0x11; 32]);
    let keys = [root.name_key("blob")];
    let derived = (root.record_key(), root.envelope_key(), StoreKey::random(&Ones));
    assert_eq!((locked(), held().locked, held().unlocked), (5, 5, 1));
    // Each opens one blob only, and there are thousands.
    let deks: Vec<Dek> = (0..100).map(|_| Dek::random(&Ones)).collect();
    assert_eq!((locked(), deks.len()), (5, 100));
    // Beyond the limit secrets are kept all the same.
    let more: Vec<StoreKey> = (0..3).map(|_| StoreKey::random(&Ones)).collect();
    assert_eq!((locked(), held().locked, held().unlocked), (6, 6, 3));
    assert!(more.iter().all(|key| key.expose() == &[0x11; 32]));
    drop((root, keys, derived, more, before));
    assert_eq!((locked(), held().locked, held().unlocked), (0, 0, 0));
}
