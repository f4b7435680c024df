//! Gc again and again, under virtual time.

use std::time::Duration;

use bulla_registry::CollectOptions;
use tokio::time::Instant;

use crate::model::{HOUR, World, push};

/// Nodes that start together would all list the bucket at the same moment, for ever.
#[tokio::test(start_paused = true)]
async fn runs_come_at_times_of_each_nodes_own() {
    const EVERY: Duration = HOUR.saturating_mul(100);
    const LOOK: Duration = HOUR.checked_div(4).unwrap();
    let world = World::new().await;
    let registry = world.registry.clone();
    let mut last = Instant::now();
    let gc = tokio::spawn(async move { registry.collect_every(EVERY, CollectOptions::default()).await });
    let app = world.repository("app");
    let mut intervals = Vec::new();
    for layer in [b"one" as &[u8], b"two", b"three", b"four"] {
        let digest = push(&app, layer).await;
        while world.registry.store().contains(&digest).await.unwrap() {
            tokio::time::sleep(LOOK).await;
        }
        intervals.push(last.elapsed());
        last = Instant::now();
    }
    gc.abort();
    let (least, most) = (EVERY * 9 / 10 - LOOK, EVERY * 11 / 10 + LOOK);
    assert!(intervals.iter().all(|interval| (least..=most).contains(interval)), "{intervals:?}");
    intervals.dedup();
    assert!(intervals.len() > 2, "{intervals:?}");
}
