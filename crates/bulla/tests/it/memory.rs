//! Secrets are kept out of swap, and say whether they are.

use bulla::held_secrets;

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn secrets_are_in_locked_pages_and_go_with_the_store() {
    let world = World::new().await;
    let held = held_secrets();
    assert!(held.locked + held.unlocked >= 5, "{held:?}");
    // Other tests of this process come and go meanwhile, so only what is certain.
    if cfg!(target_os = "linux") && locked_kib() > 0 {
        assert!(held.locked > 0, "{held:?}");
    }
    world.put(&data(10)).await;
    world.store.close().await;
}

/// What the system says this process has locked.
fn locked_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmLck:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse().ok()).unwrap_or(0)
}
