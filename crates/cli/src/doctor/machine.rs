//! The machine and this process: clocks that leases count by, memory that secrets are in.

use std::time::Duration;

use bulla_kek::{Now, Runtime, TokioRuntime};

use super::report::Report;
use crate::exit::{Kind, Result};
use crate::host;

/// How far the two clocks of a machine may part while the command runs.
const PARTED: Duration = Duration::from_secs(1);

/// Both clocks of this machine when the command began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clocks(Now);

impl Clocks {
    pub(super) fn read() -> Self {
        Self(TokioRuntime.now())
    }
}

/// What has nothing to do with the store.
pub(super) fn check(report: &mut Report<'_>, began: &Clocks) -> Result<()> {
    const CHECK: &str = "lease-clocks";
    let now = TokioRuntime.now();
    let boot = now.boot.saturating_sub(began.0.boot);
    match now.wall.duration_since(began.0.wall) {
        _ if boot.is_zero() => report.problem(
            CHECK,
            Kind::Internal,
            "the clock since boot stands still: leases can't be counted by it",
            "see the machine's clock source (CLOCK_BOOTTIME)",
        )?,
        Ok(wall) if wall.abs_diff(boot) <= PARTED => {
            report.ok(CHECK, "the time of day and the time since boot go on alike")?;
        }
        _ => report.warning(
            CHECK,
            "the time of day was set while this ran: each jump back ends the lease of every open store",
            "let the clock be slewed instead of stepped (`chronyd` with `makestep 1 3`)",
        )?,
    }
    if host::core_dumps_are_prevented() {
        report.ok("core-dumps", "the system writes none of this process")
    } else {
        report.warning(
            "core-dumps",
            "the system may write secrets into a core dump of this process",
            "`ulimit -c 0`, or `kernel.core_pattern` to nowhere",
        )
    }
}

/// Looked at while a store is open: then there are secrets.
pub(super) fn secrets(report: &mut Report<'_>) -> Result<()> {
    const CHECK: &str = "memory";
    if host::secrets_are_locked() {
        return report.ok(CHECK, "secrets are in pages that stay out of swap");
    }
    if !cfg!(feature = "locked-memory") {
        return report.skipped(CHECK, "this build does not lock memory (feature locked-memory)");
    }
    report.warning(
        CHECK,
        "the system does not let this process lock memory, so that secrets may get into swap",
        "raise the limit to 1 MiB or more: `ulimit -l`, `LimitMEMLOCK=` in the unit, `--ulimit memlock=-1` for a container; or \
         have no swap",
    )
}
