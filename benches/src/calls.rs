//! How often the key's provider is asked while a million blobs are read. Counted, not timed; `cargo xtask bench-report`
//! prints it.

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bulla::PutOptions;

use crate::world::{Place, World, unique};
use crate::{Criterion, SMALL};

const GETS: u32 = 1_000_000;

/// Reads a small blob a million times under a usual and under a short revocation bound, and writes down the calls. The
/// calls depend on the time that takes, and on nothing else: a pair each half of the bound.
pub fn count(_criterion: &mut Criterion) {
    // As criterion understands its arguments: a bare one is a filter.
    if std::env::args().skip(1).any(|argument| !argument.starts_with('-') && !argument.contains("calls")) {
        return;
    }
    let mut lines = Vec::new();
    for bound in [Duration::from_secs(60), Duration::from_secs(1)] {
        let world = World::with(Place::Memory, bound);
        let (calls, took) = world.tokio.block_on(async {
            let put = world.store.put_bytes(unique(SMALL, 0), PutOptions::default()).await;
            let digest = put.expect("memory takes it").digest;
            let (before, started) = (world.calls.load(Ordering::Relaxed), Instant::now());
            for _ in 0..GETS {
                let blob = world.store.get(&digest).await.expect("it was put");
                assert_eq!(blob.bytes().await.expect("it opens").len(), SMALL);
            }
            (world.calls.load(Ordering::Relaxed) - before, started.elapsed())
        });
        // A pair at the opening counts from before; one more may fall on either end.
        let halves = took.as_secs_f64() / (bound.as_secs_f64() / 2.0);
        #[allow(clippy::cast_precision_loss, reason = "a handful")]
        let (counted, promised) = (calls as f64, 2.0 * (halves + 1.0));
        assert!(counted <= promised, "{calls} calls in {took:?} with R = {bound:?}");
        let line = format!(
            "{{\"bound_s\":{},\"gets\":{GETS},\"calls\":{calls},\"seconds\":{:.2}}}",
            bound.as_secs(),
            took.as_secs_f64()
        );
        lines.push(line);
    }
    // Where criterion's own results are.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/criterion");
    fs::create_dir_all(&folder).expect("the target folder is writable");
    fs::write(folder.join("calls.json"), format!("[{}]\n", lines.join(",")))
        .expect("the target folder is writable");
}
