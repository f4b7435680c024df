//! Group `rotate`: the KEK is replaced under a store of 10 to 1,000,000 envelopes. It touches the log alone, so the time
//! is the same.
//!
//! The envelopes are copies of one under names of their own: nothing reads them, and if a rotation did, it would show.

use std::time::Duration;

use bulla::{PutOptions, RotateOptions};
use bulla_kek::KeyId;
use criterion::{BenchmarkId, SamplingMode};
use futures::StreamExt as _;
use futures::stream;
use object_store::path::Path;
use object_store::{ObjectStore as _, ObjectStoreExt as _, PutPayload};

use crate::world::{World, unique};
use crate::{Criterion, SMALL};

/// How many envelopes there are.
const SIZES: [u32; 4] = [10, 1_000, 100_000, 1_000_000];

/// Runs the group.
pub fn group(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rotate");
    // Each rotation makes the log longer, so that every size has to have about as many.
    let (warm_up, measured) = (Duration::from_millis(100), Duration::from_millis(500));
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(warm_up).measurement_time(measured);
    for size in SIZES {
        // Made when it is needed, once: criterion calls the closure for every sample, or never, if it is filtered out.
        let mut made = None;
        let mut number = 0_usize;
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            let (world, keys) = made.get_or_insert_with(|| {
                let world = World::new();
                world.fill(size);
                let keys = [world.key("other"), world.key("bench")];
                (world, keys)
            });
            bencher.iter(|| {
                world.rotate(keys[number % 2].clone());
                number += 1;
            });
        });
    }
    group.finish();
}

impl World {
    fn rotate(&self, key: KeyId) {
        let options = RotateOptions { key: Some(key), ..RotateOptions::default() };
        let rotated = self.tokio.block_on(self.store.rotate(options));
        assert!(rotated.expect("nobody else is at it").changed);
    }

    /// Makes as many envelopes.
    fn fill(&self, size: u32) {
        self.tokio.block_on(async {
            let put = self.store.put_bytes(unique(SMALL, 0), PutOptions::default()).await;
            assert!(put.expect("memory takes it").created);
            let mut listed = self.objects.list(Some(&Path::from("blobs")));
            let one = listed.next().await.expect("it was put").expect("memory lists").location;
            let envelope = self.objects.get(&one).await.expect("it is there");
            let envelope = PutPayload::from(envelope.bytes().await.expect("memory gives it"));
            let (folder, _) = one.as_ref().rsplit_once('/').expect("an envelope is in a folder");
            let copies = stream::iter(1..size).map(|number| {
                let (key, envelope) = (Path::from(format!("{folder}/{number:052}")), envelope.clone());
                async move { self.objects.put(&key, envelope).await.map(drop) }
            });
            let copied = copies.buffer_unordered(16).all(|put| std::future::ready(put.is_ok()));
            assert!(copied.await);
        });
    }
}
