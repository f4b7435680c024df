//! Memory stays within its budget, whatever the blob's size.

use std::fs::{self, File};
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::world::World;

/// The blob's size; a sparse file.
const SIZE: u64 = 256 << 20;
/// The stream's 16 MiB, 64 MiB for the vault's passphrase, the program itself.
const PEAK_KIB: u64 = 128 << 10;

/// The largest resident size of the process, in KiB, looked at until it ends.
fn peak(child: &mut Child) -> u64 {
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let now = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0);
        peak = peak.max(now);
        sleep(Duration::from_millis(2));
    }
    assert!(child.wait().unwrap().success());
    peak
}

#[test]
#[cfg(target_os = "linux")]
fn put_and_get_of_a_large_blob_take_little_memory() {
    let world = World::with_store();
    let path = world.path("large");
    File::create(&path).unwrap().set_len(SIZE).unwrap();
    let mut put = world.command(&["put", &world.store(), &path]).stdout(Stdio::null()).spawn().unwrap();
    let put_peak = peak(&mut put);
    let digest = world.ok(&["ls", &world.store()]).text().trim().to_owned();
    let mut get = world.command(&["get", &world.store(), &digest]).stdout(Stdio::null()).spawn().unwrap();
    let get_peak = peak(&mut get);
    assert!(put_peak > 0 && put_peak < PEAK_KIB, "put: {put_peak} KiB");
    assert!(get_peak > 0 && get_peak < PEAK_KIB, "get: {get_peak} KiB");
}
