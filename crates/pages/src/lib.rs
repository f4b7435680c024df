//! Pages of memory that are kept out of swap, and on Linux out of core dumps.
//!
//! A crate of its own because it holds the only `unsafe` of the workspace: telling the system about a page's dumps takes its
//! address. No crate that is well kept does that behind a safe function.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test"))]

use std::fmt;

/// Keeps a page in memory, and out of core dumps, until it is dropped.
pub struct KeptPage {
    start: usize,
    len: usize,
    /// Dropped after the page is back in core dumps, and wiped by its owner before that.
    _locked: region::LockGuard,
}

/// The size of the system's pages, in bytes.
#[must_use]
pub fn page_size() -> usize {
    region::page::size()
}

/// Keeps the pages that `bytes` are in; drop what it returns before the bytes' memory is freed. `None` where the system does
/// not allow it (`RLIMIT_MEMLOCK`, say).
///
/// Systems count neither: letting one page go lets it go for everybody, so nothing else should be in it.
#[must_use]
pub fn keep(bytes: &[u8]) -> Option<KeptPage> {
    // No error: who may lock how much is the administrator's decision.
    let locked = region::lock(bytes.as_ptr(), bytes.len()).ok()?;
    let start = region::page::floor(bytes.as_ptr()).addr();
    let end = region::page::ceil(bytes.as_ptr().wrapping_add(bytes.len())).addr();
    let page = KeptPage { start, len: end - start, _locked: locked };
    dumped(&page, false).then_some(page)
}

impl Drop for KeptPage {
    fn drop(&mut self) {
        // Where it fails the page stays out of dumps, whatever it is used for next.
        dumped(self, true);
    }
}

impl fmt::Debug for KeptPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptPage").finish_non_exhaustive()
    }
}

/// Whether the system took it.
#[cfg(target_os = "linux")]
fn dumped(page: &KeptPage, is_dumped: bool) -> bool {
    use rustix::mm::{Advice, madvise};

    let advice = if is_dumped { Advice::LinuxDoDump } else { Advice::LinuxDontDump };
    let start = std::ptr::with_exposed_provenance_mut(page.start);
    // SAFETY: MADV_DONTDUMP and MADV_DODUMP change whether the kernel writes the pages into a core dump, and neither their
    // contents nor whether they can be accessed; of addresses that are not mapped they change nothing and report ENOMEM.
    unsafe { madvise(start, page.len, advice) }.is_ok()
}

/// Elsewhere there is no such thing page by page.
#[cfg(not(target_os = "linux"))]
fn dumped(_: &KeptPage, _: bool) -> bool {
    true
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[repr(align(4096))]
    struct Page([u8; 4096]);

    /// What the system says of the mapping at an address: `lo` locked, `dd` not dumped.
    fn flags(address: usize) -> String {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut inside = false;
        for line in maps.lines() {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            let bound = |text| usize::from_str_radix(text, 16).ok();
            if let Some((Some(start), Some(end))) = range.map(|(start, end)| (bound(start), bound(end))) {
                inside = (start..end).contains(&address);
            } else if let Some(flags) = line.strip_prefix("VmFlags:").filter(|_| inside) {
                return flags.to_owned();
            }
        }
        panic!("{address:x} is not mapped")
    }

    #[test]
    fn a_kept_page_is_locked_and_not_dumped_until_it_is_let_go() {
        let page = Box::new(Page([7; 4096]));
        let address = page.0.as_ptr().addr();
        let has = |flag: &str| flags(address).split_whitespace().any(|found| found == flag);
        assert!(!has("lo") && !has("dd"));
        // Where the system locks nothing there is nothing to see.
        let Some(kept) = keep(&page.0[..32]) else { return };
        assert!(has("lo") && has("dd"), "{}", flags(address));
        drop(kept);
        assert!(!has("lo") && !has("dd"), "{}", flags(address));
        assert_eq!(page.0, [7; 4096]);
    }
}
