//! Secrets in pages of their own, which the system is asked to keep out of swap and core dumps.
//!
//! Systems lock whole pages and do not count how often: unlocking one secret would unlock every other in its page. So a
//! locked secret has a page to itself, and only those do that open more than one blob: a root, and what is derived from it.
//!
//! This crate asks no system for anything; whoever can, gives it a [`PageLocker`].

use std::any::Any;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use zeroize::Zeroize;

/// The size of a page in here. Where the system's pages are larger, a locker refuses.
pub const PAGE_LEN: usize = 4096;

/// Keeps a page in memory until it is dropped.
pub type PageLock = Box<dyn Any + Send + Sync>;

/// Asks the system to keep pages out of swap and core dumps.
pub trait PageLocker: Send + Sync {
    /// Locks the page that begins with these bytes: [`PAGE_LEN`] long, aligned to as much, and nothing else is in it. `None` where the system does not
    /// allow it (`RLIMIT_MEMLOCK`, say) or its pages are larger: the secret is then kept as any other memory.
    fn lock(&self, page: &[u8]) -> Option<PageLock>;
}

static LOCKER: OnceLock<&'static dyn PageLocker> = OnceLock::new();
static LOCKED: AtomicUsize = AtomicUsize::new(0);
static UNLOCKED: AtomicUsize = AtomicUsize::new(0);

/// Has secrets that are made from now on locked by `locker`. Once per process: a second locker changes nothing.
pub fn lock_with(locker: &'static dyn PageLocker) {
    let _ = LOCKER.set(locker);
}

/// How many secrets that open more than one blob there are in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Held {
    /// In pages that are kept out of swap.
    pub locked: usize,
    /// In ordinary memory, because the system did not allow more or nobody asked it.
    pub unlocked: usize,
}

/// How secrets are held at this moment.
#[must_use]
pub fn held() -> Held {
    Held { locked: LOCKED.load(Ordering::Relaxed), unlocked: UNLOCKED.load(Ordering::Relaxed) }
}

/// Where a secret's bytes are. Moving one moves a pointer.
pub(super) enum Place<const N: usize> {
    /// Made in passing.
    Heap(Box<[u8; N]>),
    /// Kept, but the system did not lock it.
    Kept(Box<[u8; N]>),
    /// Kept, and locked. The lock goes before the page's memory does: by then another secret may have that.
    Locked { _lock: PageLock, page: Box<Page<N>> },
}

/// A page of its own: as long as it is aligned.
#[repr(align(4096))]
pub(super) struct Page<const N: usize>([u8; N]);

impl<const N: usize> Page<N> {
    /// Where the page begins.
    fn start(&self) -> &[u8] {
        &self.0
    }
}

impl<const N: usize> Place<N> {
    pub(super) fn zero() -> Self {
        Self::Heap(Box::new([0; N]))
    }

    pub(super) fn bytes(&self) -> &[u8; N] {
        match self {
            Self::Heap(bytes) | Self::Kept(bytes) => bytes,
            Self::Locked { page, .. } => &page.0,
        }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8; N] {
        match self {
            Self::Heap(bytes) | Self::Kept(bytes) => bytes,
            Self::Locked { page, .. } => &mut page.0,
        }
    }

    /// A place to stay in, locked if possible. The bytes are copied and the old ones wiped.
    pub(super) fn kept(from: &mut Self) -> Self {
        let place = match Self::lock() {
            Some(mut place) => {
                place.bytes_mut().copy_from_slice(from.bytes());
                LOCKED.fetch_add(1, Ordering::Relaxed);
                place
            }
            None => {
                let mut bytes = Box::new([0; N]);
                bytes.copy_from_slice(from.bytes());
                UNLOCKED.fetch_add(1, Ordering::Relaxed);
                Self::Kept(bytes)
            }
        };
        from.bytes_mut().zeroize();
        place
    }

    fn lock() -> Option<Self> {
        let locker = LOCKER.get()?;
        let page = Box::new(Page([0; N]));
        // Before there is a secret in it.
        let lock = locker.lock(page.start())?;
        Some(Self::Locked { _lock: lock, page })
    }
}

impl<const N: usize> Drop for Place<N> {
    fn drop(&mut self) {
        // Before the page is unlocked, which happens when the fields are dropped.
        self.bytes_mut().zeroize();
        match self {
            Self::Heap(_) => {}
            Self::Kept(_) => drop(UNLOCKED.fetch_sub(1, Ordering::Relaxed)),
            Self::Locked { .. } => drop(LOCKED.fetch_sub(1, Ordering::Relaxed)),
        }
    }
}
