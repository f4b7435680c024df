//! The process and the machine it runs on: no core dumps, what of memory stays out of swap, what the host is called.

/// Has the system write no core dump of this process: secrets would be in it. It also keeps others of the same user from
/// attaching a debugger. Where the system does not allow it, `status --verbose` says so.
pub(crate) fn prevent_core_dumps() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, setrlimit};
        let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    }
    // A limit does not bind a program that core dumps are piped into.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    }
}

/// Whether the system says that it writes none.
pub(crate) fn core_dumps_are_prevented() -> bool {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use rustix::process::{DumpableBehavior, dumpable_behavior};
        matches!(dumpable_behavior(), Ok(DumpableBehavior::NotDumpable))
    }
    #[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
    {
        rustix::process::getrlimit(rustix::process::Resource::Core).current == Some(0)
    }
    #[cfg(not(unix))]
    false
}

/// Has secrets kept out of swap from now on, those of local vaults too, which are opened before a store is.
pub(crate) fn lock_secrets() {
    #[cfg(feature = "locked-memory")]
    bulla::lock_secrets();
}

/// Whether every secret that opens more than one blob is in a page that stays out of swap. Looked at while a store is open.
pub(crate) fn secrets_are_locked() -> bool {
    #[cfg(feature = "locked-memory")]
    {
        let held = bulla::held_secrets();
        held.locked > 0 && held.unlocked == 0
    }
    #[cfg(not(feature = "locked-memory"))]
    false
}

/// What events call this node.
pub(crate) fn name() -> String {
    #[cfg(unix)]
    {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    }
    #[cfg(not(unix))]
    std::env::var("COMPUTERNAME").unwrap_or_default()
}
